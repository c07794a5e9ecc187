//! What a plugin whose agent is not there goes by: the namespaces and pods of the mesh, as the agent last knew them, in a file.
//!
//! Replaced whole, so that nobody reads half of it. A file that cannot be read, or is of another release, is no list: whoever asks then
//! has to assume that every pod is in the mesh.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Selectors;

/// Version of the file.
const VERSION: u32 = 1;
/// The plugin runs as root, and administrators may look.
const MODE: u32 = 0o644;
/// Longest file that is read, in bytes: tens of thousands of namespaces.
const LONGEST: u64 = 16 << 20;

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmbientList {
    version: u32,
    /// Namespaces whose pods are in the mesh unless their own labels say otherwise.
    pub namespaces: BTreeSet<String>,
    /// Pods that are wanted by name, as `namespace/name`.
    pub pods: BTreeSet<String>,
    /// Whether whoever is not on the list is not in the mesh.
    pub complete: bool,
    /// By which labels pods are selected.
    #[serde(default)]
    pub selectors: Selectors,
}

/// What the list says of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It is in the mesh, by its name.
    Yes,
    /// Its namespace is in the mesh, and the pod unless its own labels say otherwise.
    Namespace,
    /// It is not.
    No,
    /// Only its labels would say.
    Unknown,
}

/// A list that cannot be kept or used.
#[derive(Debug, Error)]
pub enum ListError {
    /// The file.
    #[error("list of the mesh's namespaces {path}: {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Of another release.
    #[error("list of the mesh's namespaces {path} has version {found}, this side reads {VERSION}")]
    Version {
        /// Its path.
        path: PathBuf,
        /// The version it states.
        found: u64,
    },
}

/// Bytes that are no list.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Not the JSON of one.
    Malformed(serde_json::Error),
    /// Of another release.
    Version(u64),
}

impl AmbientList {
    /// A list of these.
    pub fn new(
        namespaces: BTreeSet<String>,
        pods: BTreeSet<String>,
        complete: bool,
        selectors: Selectors,
    ) -> Self {
        Self { version: VERSION, namespaces, pods, complete, selectors }
    }

    /// What it says of a pod.
    pub fn find(&self, namespace: &str, name: &str) -> Listed {
        if self.pods.contains(&format!("{namespace}/{name}")) {
            Listed::Yes
        } else if self.namespaces.contains(namespace) {
            Listed::Namespace
        } else if self.complete {
            Listed::No
        } else {
            Listed::Unknown
        }
    }

    /// Reads a list.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is of another release.
    pub fn read(path: &Path) -> Result<Self, ListError> {
        use io::Read as _;
        let error = |source| ListError::File { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut bytes))
            .map_err(error)?;
        Self::parse(&bytes).map_err(|fault| match fault {
            Fault::Malformed(source) => error(source.into()),
            Fault::Version(found) => ListError::Version { path: path.to_owned(), found },
        })
    }

    /// Reads the bytes of a list. The version first: a list of another release may differ in anything else.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Stated {
            version: u64,
        }
        let stated: Stated = serde_json::from_slice(bytes).map_err(Fault::Malformed)?;
        if stated.version != u64::from(VERSION) {
            return Err(Fault::Version(stated.version));
        }
        serde_json::from_slice(bytes).map_err(Fault::Malformed)
    }

    /// Writes or replaces a list, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written beside, or put into place.
    pub fn write(&self, path: &Path) -> Result<(), ListError> {
        let error = |source| ListError::File { path: path.to_owned(), source };
        let bytes = serde_json::to_vec(self).map_err(|source| error(source.into()))?;
        let new = path.with_extension("new");
        let write = || {
            let mut options = std::fs::File::options();
            let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&new)?;
            file.write_all(&bytes)?;
            std::fs::rename(&new, path)
        };
        write().map_err(error)
    }
}
