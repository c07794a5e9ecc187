//! The directory of the runtime's network configurations: which of them it uses.
//!
//! That is the first one that can be read, in the order of their names, as the runtimes themselves choose. What cannot be used
//! is passed over and told of, not touched.

use std::fs;
use std::path::{Path, PathBuf};

use super::chain::{Chain, ChainError, Form};
use super::files::{self, FileError};

/// More than any configuration has.
const LARGEST: u64 = 1 << 20;

/// A configuration that can be used, as it was read.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// Its file.
    pub(crate) path: PathBuf,
    /// How it is written.
    pub(crate) form: Form,
    /// What it says.
    pub(crate) text: String,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// It is no text.
    #[error("{} is no text in UTF-8", .0.display())]
    NoText(PathBuf),
    /// It is no configuration.
    #[error("{}: {source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ChainError,
    },
}

/// What a look at the directory has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The configurations that can be used, in order.
    pub(crate) usable: Vec<Configuration>,
    /// What was passed over.
    pub(crate) passed: Vec<Unusable>,
}

impl Configuration {
    /// Reads a file.
    ///
    /// # Errors
    /// An [`Unusable`] that names it.
    pub(crate) fn read(path: &Path, form: Form) -> Result<Self, Unusable> {
        let text = String::from_utf8(files::read(path, LARGEST)?);
        let text = text.map_err(|_| Unusable::NoText(path.to_owned()))?;
        let configuration = Self { path: path.to_owned(), form, text };
        configuration.chain()?;
        Ok(configuration)
    }

    /// What is in it.
    ///
    /// # Errors
    /// An [`Unusable`] if it is no configuration, which it was when it was read.
    pub(crate) fn chain(&self) -> Result<Chain<'_>, Unusable> {
        let wrong = |source| Unusable::Wrong { path: self.path.clone(), source };
        Chain::read(&self.text, self.form).map_err(wrong)
    }

    /// The name of its file.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Unusable {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Read(error) => &error.path,
            Self::NoText(path) | Self::Wrong { path, .. } => path,
        }
    }

    /// Whether the runtime uses this file all the same, so that it is of no use to go on to the next one.
    pub(crate) fn is_used_by_the_runtime(&self) -> bool {
        matches!(self, Self::Wrong { source: ChainError::Version(_), .. })
    }
}

/// Looks at all files of a directory that a runtime would.
///
/// # Errors
/// A [`FileError`] if the directory cannot be listed.
pub(crate) fn look(directory: &Path) -> Result<Found, FileError> {
    let list = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    };
    let failed = |source| FileError { operation: "list", path: directory.to_owned(), source };
    let names: Vec<String> = list().map_err(failed)?;
    let mut found = Found::default();
    for name in names {
        let Some(form) = Form::of(&name) else { continue };
        match Configuration::read(&directory.join(&name), form) {
            Ok(configuration) => found.usable.push(configuration),
            // Removed between the list and the look.
            Err(Unusable::Read(error)) if error.source.kind() == std::io::ErrorKind::NotFound => {}
            Err(unusable) => found.passed.push(unusable),
        }
    }
    Ok(found)
}
