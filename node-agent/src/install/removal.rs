//! Taking everything off the node again.
//!
//! Every step is tried, whatever became of the others. The entry goes first, so that the runtime does not call what is gone.

use std::fs;
use std::path::{Path, PathBuf};

use super::configurations::{self, Configuration, Unusable};
use super::entry::PLUGIN;
use super::files::{self, FileError, Mode};
use super::kubeconfig;
use super::plan::{Plan, Style};

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// Files that were removed or written without us.
    pub(crate) changed: Vec<PathBuf>,
    /// What could not be done.
    pub(crate) failures: Vec<String>,
}

impl Plan {
    /// Removes the plugin, its entry and all that it needs.
    pub(crate) fn remove(&self) -> Removal {
        let mut removal = Removal::default();
        match &self.style {
            Style::Copied => removal.delete(&self.directory.join(&self.copy)),
            Style::Alone => removal.delete(&self.directory.join(self.alone())),
            Style::Chained => {}
        }
        match configurations::look(&self.directory) {
            Ok(found) => found.usable.iter().for_each(|one| removal.restore(one)),
            Err(error) => removal.failures.push(error.to_string()),
        }
        removal.delete(&self.directory.join(kubeconfig::NAME));
        if let Some(plugins) = &self.plugins {
            removal.delete(&plugins.join(PLUGIN));
        }
        for directory in [Some(&self.directory), self.plugins.as_ref()].into_iter().flatten() {
            removal.sweep(directory);
        }
        removal
    }
}

impl Removal {
    fn delete(&mut self, path: &Path) {
        match files::remove(path) {
            Ok(true) => self.changed.push(path.to_owned()),
            Ok(false) => {}
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    fn restore(&mut self, configuration: &Configuration) {
        match put_back(configuration) {
            Ok(changed) => self.changed.extend(changed),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    /// What a write that did not come to its end has left.
    fn sweep(&mut self, directory: &Path) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let left = entries.map(|entry| entry.path()).filter(|path| files::is_left_over(path));
        left.for_each(|path| self.delete(&path));
    }
}

/// A configuration as it was before us; nothing if we are not in it.
fn put_back(configuration: &Configuration) -> Result<Option<PathBuf>, NotPutBack> {
    let chain = configuration.chain()?;
    let Some(text) = chain.without() else { return Ok(None) };
    let path = &configuration.path;
    if let Some((name, original)) = chain.unwrapped() {
        let restored = path.with_file_name(name);
        // One that has come meanwhile is newer than the one that was wrapped.
        if !restored.exists() {
            files::replace(&restored, original.as_bytes(), Mode::Like, path)?;
        }
        files::remove(path)?;
        return Ok(Some(restored));
    }
    files::replace(path, text.as_bytes(), Mode::Like, path)?;
    Ok(Some(path.clone()))
}

#[derive(Debug, thiserror::Error)]
enum NotPutBack {
    #[error(transparent)]
    Read(#[from] Unusable),
    #[error(transparent)]
    File(#[from] FileError),
}
