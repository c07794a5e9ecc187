//! What a starting agent must know of the pods that the one before it captured: one small file a pod.
//!
//! The kernel says what is captured (pins, rows); only these say whose it is. A record is written before the pod is
//! captured and removed after it was released, so that there is no captured pod without one. A record that cannot be read
//! is reported and left alone.
//!
//! An agent is also followed by an older one. What a later release has added is passed over, for it takes a pod over by what it knows
//! rather than not at all; only a release that gives a field another meaning counts the version up, and then the older one keeps off.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::file::Enrollment;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::wishes::Wanted;

/// The kernel's name of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Names of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PodKey {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl PodKey {
    /// Whether this is its name, with its namespace (`NAMESPACE/POD`) or without (`POD`).
    pub(crate) fn is_called(&self, name: &str) -> bool {
        match name.split_once('/') {
            Some((namespace, name)) => self.namespace == namespace && self.name == name,
            None => self.name == name,
        }
    }
}

impl std::fmt::Display for PodKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a record means; the first one is not written down.
const VERSION: u32 = 1;

/// A captured pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Names of the pod.
    pub(crate) pod: PodKey,
    /// Where its network namespace is.
    pub(crate) netns: PathBuf,
    /// The kernel's number of that namespace, since this boot.
    pub(crate) cookie: u64,
    /// The sandbox that the runtime named, where it came through the plugin.
    pub(crate) container_id: Option<String>,
    /// The network that the runtime named then; another runtime has another one.
    #[serde(default)]
    pub(crate) network: String,
    /// Settings of the namespace that capture has switched on, to be switched off again.
    #[serde(default)]
    pub(crate) sysctls: Vec<String>,
    /// How the pod was captured, by which it is served again while nobody says whether it is still wanted.
    #[serde(default)]
    pub(crate) entry: Option<Remembered>,
    /// The boot that the cookie is of; set when the record is written.
    #[serde(default)]
    pub(crate) boot: Option<String>,
}

/// What a captured pod was enrolled by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remembered {
    /// As the runtime knows the pod.
    #[serde(default)]
    pub(crate) uid: Option<Arc<str>>,
    /// Its account.
    #[serde(default)]
    pub(crate) service_account: Option<String>,
    /// Annotations that changed its capture.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Addresses by which its namespace is told from others.
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
}

impl Remembered {
    /// What is to be remembered of a pod.
    pub(crate) fn of(wanted: &Wanted) -> Self {
        Self {
            uid: wanted.uid.clone(),
            service_account: wanted.entry.service_account.clone(),
            annotations: wanted.entry.annotations.clone(),
            ips: wanted.ips.clone(),
        }
    }
}

impl Record {
    /// Of the pod, as the runtime knows it.
    pub(crate) fn uid(&self) -> Option<Arc<str>> {
        self.entry.as_ref()?.uid.clone()
    }

    /// The pod as it was wanted when it was captured.
    pub(crate) fn remembered(&self) -> Option<Wanted> {
        let Remembered { uid, service_account, annotations, ips } = self.entry.clone()?;
        let PodKey { namespace, name } = self.pod.clone();
        let entry =
            Enrollment { name, namespace, service_account, netns: None, container: None, annotations };
        Some(Wanted { entry, uid, ips })
    }
}

/// A record that cannot be kept.
#[derive(Debug, Error)]
#[error("enrolment record {path}: {source}")]
pub(crate) struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// The directory of records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    /// None if the kernel does not say.
    boot: Option<String>,
}

impl Records {
    /// Those of the installation in `run_dir`.
    pub(crate) fn open(run_dir: &Path) -> Result<Self, RecordError> {
        let directory = run_dir.join("pods");
        std::fs::create_dir_all(&directory)
            .map_err(|source| RecordError { path: directory.clone(), source })?;
        let boot = std::fs::read_to_string(BOOT).ok().map(|boot| boot.trim().to_owned());
        Ok(Self { directory, boot })
    }

    /// All that can be read.
    pub(crate) fn list(&self) -> Result<Vec<Record>, RecordError> {
        let error = |source| RecordError { path: self.directory.clone(), source };
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) if self.is_of_another_boot(&record) => {
                    tracing::info!(pod = %record.pod, "captured before the machine was started anew; nothing of that is left");
                    std::fs::remove_file(&path).map_err(error)?;
                }
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(%error, "left alone; remove the file if its pod is gone"),
            }
        }
        Ok(records)
    }

    /// A pod's record, if there is one that can be read.
    pub(crate) fn read(&self, pod: &PodKey) -> Option<Record> {
        read(&self.path(pod)).ok().filter(|record| !self.is_of_another_boot(record))
    }

    /// Cookies count from the start of the machine: one of another boot is another namespace's now.
    fn is_of_another_boot(&self, record: &Record) -> bool {
        record.boot.is_some() && self.boot.is_some() && record.boot != self.boot
    }

    /// Writes or replaces a pod's record, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(&record.pod);
        let record = &Record { boot: self.boot.clone(), ..record.clone() };
        let new = path.with_extension("new");
        let bytes =
            serde_json::to_vec(record).map_err(|e| RecordError { path: path.clone(), source: e.into() })?;
        std::fs::write(&new, bytes)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|source| RecordError { path, source })
    }

    /// Removes a pod's record.
    pub(crate) fn remove(&self, pod: &PodKey) -> Result<(), RecordError> {
        let path = self.path(pod);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RecordError { path, source }),
            _ => Ok(()),
        }
    }

    /// Kubernetes names have no underscore, so the two parts cannot run into one another; other characters that do not
    /// belong into a file name are escaped.
    fn path(&self, pod: &PodKey) -> PathBuf {
        let escape = |text: &str| -> String {
            text.bytes()
                .map(|b| match b {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(b).to_string(),
                    other => format!("%{other:02x}"),
                })
                .collect()
        };
        self.directory.join(format!("{}_{}.json", escape(&pod.namespace), escape(&pod.name)))
    }
}

fn read(path: &Path) -> Result<Record, RecordError> {
    #[derive(Deserialize)]
    struct Stated {
        version: Option<u32>,
    }
    let error = |source| RecordError { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(error)?;
    let Stated { version } = serde_json::from_slice(&bytes).map_err(|e| error(e.into()))?;
    if let Some(version) = version.filter(|version| *version > VERSION) {
        let what = format!("it has version {version}, this release knows {VERSION}; run a later release");
        return Err(error(io::Error::other(what)));
    }
    serde_json::from_slice(&bytes).map_err(|e| error(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_kept_replaced_and_removed_and_garbage_is_left_alone() {
        let run_dir = std::env::temp_dir().join(format!("culvert-records-{}", std::process::id()));
        let records = Records::open(&run_dir).unwrap();
        let pod = PodKey { namespace: "a/../b".into(), name: "c_d".into() };
        let mut record = Record {
            pod: pod.clone(),
            netns: "/run/netns/x".into(),
            cookie: 7,
            container_id: None,
            network: String::new(),
            sysctls: Vec::new(),
            entry: None,
            boot: records.boot.clone(),
        };
        records.write(&record).unwrap();
        record.cookie = 8;
        records.write(&record).unwrap();
        std::fs::write(run_dir.join("pods/bad.json"), "{").unwrap();
        assert_eq!(records.read(&pod).as_ref(), Some(&record));
        assert_eq!(records.list().unwrap(), [record]);
        records.remove(&pod).unwrap();
        records.remove(&pod).unwrap();
        assert!(records.list().unwrap().is_empty());
        assert!(run_dir.join("pods/bad.json").exists());
        std::fs::remove_dir_all(&run_dir).unwrap();
    }

    #[test]
    fn a_record_of_a_later_release_is_read_unless_it_means_something_else() {
        let run_dir = std::env::temp_dir().join(format!("culvert-later-{}", std::process::id()));
        let records = Records::open(&run_dir).unwrap();
        let pod = PodKey { namespace: "n".into(), name: "p".into() };
        let text = |version: u32| {
            format!(
                r#"{{"version":{version},"pod":{{"namespace":"n","name":"p","cluster":"c"}},"netns":"/run/netns/x","cookie":7,
                    "containerId":"c1","interfaces":["eth0"],"entry":{{"uid":"u1","priority":3}}}}"#
            )
        };
        let path = records.path(&pod);
        std::fs::write(&path, text(VERSION)).unwrap();
        let read = records.read(&pod).unwrap();
        assert_eq!((read.cookie, read.container_id.as_deref()), (7, Some("c1")));
        assert_eq!(read.uid().as_deref(), Some("u1"));
        assert_eq!(records.list().unwrap(), [read]);
        std::fs::write(&path, text(VERSION + 1)).unwrap();
        assert!(records.read(&pod).is_none() && records.list().unwrap().is_empty());
        assert!(path.exists(), "it is left alone");
        std::fs::remove_dir_all(&run_dir).unwrap();
    }

    #[test]
    fn a_record_of_another_boot_is_none() {
        let run_dir = std::env::temp_dir().join(format!("culvert-boots-{}", std::process::id()));
        let records = Records::open(&run_dir).unwrap();
        let before = Records { boot: Some("another".into()), ..records.clone() };
        let pod = PodKey { namespace: "n".into(), name: "p".into() };
        let entry = Remembered {
            uid: Some("u1".into()),
            service_account: None,
            annotations: BTreeMap::new(),
            ips: Vec::new(),
        };
        let record = Record {
            pod: pod.clone(),
            netns: "/run/netns/x".into(),
            cookie: 7,
            container_id: None,
            network: String::new(),
            sysctls: Vec::new(),
            entry: Some(entry),
            boot: None,
        };
        before.write(&record).unwrap();
        assert_eq!(records.read(&pod), None);
        assert!(records.list().unwrap().is_empty() && before.list().unwrap().is_empty());
        records.write(&record).unwrap();
        let wanted = records.read(&pod).unwrap().remembered().unwrap();
        assert_eq!((wanted.uid.as_deref(), wanted.entry.name.as_str()), (Some("u1"), "p"));
        std::fs::remove_dir_all(&run_dir).unwrap();
    }
}
