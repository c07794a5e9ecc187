//! All that is wrong with a configuration, at once.

use std::fmt;

/// What is wrong, one line each: the setting as the user wrote it, the value, the reason, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConfigError {
    /// Not empty.
    pub(crate) problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the configuration is wrong: {only}")?,
            several => {
                write!(f, "the configuration is wrong in {} places:", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  {problem}"))?;
            }
        }
        write!(f, "\n  (every setting is in docs/configuration.md)")
    }
}
