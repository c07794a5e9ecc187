//! Watches a mesh file and applies it whenever it changes.
//!
//! Invariant: a file that cannot be read or is wrong changes nothing; it is logged once, with its line, and counted.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::apply::apply;
use super::{CaConfig, Enrollment, FileError, MeshFile};
use crate::watched::Events;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 256 << 20;

/// Why a mesh file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("cannot read the mesh file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong.
    #[error("the mesh file {} is wrong: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: FileError,
    },
    /// It describes a mesh, and so does a control plane.
    #[error(
        "the mesh file {} has workloads, services or policies, which come from the control plane: take them out, or run \
         without a control plane", path.display()
    )]
    TwoSources {
        /// The file.
        path: PathBuf,
    },
}

/// What became of the versions of a mesh file.
#[derive(Debug, Default)]
pub struct FileCounters {
    /// Versions that were taken.
    pub applied: AtomicU64,
    /// Versions that could not be read or were wrong.
    pub rejected: AtomicU64,
}

/// A watched mesh file. Dropping it ends the watch; the mesh stays as it is.
#[derive(Debug)]
pub struct FileSource {
    counters: Arc<FileCounters>,
    task: JoinHandle<()>,
}

/// A mesh file that has been read, and is watched from before it was, so that no change falls in between.
pub struct OpenedFile {
    path: PathBuf,
    events: Events,
    seen: Digest,
    file: MeshFile,
}

impl fmt::Debug for OpenedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl OpenedFile {
    /// Begins to watch a file, and reads it.
    ///
    /// # Errors
    /// A [`LoadError`] if the file is not good now.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LoadError> {
        let path = path.into();
        let events = Events::around(&path);
        let text = read(&path)?;
        let file = parse(&path, &text)?;
        Ok(Self { path, events, seen: Digest::of(&text), file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub fn mesh(&self) -> &MeshFile {
        &self.file
    }

    /// Applies it, as [`FileSource::watch`] does, and goes on doing so when it changes.
    ///
    /// # Errors
    /// [`LoadError::TwoSources`] if there is no store and the file describes a mesh.
    pub fn follow(
        self,
        store: Option<Arc<Store>>,
        enrollments: watch::Sender<Vec<Enrollment>>,
    ) -> Result<FileSource, LoadError> {
        let Self { path, events, seen, file } = self;
        if store.is_none() && describes_a_mesh(&file) {
            return Err(LoadError::TwoSources { path });
        }
        let counters = Arc::new(FileCounters::default());
        let follower = Follower {
            path,
            store,
            enrollments,
            counters: Arc::clone(&counters),
            started: Started::with(&file),
            seen: Seen::Good(seen),
        };
        follower.take(file);
        let task = tokio::spawn(follow(follower, events));
        Ok(FileSource { counters, task })
    }
}

impl FileSource {
    /// Applies a mesh file to a store and goes on doing so when it changes. The pods to enrol are sent
    /// whenever they change. Without a store the mesh comes from elsewhere, and the file says nothing of it. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// A [`LoadError`] if the file is not good now. Later errors are logged and counted.
    pub fn watch(
        path: impl Into<PathBuf>,
        store: Option<Arc<Store>>,
        enrollments: watch::Sender<Vec<Enrollment>>,
    ) -> Result<Self, LoadError> {
        OpenedFile::open(path)?.follow(store, enrollments)
    }

    /// What became of the file's versions.
    pub fn counters(&self) -> &Arc<FileCounters> {
        &self.counters
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut follower: Follower, mut events: Events) {
    loop {
        events.next().await;
        // A large file takes a while to parse, which is no work for a thread of the runtime.
        match tokio::task::spawn_blocking(move || follower.refresh()).await {
            Ok(same) => follower = same,
            Err(error) => {
                warn!(%error, "the mesh file is no longer followed");
                return;
            }
        }
    }
}

/// A text as it is remembered: that of a large mesh is not worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digest {
    length: usize,
    hash: u64,
}

impl Digest {
    fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { length: text.len(), hash: hasher.finish() }
    }
}

/// The text that was seen last, and what it was worth.
enum Seen {
    Good(Digest),
    Bad(Digest),
    Unreadable(String),
}

/// What the file said at the start of the things that are read at the start only.
#[derive(Debug, PartialEq, Eq)]
struct Started {
    ca: Option<CaConfig>,
    trust_domain: Arc<str>,
}

impl Started {
    fn with(file: &MeshFile) -> Self {
        Self { ca: file.ca.clone(), trust_domain: Arc::clone(&file.trust_domain) }
    }
}

struct Follower {
    path: PathBuf,
    store: Option<Arc<Store>>,
    enrollments: watch::Sender<Vec<Enrollment>>,
    counters: Arc<FileCounters>,
    started: Started,
    seen: Seen,
}

impl Follower {
    /// Reads the file again, and applies it if it is another one and good.
    fn refresh(mut self) -> Self {
        match read(&self.path) {
            Ok(text) => {
                let digest = Digest::of(&text);
                if matches!(&self.seen, Seen::Good(seen) | Seen::Bad(seen) if *seen == digest) {
                    return self;
                }
                match parse(&self.path, &text) {
                    Ok(file) if self.store.is_none() && describes_a_mesh(&file) => {
                        self.reject(&LoadError::TwoSources { path: self.path.clone() }.to_string());
                        self.seen = Seen::Bad(digest);
                    }
                    Ok(file) => {
                        self.take(file);
                        self.seen = Seen::Good(digest);
                    }
                    Err(error) => {
                        self.reject(&error.to_string());
                        self.seen = Seen::Bad(digest);
                    }
                }
            }
            Err(error) => {
                let error = error.to_string();
                if !matches!(&self.seen, Seen::Unreadable(seen) if *seen == error) {
                    self.reject(&error);
                    self.seen = Seen::Unreadable(error);
                }
            }
        }
        self
    }

    fn take(&self, mut file: MeshFile) {
        for caution in self.cautions(&file) {
            warn!(path = %self.path.display(), "{caution}");
        }
        let (workloads, services, policies) =
            (file.workloads.len(), file.services.len(), file.policies.len());
        let changed =
            self.store.as_ref().is_some_and(|store| store.update(|current| apply(&mut file, current)));
        self.enrollments.send_if_modified(|enrollments| {
            let differs = *enrollments != file.enroll;
            if differs {
                enrollments.clone_from(&file.enroll);
            }
            differs
        });
        self.counters.applied.fetch_add(1, Ordering::Relaxed);
        info!(
            path = %self.path.display(),
            workloads,
            services,
            policies,
            pods = file.enroll.len(),
            changed,
            "mesh file applied"
        );
    }

    /// What is taken as it stands but may not be what was meant.
    fn cautions(&self, file: &MeshFile) -> Vec<&'static str> {
        let now = Started::with(file);
        let cautions = [
            (
                file.workloads.is_empty()
                    && self.store.as_ref().is_some_and(|store| store.load().workloads().next().is_some()),
                "the new version of the mesh file has no workload any more",
            ),
            (
                file.enroll.is_empty() && !self.enrollments.borrow().is_empty(),
                "the new version of the mesh file enrols no pod any more",
            ),
            (
                now.ca != self.started.ca,
                "`ca` of the mesh file has changed, which needs a restart of the agent: until then the old authority signs",
            ),
            (
                now.trust_domain != self.started.trust_domain,
                "`trustDomain` of the mesh file has changed, which needs a restart of the agent: until then its authority \
                 refuses workloads of the new one",
            ),
        ];
        cautions.into_iter().filter(|(applies, _)| *applies).map(|(_, caution)| caution).collect()
    }

    fn reject(&self, error: &str) {
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        warn!(error, "mesh file rejected, the last good state stays in force");
    }
}

fn describes_a_mesh(file: &MeshFile) -> bool {
    !(file.workloads.is_empty() && file.services.is_empty() && file.policies.is_empty())
}

fn read(path: &Path) -> Result<String, LoadError> {
    let text = || {
        let mut text = String::new();
        File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
            return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
        }
        Ok(text)
    };
    text().map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn parse(path: &Path, text: &str) -> Result<MeshFile, LoadError> {
    MeshFile::parse(text).map_err(|source| LoadError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str =
        "ca: {dir: /a}\nworkloads: [{name: a, namespace: n}]\nenroll: [{name: a, namespace: n}]\n";

    #[test]
    fn what_may_not_be_meant_is_told() {
        let first = MeshFile::parse(FIRST).unwrap();
        let follower = Follower {
            path: "mesh.yaml".into(),
            store: Some(Arc::default()),
            enrollments: watch::Sender::new(Vec::new()),
            counters: Arc::default(),
            started: Started::with(&first),
            seen: Seen::Good(Digest::of(FIRST)),
        };
        let cautions = |text: &str| follower.cautions(&MeshFile::parse(text).unwrap());
        assert_eq!(cautions("ca: {dir: /a}"), [""; 0], "nothing was there to be lost");
        follower.take(first);
        assert_eq!(cautions(FIRST), [""; 0]);
        for (from, to, told) in [
            ("workloads: [{name: a, namespace: n}]", "workloads: []", "no workload"),
            ("enroll: [{name: a, namespace: n}]", "enroll: []", "enrols no pod"),
            ("{dir: /a}", "{dir: /b}", "`ca`"),
            ("{dir: /a}", "{dir: /a}\ntrustDomain: other.example", "`trustDomain`"),
        ] {
            let cautions = cautions(&FIRST.replace(from, to));
            assert!(cautions.len() == 1 && cautions[0].contains(told), "{to}: {cautions:?}");
        }
    }
}
