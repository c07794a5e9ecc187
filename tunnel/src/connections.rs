//! The table of live connections: what the admin interface lists, and what policy changes are applied to.
//!
//! Invariant: an inbound connection is in the table *before* it is judged, so that a policy published in
//! between reaches it either way. Judging happens on a thread of its own, never on a worker.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{Connection, DenyReason, Identity, Store, Verdict};
use tokio::sync::Notify;

use crate::error::ConnectionError;

/// Which way a connection goes, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The pod is the client.
    Outbound,
    /// The pod is the server.
    Inbound,
}

/// A live connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The uid of the pod's workload.
    pub workload: Arc<str>,
    /// Which way it goes.
    pub direction: Direction,
    /// The client's address.
    pub source: SocketAddr,
    /// Where the client wanted to go; outbound only.
    pub original_destination: Option<SocketAddr>,
    /// Where it goes: the next hop, or the application.
    pub destination: SocketAddr,
    /// Whether it is tunnelled.
    pub hbone: bool,
    /// The client's proven identity; inbound tunnels only.
    pub identity: Option<Identity>,
}

/// All live connections of the node.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Live>>>,
}

#[derive(Debug)]
struct Live {
    info: ConnectionInfo,
    cut: Notify,
}

/// A connection's place in the table; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    table: Arc<Connections>,
    key: u64,
    live: Arc<Live>,
}

impl Connections {
    /// Enters a connection.
    pub(crate) fn enter(self: &Arc<Self>, info: ConnectionInfo) -> Entry {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(Live { info, cut: Notify::new() });
        self.live().insert(key, Arc::clone(&live));
        Entry { table: Arc::clone(self), key, live }
    }

    /// What is there now.
    pub(crate) fn list(&self) -> Vec<ConnectionInfo> {
        self.live().values().map(|live| live.info.clone()).collect()
    }

    /// Cuts what is no longer allowed. A workload that is gone, or a policy that is named but unknown, cuts
    /// nothing: neither says that the connection is unwanted.
    pub(crate) fn judge(&self, store: &Store) {
        let inbound: Vec<Arc<Live>> =
            self.live().values().filter(|live| live.info.direction == Direction::Inbound).cloned().collect();
        let snapshot = store.load();
        for live in inbound {
            let Some(workload) = snapshot.workload(&live.info.workload) else { continue };
            match mesh::authorize(&snapshot, workload, &live.info.subject()).verdict {
                Verdict::Allow | Verdict::Deny(DenyReason::UnknownPolicy { .. }) => {}
                Verdict::Deny(_) => live.cut.notify_one(),
            }
        }
    }

    /// Judges after every publish, for as long as the table exists. Publishes that come while one is being
    /// worked on are taken together.
    pub(crate) fn judge_changes(self: &Arc<Self>, store: &Arc<Store>) -> std::io::Result<()> {
        let (wake, changes) = sync_channel::<()>(1);
        let table = Arc::downgrade(self);
        let snapshots = Arc::downgrade(store);
        std::thread::Builder::new().name("culvert-judge".into()).spawn(move || {
            while changes.recv().is_ok() {
                let (Some(table), Some(store)) = (table.upgrade(), snapshots.upgrade()) else { return };
                table.judge(&store);
            }
        })?;
        store.subscribe(Box::new(move || {
            // Full means that a judging is due anyway, and it will see this change.
            let _ = wake.try_send(());
        }));
        Ok(())
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionInfo {
    /// The connection as policy sees it.
    pub(crate) fn subject(&self) -> Connection<'_> {
        Connection {
            source_identity: self.identity.as_ref(),
            source_ip: self.source.ip(),
            destination: self.destination,
        }
    }
}

impl Entry {
    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.live.info
    }

    /// Completes when policy no longer allows the connection.
    pub(crate) async fn cut(&self) -> ConnectionError {
        self.live.cut.notified().await;
        ConnectionError::PolicyChange
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.live().remove(&self.key);
    }
}
