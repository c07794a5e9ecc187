//! The keys that a test presses.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// To the next thing that takes keys.
    Tab,
    /// Follows a link.
    Enter,
    /// Presses a button.
    Space,
}

impl Key {
    /// Name, code, the number that Windows gave it, and what it types.
    pub(crate) fn words(self) -> (&'static str, &'static str, u32, &'static str) {
        match self {
            Self::Tab => ("Tab", "Tab", 9, ""),
            Self::Enter => ("Enter", "Enter", 13, "\r"),
            Self::Space => (" ", "Space", 32, " "),
        }
    }
}
