//! A control plane, and the agent's clients against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use control::certificates::{self, Manager, WorkloadCertificate};
use control::grpc::{Endpoint, Headers, RootsOfTrust, Token};
use control::istio_ca::IstioCa;
use control::xds::{Client, Config, Kind, Node, NodeError, Parts, Standing};
use control_plane::records::Stream;
use control_plane::{ControlPlane, Options};
use mesh::route::Key;
use mesh::{Identity, NamespacedHostname, NetworkAddress, Snapshot, Store};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long is waited for what must come.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at what tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(10);
/// Whom the policies of the tests allow.
pub(crate) const PRINCIPAL: &str = "cluster.local/ns/demo/sa/client";

/// A control plane, and what its clients need.
pub(crate) struct Setup {
    pub(crate) plane: ControlPlane,
    dir: TempDir,
}

/// How a client reaches it.
pub(crate) struct Reach(Endpoint);

/// A client of discovery, and the mesh that it feeds.
pub(crate) struct Agent {
    client: Client,
    store: Arc<Store>,
    registry: Registry,
    published: Arc<AtomicUsize>,
    changed: watch::Receiver<usize>,
}

impl Setup {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(|_| {}).await
    }

    /// With other options of the control plane.
    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut options = Options::new(dir.path());
        change(&mut options);
        let setup = Self { plane: ControlPlane::start(options).await?, dir };
        fs::write(setup.token(), "first-token")?;
        Ok(setup)
    }

    /// The file with the client's token.
    pub(crate) fn token(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// A client that takes everything.
    pub(crate) fn agent(&self) -> Result<Agent> {
        Agent::start(self.reach()?, false)
    }

    /// The same, reaching the control plane in another way.
    pub(crate) fn agent_with(&self, change: impl FnOnce(Reach) -> Reach) -> Result<Agent> {
        Agent::start(change(self.reach()?), false)
    }

    /// The same, saying more of its node.
    pub(crate) fn agent_telling(
        &self,
        tell: impl FnOnce(&mut Node) -> Result<(), NodeError>,
    ) -> Result<Agent> {
        let mut node = Agent::node()?;
        tell(&mut node)?;
        Agent::start_as(node, self.reach()?, false)
    }

    /// A client that is another node's agent.
    pub(crate) fn agent_as(&self, parts: Parts, on_demand: bool) -> Result<Agent> {
        Agent::start_as(Node::new(parts)?, self.reach()?, on_demand)
    }

    /// A client that asks for one thing at a time.
    pub(crate) fn on_demand(&self) -> Result<Agent> {
        Agent::start(self.reach()?, true)
    }

    /// A client that has taken everything.
    pub(crate) async fn synced_agent(&self) -> Result<Agent> {
        let agent = self.agent()?;
        self.plane.synced().await?;
        Ok(agent)
    }

    /// The last stream.
    pub(crate) fn stream(&self) -> Result<Stream> {
        self.plane.records().last().cloned().context("no stream")
    }

    /// The first stream after that of a number, once both types were asked for on it.
    pub(crate) async fn stream_after(&self, id: u64) -> Result<Stream> {
        let next = |records: &control_plane::records::Records| {
            let mut later = records.streams.iter().filter(|stream| stream.id > id);
            later.find(|stream| stream.requests.len() >= 2).cloned()
        };
        self.plane.wait("another stream", next).await
    }

    /// Waits until the client accepted the response with a nonce.
    pub(crate) async fn acknowledged(&self, nonce: &str) -> Result<()> {
        let answered = |records: &control_plane::records::Records| {
            let mut requests = records.last()?.requests.iter();
            requests.find(|request| request.response_nonce == nonce).cloned()
        };
        let answer = self.plane.wait("an answer", answered).await?;
        if let Some(error) = answer.error_detail {
            bail!("{nonce} was refused: {}", error.message);
        }
        Ok(())
    }

    /// A manager of certificates that asks this control plane.
    pub(crate) fn manager(&self) -> Result<Manager> {
        self.manager_with(|reach| reach)
    }

    /// The same, reaching the control plane in another way.
    pub(crate) fn manager_with(&self, change: impl FnOnce(Reach) -> Reach) -> Result<Manager> {
        let authority = Arc::new(IstioCa::new(change(self.reach()?).0));
        Ok(Manager::new(authority, certificates::Config { wait: LIMIT, ..certificates::Config::default() }))
    }

    /// One whose callers do not wait for long.
    pub(crate) fn impatient_manager(&self) -> Result<Manager> {
        let authority = Arc::new(IstioCa::new(self.reach()?.0));
        let config = certificates::Config { wait: Duration::from_secs(2), ..certificates::Config::default() };
        Ok(Manager::new(authority, config))
    }

    /// Waits for a certificate.
    pub(crate) async fn until_signed(
        &self,
        manager: &Manager,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>> {
        until("a certificate", async || Ok(manager.get(identity).await?)).await
    }

    fn reach(&self) -> Result<Reach> {
        Ok(Reach(Endpoint {
            address: self.plane.address().to_string().parse()?,
            roots: RootsOfTrust::File(self.plane.roots()),
            server_name: None,
            token: Some(Token::File(self.token())),
            headers: Headers::default(),
            cluster_id: Some("Kubernetes".parse()?),
        }))
    }
}

impl Reach {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.0.headers.add(name, value).expect("a header that can be sent");
        self
    }

    pub(crate) fn roots(mut self, path: &Path) -> Self {
        self.0.roots = RootsOfTrust::File(path.to_owned());
        self
    }

    pub(crate) fn server_name(mut self, name: &str) -> Self {
        self.0.server_name = Some(name.parse().expect("a name"));
        self
    }

    pub(crate) fn address(mut self, address: &str) -> Self {
        self.0.address = address.parse().expect("an address");
        self
    }
}

impl Agent {
    fn node() -> Result<Node> {
        Ok(Node::new(Parts {
            name: "agent-a".to_owned(),
            namespace: "istio-system".to_owned(),
            instance_ip: [10, 0, 0, 100].into(),
            node_name: "node-a".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            service_account: Some("ztunnel".to_owned()),
            network: None,
        })?)
    }

    fn start(reach: Reach, on_demand: bool) -> Result<Self> {
        Self::start_as(Self::node()?, reach, on_demand)
    }

    fn start_as(node: Node, reach: Reach, on_demand: bool) -> Result<Self> {
        let (store, published) = (Arc::new(Store::new()), Arc::new(AtomicUsize::new(0)));
        let (tell, changed) = watch::channel(0);
        let count = Arc::clone(&published);
        store.subscribe(Box::new(move || {
            tell.send_replace(count.fetch_add(1, Ordering::SeqCst) + 1);
        }));
        let mut registry = Registry::default();
        let config = Config { endpoint: reach.0, node, on_demand };
        let client = Client::start(config, Arc::clone(&store), &mut registry);
        Ok(Self { client, store, registry, published, changed })
    }

    /// What the agent knows now.
    pub(crate) fn mesh(&self) -> Arc<Snapshot> {
        self.store.load()
    }

    /// Every state of the mesh from now on, as it comes.
    pub(crate) fn moments(&self) -> Arc<Mutex<Vec<Arc<Snapshot>>>> {
        let moments = Arc::new(Mutex::new(Vec::new()));
        let (kept, store) = (Arc::clone(&moments), Arc::downgrade(&self.store));
        self.store.subscribe(Box::new(move || {
            let now = store.upgrade().map(|store| store.load());
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend(now);
        }));
        moments
    }

    /// How often the mesh was changed.
    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::SeqCst)
    }

    /// What it is not ready for.
    pub(crate) fn pending(&self) -> Vec<Kind> {
        self.client.synced().borrow().pending().collect()
    }

    /// Waits until so many types are still to come.
    pub(crate) async fn until_pending(&self, count: usize) -> Result<()> {
        let mut synced = self.client.synced();
        let enough = synced.wait_for(|synced| synced.pending().count() == count);
        timeout(LIMIT, enough).await.context("readiness")?.context("the client is gone")?;
        Ok(())
    }

    /// Waits until the mesh is as a test wants it.
    pub(crate) async fn until(&self, what: &str, mut good: impl FnMut(&Snapshot) -> bool) -> Result<()> {
        let mut changed = self.changed.clone();
        let found = timeout(LIMIT, changed.wait_for(|_| good(&self.store.load()))).await;
        found.with_context(|| format!("waited in vain for {what}"))?.context("the store is gone")?;
        Ok(())
    }

    /// Asks for what has a key.
    pub(crate) async fn demand(&self, key: &Key) -> bool {
        self.client.demand(key).await
    }

    /// How it stands with the control plane.
    pub(crate) fn standing(&self) -> Standing {
        self.client.standing()
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> Result<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Tries until something succeeds.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let attempts = async {
        loop {
            match attempt().await {
                Ok(found) => return found,
                Err(error) => last = Some(error),
            }
            sleep(PAUSE).await;
        }
    };
    match timeout(LIMIT, attempts).await {
        Ok(found) => Ok(found),
        Err(_) => bail!("waited in vain for {what}: {last:?}"),
    }
}

/// Whoever has an address.
pub(crate) fn by_address(address: &str) -> Result<Key> {
    Ok(Key::Address(NetworkAddress::new("", address.parse()?)))
}

/// The service of a name.
pub(crate) fn by_hostname(namespace: &str, hostname: &str) -> Key {
    Key::Hostname(NamespacedHostname::new(namespace, hostname))
}
