//! The admin interface over real connections; the node behind it is made up where a real one would need a kernel.

mod columns;
mod document;
mod endpoints;
mod live;
mod recorded;

use std::net::SocketAddr;
use std::sync::Arc;

use control::certificates::State;
use control::file::MeshFile;
use mesh::{Identity, Store};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, reload};
use tunnel::{ConnectionInfo, Direction};

use super::live::Watching;
use super::node::Node;
use super::{Admin, Answers, LIMITS, router, server};
use crate::enrollment::{PodKey, PodState};
use crate::events::{Events, Recorder};
use crate::logging::Levels;
use crate::readiness::Readiness;

/// A node of two pods, one of which has a connection in and one out.
struct MadeUp(Vec<(Identity, State)>);

impl Node for MadeUp {
    fn pods(&self) -> Vec<(PodKey, PodState)> {
        let pod = |name: &str| PodKey { namespace: "bookinfo".into(), name: name.into() };
        vec![(pod("sleep"), PodState::Enrolled), (pod("unknown"), PodState::Pending("why".into()))]
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        let outbound = ConnectionInfo {
            workload: "Kubernetes//Pod/bookinfo/sleep".into(),
            direction: Direction::Outbound,
            source: "10.1.0.30:47498".parse().unwrap(),
            original_destination: Some("10.96.213.85:9080".parse().unwrap()),
            destination: "10.1.1.22:15008".parse().unwrap(),
            hbone: true,
            identity: None,
        };
        let inbound = ConnectionInfo {
            direction: Direction::Inbound,
            source: "[fd00:1::9]:16328".parse().unwrap(),
            original_destination: None,
            destination: "[fd00:1::30]:8080".parse().unwrap(),
            hbone: false,
            ..outbound.clone()
        };
        vec![outbound, inbound]
    }

    fn certificates(&self) -> Vec<(Identity, State)> {
        self.0.clone()
    }

    fn overdue_renewals(&self) -> usize {
        0
    }
}

/// What a mesh file says.
fn stored(mesh: &str) -> Arc<Store> {
    let store = Arc::new(Store::new());
    let file = MeshFile::parse(mesh).unwrap();
    store.update(|current| {
        let mut editor = current.edit();
        file.workloads.iter().for_each(|workload| editor.insert_workload(workload.clone()));
        file.services.iter().for_each(|service| editor.insert_service(service.clone()));
        file.policies.iter().for_each(|policy| editor.insert_policy(policy.clone()));
        Some(editor.finish())
    });
    store
}

/// An admin interface that listens on a port of its own.
pub(crate) struct World {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    quit: Arc<Notify>,
    served: JoinHandle<std::io::Result<()>>,
    /// Who answers questions.
    pub(crate) answers: Answers,
    _log: tracing::subscriber::DefaultGuard,
}

impl World {
    /// One that knows this mesh.
    pub(crate) async fn start(mesh: &str) -> Self {
        Self::of(stored(mesh)).await
    }

    async fn of(store: Arc<Store>) -> Self {
        let node = Arc::new(MadeUp(certificates().await));
        Self::with(store, node, Registry::default(), Watching::default()).await
    }

    async fn with(store: Arc<Store>, node: Arc<dyn Node>, registry: Registry, watching: Watching) -> Self {
        let events = Events::default();
        let (layer, handle) = reload::Layer::new(EnvFilter::new("info"));
        let log = tracing_subscriber::registry().with(layer).with(Recorder(events.clone()));
        let log = tracing::subscriber::set_default(log);
        let quit = Arc::new(Notify::new());
        let answers = Answers::default();
        let admin = Admin {
            store,
            mesh_is_given: true,
            node,
            config: json!({"node": {"value": "node-a"}}),
            levels: Levels::new("info", handle),
            events,
            registry: Arc::new(registry),
            readiness: Readiness::default(),
            quit: Arc::clone(&quit),
            answers: Arc::clone(&answers),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(server::serve(vec![listener], router(admin, watching), LIMITS));
        Self { address, quit, served, answers, _log: log }
    }

    /// Sends a request as it stands; returns status, head and body.
    async fn ask(&self, request: &str) -> (u16, String, Vec<u8>) {
        ask(self.address, request).await
    }

    async fn text(&self, method: &str, path: &str) -> (u16, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", self.address.port());
        let (status, _, body) = self.ask(&request).await;
        (status, String::from_utf8(body).unwrap())
    }

    async fn dump(&self) -> Value {
        let (status, body) = self.text("GET", "/config_dump").await;
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }
}

/// Sends a request as it stands; returns status, head and body.
async fn ask(address: SocketAddr, request: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let body = answer.split_off(end + 4);
    let body = if head.contains("transfer-encoding: chunked") { joined(&body) } else { body };
    (head[9..12].parse().unwrap(), head, body)
}

/// The pieces of a body put together; it must be there to its end.
fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

/// One identity in each state.
pub(crate) async fn certificates() -> Vec<(Identity, State)> {
    use control::ca::LocalCa;
    use control::certificates::{CertificateError, Config, Manager};

    let dir = std::env::temp_dir().join(format!("culvert-admin-{}-{}", std::process::id(), line_of_thread()));
    let authority = LocalCa::open_or_create(&dir, "cluster.local").unwrap();
    let manager = Manager::new(Arc::new(authority), Config::default());
    let identity = |account: &str| Identity::new("cluster.local", "bookinfo", account);
    let certificate = manager.get(&identity("sleep")).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let refused = CertificateError::Forgotten { identity: identity("gone") };
    vec![
        (identity("gone"), State::Unavailable(refused)),
        (identity("new"), State::Pending),
        (identity("sleep"), State::Available(certificate)),
    ]
}

/// Tests run beside one another, each on a thread.
fn line_of_thread() -> String {
    format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-")
}

/// What the peer showed of the recorded cluster.
fn cluster() -> String {
    recordings::text("istiod/agent/config_dump.json").unwrap()
}
