//! One connection to istio-cni: a greeting, the pods that there are, then those that come and go.
//!
//! Every request is answered, with an error if it could not be done; nothing that is wrong with one ends the connection, for
//! what comes after it counts as well. Invariant: pods that a whole snapshot does not name are no longer served after it, and
//! none is dropped for a snapshot that broke off, or of which something could not be read.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use linux::fdpass::Connection;
use linux::netns::Netns;
use protocols::zds::{self as message, LONGEST, Request};
use thiserror::Error;

use super::pods::Pods;
use crate::readiness::Pending;

/// The peers' limit for each message.
const LIMIT: Duration = Duration::from_secs(5);

/// Why a connection came to its end.
#[derive(Debug, Error)]
pub(super) enum ConversationError {
    /// Nobody listens.
    #[error("connecting: {0}")]
    Connect(io::Error),
    /// It broke.
    #[error("{operation}: {source}")]
    Broken {
        /// `sending` or `receiving`.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The other side closed it.
    #[error("closed by istio-cni")]
    Closed,
}

/// How a connection ended.
pub(super) struct Ended {
    /// Why.
    pub(super) error: ConversationError,
    /// Whether all pods had been named by then.
    pub(super) had_a_snapshot: bool,
}

/// The pods that there are, as far as they have been named.
#[derive(Default)]
struct Snapshot {
    named: HashSet<String>,
    /// Whether something was said that nobody can read: it may have named a pod.
    is_garbled: bool,
}

/// Holds a conversation until it ends.
pub(super) fn hold(path: &Path, pods: &Pods, pending: &mut Option<Pending>) -> Ended {
    let mut snapshot = Some(Snapshot::default());
    let Err(error) = talk(path, pods, pending, &mut snapshot);
    Ended { error, had_a_snapshot: snapshot.is_none() }
}

/// `snapshot` is there until all pods have been named.
fn talk(
    path: &Path,
    pods: &Pods,
    pending: &mut Option<Pending>,
    snapshot: &mut Option<Snapshot>,
) -> Result<std::convert::Infallible, ConversationError> {
    let broken = |operation| move |source| ConversationError::Broken { operation, source };
    let connection = Connection::connect(path, LIMIT).map_err(ConversationError::Connect)?;
    connection.send(&message::hello(), &[]).map_err(broken("sending"))?;
    pods.metrics().connected.set(1);
    tracing::info!(path = %path.display(), "connected to istio-cni");
    loop {
        let (bytes, descriptors) = match connection.recv(LONGEST) {
            Ok((bytes, _)) if bytes.is_empty() => return Err(ConversationError::Closed),
            Ok(received) => received,
            // Nothing was said for a while.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                pods.retry();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken("receiving")(error)),
        };
        let outcome = match Request::decode(&bytes, descriptors) {
            Ok(request) => comply(request, pods, snapshot),
            Err(error) => {
                if let Some(snapshot) = snapshot {
                    snapshot.is_garbled = true;
                }
                Err(error.to_string())
            }
        };
        if let Err(error) = &outcome {
            tracing::error!(error, "a request of istio-cni failed");
        }
        connection.send(&message::answer(outcome), &[]).map_err(broken("sending"))?;
        if snapshot.is_none() {
            *pending = None;
        }
    }
}

fn comply(request: Request, pods: &Pods, snapshot: &mut Option<Snapshot>) -> Result<(), String> {
    match request {
        Request::Add { uid, info, netns } => {
            // Named, whatever comes of it: it is to be served.
            if let Some(snapshot) = snapshot {
                snapshot.named.insert(uid.clone());
            }
            let netns = Netns::from_fd(netns).map_err(|error| format!("pod {uid}: {error}"))?;
            pods.add(&uid, info, netns).map_err(|error| format!("pod {uid}: {error}"))
        }
        Request::Keep { uid } => match snapshot {
            Some(snapshot) => {
                if !pods.is_served(&uid) {
                    tracing::warn!(
                        uid,
                        "istio-cni knows the pod but not its network namespace; it is served once that is found"
                    );
                }
                snapshot.named.insert(uid);
                Ok(())
            }
            None => Err(format!("Keep of pod {uid} after the snapshot")),
        },
        Request::Del { uid } => {
            pods.delete(&uid);
            Ok(())
        }
        Request::SnapshotSent => match snapshot.take() {
            Some(snapshot) if snapshot.is_garbled => {
                tracing::warn!(
                    "not all that istio-cni said of its pods could be read; none is dropped for it"
                );
                Ok(())
            }
            Some(snapshot) => {
                pods.retain(&snapshot.named);
                Ok(())
            }
            None => Err("a second snapshot on one connection".to_owned()),
        },
    }
}
