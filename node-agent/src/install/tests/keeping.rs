//! The plugin stays installed, whoever changes what.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::install::keeper::Keeper;
use crate::install::wanted::Seen;

/// Generous: it is waited for on a busy machine.
const SOON: Duration = Duration::from_secs(60);

pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A keeper at work.
struct Kept {
    readiness: Readiness,
    metrics: InstallMetrics,
    task: JoinHandle<()>,
}

impl Kept {
    fn start(host: &Host) -> Self {
        let (readiness, metrics) = (Readiness::default(), InstallMetrics::default());
        let keeper = Keeper::new(Arc::new(host.plan.clone()), &readiness, metrics.clone());
        assert_eq!(readiness.pending().len(), 1, "not ready before it is installed");
        Self { readiness, metrics, task: tokio::spawn(keeper.keep()) }
    }

    fn is_ready(&self) -> bool {
        self.readiness.pending().is_empty()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    fn is_installed(&self) -> bool {
        let text = fs::read_to_string(self.path("10-calico.conflist")).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let plugins = value["plugins"].as_array();
        plugins.and_then(|plugins| plugins.last()).is_some_and(|last| last["type"] == PLUGIN)
    }
}

#[tokio::test]
async fn the_first_configuration_is_waited_for_and_then_the_agent_is_ready() {
    let host = Host::with(&[]);
    let kept = Kept::start(&host);
    eventually("it is told that nothing is there", || kept.metrics.failures.get() > 0).await;
    assert!(!kept.is_ready());
    host.write("10-calico.conflist", CALICO);
    eventually("it is installed", || host.is_installed() && kept.is_ready()).await;
    assert_eq!(kept.metrics.installed.get(), 1);
    assert_eq!(kept.metrics.repairs.get(), 0, "the first time is no repair");
    // The network plugin is taken away, and so is what we could be added to.
    fs::remove_file(host.path("10-calico.conflist")).unwrap();
    eventually("it is not ready any more", || !kept.is_ready()).await;
}

#[tokio::test]
async fn whatever_is_taken_away_comes_back() {
    let host = Host::with(&[("10-calico.conflist", CALICO)]);
    let kept = Kept::start(&host);
    eventually("it is installed", || host.is_installed() && kept.is_ready()).await;
    host.write("10-calico.conflist", CALICO);
    eventually("the entry is back", || host.is_installed()).await;
    eventually("that is counted", || kept.metrics.repairs.get() == 1).await;
    let plugin = host.dir.path().join("bin/culvert-cni");
    fs::remove_file(&plugin).unwrap();
    eventually("the plugin is back", || plugin.exists()).await;
    fs::write(&plugin, "another").unwrap();
    eventually("the plugin is the image's", || fs::read(&plugin).is_ok_and(|text| text == b"the plugin"))
        .await;
    fs::remove_file(host.path(KUBECONFIG)).unwrap();
    eventually("the kubeconfig is back", || host.path(KUBECONFIG).exists()).await;
}

#[tokio::test]
async fn a_new_token_comes_into_the_kubeconfig() {
    let host = Host::with(&[("10-calico.conflist", CALICO)]);
    let account = host.dir.path().join("account");
    // As Kubernetes mounts it: what changes is a link beside the token.
    let mount = |version: &str, token: &str| {
        fs::create_dir(account.join(version)).unwrap();
        fs::write(account.join(version).join("token"), token).unwrap();
        std::os::unix::fs::symlink(version, account.join("..tmp")).unwrap();
        fs::rename(account.join("..tmp"), account.join("..data")).unwrap();
    };
    fs::remove_file(account.join("token")).unwrap();
    mount("..v1", "old.token");
    std::os::unix::fs::symlink("..data/token", account.join("token")).unwrap();
    let kept = Kept::start(&host);
    eventually("it is installed", || kept.is_ready()).await;
    assert!(host.read(KUBECONFIG).contains("old.token"));
    mount("..v2", "new.token");
    eventually("the new token is there", || host.read(KUBECONFIG).contains("new.token")).await;
    assert!(host.is_installed());
    assert_eq!(kept.metrics.repairs.get(), 0);
}

#[tokio::test]
async fn an_api_that_has_a_name_is_asked_at_its_address_of_now() {
    let mut host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.plan.api = Some(Api::new("localhost", 6443, host.dir.path().join("account")));
    let cluster = |text: &str| {
        let config: Value = serde_json::from_str(text).unwrap_or_default();
        let text = |key: &str| config["clusters"][0]["cluster"][key].as_str().unwrap_or_default().to_owned();
        (text("server"), text("tls-server-name"))
    };
    let is_local = |server: &str| ["https://127.0.0.1:6443", "https://[::1]:6443"].contains(&server);
    let kept = Kept::start(&host);
    eventually("it is installed", || kept.is_ready()).await;
    let text = host.read(KUBECONFIG);
    let (server, name) = cluster(&text);
    assert!(is_local(&server) && name == "localhost", "{server} {name}");
    // As if the name had had another address when it was written.
    host.write(KUBECONFIG, text.replace(&server, "https://192.0.2.1:6443"));
    eventually("the address is the name's", || is_local(&cluster(&host.read(KUBECONFIG)).0)).await;
}

#[tokio::test]
async fn somebody_who_rewrites_it_every_100_ms_is_outlasted() {
    let host = Host::with(&[("10-calico.conflist", CALICO)]);
    let kept = Kept::start(&host);
    eventually("it is installed", || host.is_installed()).await;
    let (path, over) = (host.path("10-calico.conflist"), Arc::new(AtomicBool::new(false)));
    let other = thread::spawn({
        let over = Arc::clone(&over);
        // Not atomically, as many do: a reader may see half of it.
        move || {
            while !over.load(Ordering::Relaxed) {
                fs::write(&path, CALICO).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    eventually("it is put back again and again", || kept.metrics.repairs.get() >= 3).await;
    over.store(true, Ordering::Relaxed);
    other.join().unwrap();
    eventually("in the end it is there", || host.is_installed()).await;
    let plan = Arc::new(host.plan.clone());
    let mut installation = Installation {
        plan: Some(plan),
        keeper: None,
        keeping: None,
        owner: Some(Arc::new(Gone)),
        node: "n1".to_owned(),
    };
    drop(kept);
    eventually("what the keeper had begun is done", || host.is_installed()).await;
    assert!(installation.is_to_go().await);
    installation.remove().await;
    assert_eq!(host.read("10-calico.conflist"), CALICO);
}

/// A Kubernetes API that knows no DaemonSet of ours.
struct Gone;

impl Owner for Gone {
    fn look(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Seen, String>> + Send + '_>> {
        Box::pin(async { Ok(Seen::default()) })
    }
}

/// One that never answers.
struct Silent;

impl Owner for Silent {
    fn look(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Seen, String>> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn an_api_that_does_not_answer_removes_nothing() {
    let host = Host::with(&[("10-calico.conflist", CALICO)]);
    host.plan.install().unwrap();
    for owner in [None, Some(Arc::new(Silent) as Arc<dyn Owner>)] {
        let plan = Some(Arc::new(host.plan.clone()));
        let installation = Installation { plan, keeper: None, keeping: None, owner, node: "n1".to_owned() };
        assert!(!installation.is_to_go().await);
        assert!(host.is_installed() && host.path(KUBECONFIG).exists());
    }
}
