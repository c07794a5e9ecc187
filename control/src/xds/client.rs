//! Keeps a stream to the control plane, for as long as the agent lives.
//!
//! One task: connect, subscribe, take over what comes, answer, and begin anew when the stream ends. Taking over is done on a
//! thread for such work, so that neither the data path nor the other tasks of this runtime are held up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh::Store;
use mesh::route::Key;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::ending::Ending;
use super::kind::Kind;
use super::metrics::Metrics;
use super::node::Node;
use super::session::Session;
use super::standing::{Ledger, Standing};
use super::stream::Stream;
use crate::grpc::Endpoint;

/// How many keys may be waiting to be asked for.
const ASKS: usize = 1024;
/// How long an answer to a key is waited for.
const DEMAND: Duration = Duration::from_secs(10);

/// How the control plane is subscribed to.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Who we say we are.
    pub node: Node,
    /// Whether workloads and services are asked for one at a time, when they are needed. The default mode is to have them
    /// all: on demand the control plane does not tell of every change.
    pub on_demand: bool,
}

/// Which types were taken over as a whole at least once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    address: bool,
    authorization: bool,
}

impl Synced {
    /// Whether nothing is waited for any more. Never becomes false again.
    pub fn is_complete(self) -> bool {
        self.pending().next().is_none()
    }

    /// What is still waited for.
    pub fn pending(self) -> impl Iterator<Item = Kind> {
        let address = (!self.address).then_some(Kind::Address);
        let authorization = (!self.authorization).then_some(Kind::Authorization);
        address.into_iter().chain(authorization)
    }

    pub(super) fn of(session: &Session) -> Self {
        Self {
            address: session.is_synced(Kind::Address),
            authorization: session.is_synced(Kind::Authorization),
        }
    }
}

/// A client of the control plane. Dropping it ends the stream; the mesh stays as it is.
pub struct Client {
    on_demand: bool,
    store: Arc<Store>,
    asks: mpsc::Sender<Ask>,
    synced: watch::Receiver<Synced>,
    standing: Ledger,
    task: JoinHandle<()>,
}

/// A key, and who waits for it.
pub(super) struct Ask {
    pub(super) key: String,
    pub(super) waiter: oneshot::Sender<bool>,
}

impl Client {
    /// Begins to feed a store, which it alone may change from now on. Must be called within a tokio runtime, which should
    /// not be one of the data path.
    pub fn start(config: Config, store: Arc<Store>, registry: &mut Registry) -> Self {
        let metrics = Metrics::register(registry);
        let (asks, asked) = mpsc::channel(ASKS);
        let session = Session::new(config.node, config.on_demand, std::time::Instant::now());
        let (tell, synced) = watch::channel(Synced::of(&session));
        let standing = Ledger::new(config.endpoint.address.to_string());
        let stream = Stream {
            endpoint: config.endpoint,
            store: Arc::clone(&store),
            metrics,
            standing: standing.clone(),
            session,
            asked,
            synced: tell,
        };
        let task = tokio::spawn(keep(stream));
        Self { on_demand: config.on_demand, store, asks, synced, standing, task }
    }

    /// What is still waited for.
    pub fn synced(&self) -> watch::Receiver<Synced> {
        self.synced.clone()
    }

    /// How it stands with the control plane.
    pub fn standing(&self) -> Standing {
        self.standing.look()
    }

    /// Asks for what has a key. True when it is in the store, or is known to be nobody's; false if that could not be found
    /// out within 10 s. With the whole mesh at hand nothing is asked for.
    pub async fn demand(&self, key: &Key) -> bool {
        if !self.on_demand {
            return self.synced.borrow().address;
        }
        if self.holds(key) {
            return true;
        }
        let (waiter, answer) = oneshot::channel();
        let asking = async {
            let ask = Ask { key: key.to_string(), waiter };
            self.asks.send(ask).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(DEMAND, asking).await.ok().flatten().unwrap_or(false)
    }

    fn holds(&self, key: &Key) -> bool {
        let mesh = self.store.load();
        match key {
            Key::Address(address) => {
                mesh.workload_by_address(address).is_some() || mesh.service_by_vip(address, "").is_some()
            }
            Key::Hostname(name) => mesh.service(name).is_some(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("synced", &*self.synced.borrow()).finish_non_exhaustive()
    }
}

/// Runs until it is aborted.
async fn keep(mut stream: Stream) {
    let address = stream.endpoint.address.clone();
    let mut backoff = Backoff::new();
    loop {
        let (ending, fruitful) = Box::pin(stream.run()).await;
        stream.metrics.terminated(ending.reason());
        stream.standing.ended(&ending.to_string());
        let wait = backoff.after(fruitful, ending.is_expected());
        if matches!(ending, Ending::Fresh) {
            debug!(%address, %ending, "the stream is left");
        } else if fruitful && ending.is_expected() {
            info!(%address, %ending, retry_in = ?wait, "the stream of the control plane ended");
        } else {
            warn!(%address, %ending, retry_in = ?wait, "no stream of the control plane; what is known stays in force");
        }
        tokio::time::sleep(wait).await;
    }
}
