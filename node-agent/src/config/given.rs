//! What the user said, and where: the text of every setting with its source.
//!
//! Invariant: a setting is there once, from the source that outranks the others: flag, variable, file, default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value comes from. The order is that of rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Nobody said anything.
    Default,
    /// Nobody said anything, but something else decides what the default is.
    DefaultFor(&'static str),
    /// A line of the configuration file.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, without its dashes.
    Flag(&'static str),
}

impl Source {
    /// Whether somebody said it.
    pub(crate) fn is_explicit(&self) -> bool {
        !matches!(self, Self::Default | Self::DefaultFor(_))
    }

    /// A value as its source has it, for a message about it.
    pub(crate) fn quote(&self, value: &str) -> String {
        match self {
            Self::Default | Self::DefaultFor(_) => format!("{self}: {value}"),
            Self::File { key, .. } => format!("{self}: {key}: {value}"),
            Self::Variable(name) => format!("{name}={value}"),
            Self::Flag(flag) => format!("--{flag}={value}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::DefaultFor(reason) => write!(f, "default {reason}"),
            Self::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// In the user's words.
    pub(crate) text: String,
    /// Where.
    pub(crate) source: Source,
}

/// All that was written, of whatever rank.
#[derive(Clone, Debug, Default)]
pub(crate) struct Givens {
    /// By flag.
    pub(crate) settings: BTreeMap<&'static str, Given>,
    /// By flag and name.
    pub(crate) families: BTreeMap<(&'static str, String), Given>,
}

impl Givens {
    /// Enters a value, unless one of a higher rank is there.
    pub(crate) fn enter(&mut self, flag: &'static str, given: Given) {
        match self.settings.get(flag) {
            Some(known) if known.source > given.source => {}
            _ => drop(self.settings.insert(flag, given)),
        }
    }

    /// The same for one of a family.
    pub(crate) fn enter_named(&mut self, flag: &'static str, name: String, given: Given) {
        let place = (flag, name);
        match self.families.get(&place) {
            Some(known) if known.source > given.source => {}
            _ => drop(self.families.insert(place, given)),
        }
    }

    /// Those of a family, by name.
    pub(crate) fn family<'a>(&'a self, flag: &'a str) -> impl Iterator<Item = (&'a str, &'a Given)> {
        let of_it = self.families.iter().filter(move |((family, _), _)| *family == flag);
        of_it.map(|((_, name), given)| (name.as_str(), given))
    }

    /// Whether somebody said something about a setting that is not empty.
    pub(crate) fn says(&self, flag: &str) -> bool {
        self.settings.get(flag).is_some_and(|given| given.source.is_explicit() && !given.text.is_empty())
    }
}
