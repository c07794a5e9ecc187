//! The mesh as a file.
//!
//! One YAML (or JSON) file says what a control plane would: workloads, services and policies, in the words of
//! `/config_dump`, and besides which pods to enrol and which local certificate authority to use. A file is taken
//! whole or not at all, and an error names its line.

mod apply;
mod parse;
mod plain;
mod raw;
mod source;
mod split;
mod texts;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Policy, Service, Workload};

pub use self::source::{FileCounters, FileSource, LoadError, OpenedFile};

/// What a mesh file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFile {
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// The services.
    pub services: Vec<Service>,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The pods to enrol.
    pub enroll: Vec<Enrollment>,
    /// The local certificate authority, if one is used.
    pub ca: Option<CaConfig>,
    /// The trust domain of workloads that name none, and of the local authority.
    pub trust_domain: Arc<str>,
}

/// A pod to enrol. Without `netns` and `container` it is enrolled when the CNI plugin brings it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Enrollment {
    /// The pod's name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its service account; absent: its workload's.
    pub service_account: Option<String>,
    /// The path of its network namespace.
    pub netns: Option<PathBuf>,
    /// The container whose network namespace it is.
    pub container: Option<String>,
    /// Annotations of the pod, by which it may differ from others, as Kubernetes has them.
    pub annotations: BTreeMap<String, String>,
}

/// A local certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaConfig {
    /// The directory of its certificate and key.
    pub dir: PathBuf,
    /// How long its certificates are valid.
    pub ttl: Duration,
}

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct FileError {
    /// The line, from 1; 0 if it is not known.
    pub line: u64,
    /// The column, from 1; 0 if it is not known.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

impl MeshFile {
    /// Reads the text of a mesh file.
    ///
    /// # Errors
    /// A [`FileError`] with the place of the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        parse::parse(text)
    }
}

/// Reads the text of a mesh file: [`MeshFile::parse`].
///
/// # Errors
/// A [`FileError`] with the place of the first thing that is wrong.
pub fn parse(text: &str) -> Result<MeshFile, FileError> {
    MeshFile::parse(text)
}

/// A file as the reader of YAML has it, and as the readers of pieces have it, however short it is.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzing(text: &str) -> (Result<MeshFile, FileError>, Option<Result<MeshFile, FileError>>) {
    (parse::whole(text), parse::in_pieces_of(text, 40).map(parse::meant))
}
