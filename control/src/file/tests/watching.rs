use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use mesh::Store;
use tokio::sync::watch;

use super::*;

const ONE: &str =
    "workloads:\n- {name: a, namespace: n, workloadIps: [10.0.0.1]}\nenroll:\n- {name: a, namespace: n}\n";
const TWO: &str =
    "workloads:\n- {name: a, namespace: n, workloadIps: [10.0.0.1]}\n- {name: b, namespace: n}\n";
const BAD: &str = "workloads:\n- {name: a, namespace: n, workloadIp: 10.0.0.1}\n";

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came true: {what}");
}

struct Watched {
    store: Arc<Store>,
    enrollments: watch::Receiver<Vec<Enrollment>>,
    source: FileSource,
}

impl Watched {
    fn new(path: &std::path::Path) -> Self {
        let store = Arc::new(Store::new());
        let (sender, enrollments) = watch::channel(Vec::new());
        let source = FileSource::watch(path, Some(Arc::clone(&store)), sender).unwrap();
        Self { store, enrollments, source }
    }

    async fn has(&self, count: usize) {
        eventually(&format!("{count} workloads"), || self.store.load().workloads().count() == count).await;
    }

    fn rejected(&self) -> u64 {
        self.source.counters().rejected.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_change_is_applied_and_a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    fs::write(&path, ONE).unwrap();
    let watched = Watched::new(&path);
    watched.has(1).await;
    assert_eq!(watched.enrollments.borrow().len(), 1);
    let before = Arc::clone(watched.store.load().workload("Kubernetes//Pod/n/a").unwrap());

    fs::write(&path, TWO).unwrap();
    watched.has(2).await;
    eventually("the pod is no longer enrolled", || watched.enrollments.borrow().is_empty()).await;
    let after = Arc::clone(watched.store.load().workload("Kubernetes//Pod/n/a").unwrap());
    assert!(Arc::ptr_eq(&before, &after), "an unchanged workload was touched");

    let good = watched.store.load();
    fs::write(&path, BAD).unwrap();
    eventually("the bad file is rejected", || watched.rejected() == 1).await;
    fs::remove_file(&path).unwrap();
    eventually("the missing file is rejected", || watched.rejected() == 2).await;
    fs::write(&path, "").unwrap();
    eventually("the empty file is rejected", || watched.rejected() == 3).await;
    assert!(Arc::ptr_eq(&good, &watched.store.load()));

    fs::write(&path, ONE).unwrap();
    watched.has(1).await;
}

#[tokio::test]
async fn a_file_that_says_the_same_publishes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    fs::write(&path, ONE).unwrap();
    let watched = Watched::new(&path);
    let before = watched.store.load();
    fs::write(&path, format!("# said again\n{ONE}")).unwrap();
    let applied = || watched.source.counters().applied.load(Ordering::Relaxed);
    eventually("the file is read again", || applied() == 2).await;
    assert!(Arc::ptr_eq(&before, &watched.store.load()));
}

#[tokio::test]
async fn a_rename_over_the_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    fs::write(&path, ONE).unwrap();
    let watched = Watched::new(&path);
    fs::write(dir.path().join("next"), TWO).unwrap();
    fs::rename(dir.path().join("next"), &path).unwrap();
    watched.has(2).await;
}

/// As the kubelet does it for a ConfigMap.
#[tokio::test]
async fn a_symlink_that_is_swapped_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("v1", ONE), ("v2", TWO)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("mesh.yaml"), text).unwrap();
    }
    symlink("v1", at("..data")).unwrap();
    symlink("..data/mesh.yaml", at("mesh.yaml")).unwrap();
    let watched = Watched::new(&at("mesh.yaml"));
    watched.has(1).await;
    symlink("v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    watched.has(2).await;
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_an_error_that_names_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    let start = || {
        let (sender, _receiver) = watch::channel(Vec::new());
        FileSource::watch(&path, Some(Arc::new(Store::new())), sender).unwrap_err().to_string()
    };
    assert!(start().contains("cannot read the mesh file"), "{}", start());
    fs::write(&path, BAD).unwrap();
    let error = start();
    assert!(error.contains("mesh.yaml is wrong: line 2") && error.contains("workloadIp"), "{error}");
}

#[tokio::test]
async fn beside_a_control_plane_the_file_names_pods_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    fs::write(&path, ONE).unwrap();
    let error = FileSource::watch(&path, None, watch::Sender::new(Vec::new())).unwrap_err().to_string();
    assert!(error.contains("come from the control plane"), "{error}");
    fs::write(&path, "enroll:\n- {name: a, namespace: n}\n").unwrap();
    let (sender, pods) = watch::channel(Vec::new());
    let source = FileSource::watch(&path, None, sender).unwrap();
    assert_eq!(pods.borrow().len(), 1);
    fs::write(&path, TWO).unwrap();
    eventually("it is rejected", || source.counters().rejected.load(Ordering::Relaxed) == 1).await;
    assert_eq!(pods.borrow().len(), 1);
}
