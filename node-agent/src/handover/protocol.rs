//! What two agents say to each other: one JSON message a datagram (`SOCK_SEQPACKET`), descriptors riding along.
//!
//! The new agent sends an [`Ask`]; the old one answers with one [`Answer::Node`], an [`Answer::Pod`] for each pod and
//! [`Answer::End`], or with [`Answer::Refused`]. The new one then says [`Taken`], the old one [`Answer::Yours`]. Both state a
//! version and refuse another one; unknown fields and sockets of unknown names are ignored, so that either can be added.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use linux::fdpass::Connection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the messages in this module.
pub(crate) const VERSION: u32 = 1;
/// Longest message in bytes, in both directions.
const MAX_MESSAGE: usize = 16 * 1024;

/// The installation's lock.
pub(crate) const LOCK: &str = "lock";
/// The socket of the CNI plugin.
pub(crate) const CNI: &str = "cni";
/// The socket of the command line.
pub(crate) const ADMIN: &str = "admin";
/// The socket of the next agent.
pub(crate) const HANDOVER: &str = "handover";
/// The port of the metrics.
pub(crate) const METRICS: &str = "metrics";
/// The port of the readiness probe.
pub(crate) const READINESS: &str = "readiness";

/// The ports of the admin interface, by family. Releases without them hand none over.
pub(crate) const ADMIN_PORTS: [&str; 2] = ["admin-port-v4", "admin-port-v6"];

/// A socket with what it is for.
pub(crate) type Named = (String, OwnedFd);

/// A conversation that cannot go on.
#[derive(Debug, Error)]
pub(crate) enum HandoverError {
    /// The other side is gone, silent or does not read.
    #[error("the other agent does not answer: {0}")]
    Lost(#[from] io::Error),
    /// No message of ours, or not the one that is due.
    #[error("not a message of the hand-over protocol: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other side has closed the connection.
    #[error("the other agent has broken off the hand-over")]
    BrokenOff,
    /// A message out of turn.
    #[error("the other agent said {0} out of turn")]
    OutOfTurn(&'static str),
    /// Fewer or more descriptors than names.
    #[error("a message names {names} sockets and brings {sockets}")]
    Sockets {
        /// How many it names.
        names: usize,
        /// How many came.
        sockets: usize,
    },
    /// Something that no agent leaves out.
    #[error("the other agent gave no {0}")]
    Missing(&'static str),
    /// The other side is of another release.
    #[error("the other agent speaks version {0} of the hand-over protocol, this one {VERSION}")]
    Version(u32),
    /// The other side says no.
    #[error("the running agent refuses to hand over: {0}")]
    Refused(String),
}

/// The new agent asks to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// Where it pins; another place is another installation.
    pub(crate) bpffs: PathBuf,
    /// Its release.
    pub(crate) release: String,
}

/// The new agent serves all that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Pods that it took over.
    pub(crate) pods: usize,
}

/// What the old agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// It goes on by itself.
    Refused {
        /// Why.
        why: String,
    },
    /// The node's own sockets ride along.
    Node {
        /// Its release.
        release: String,
        /// What each is for.
        sockets: Vec<String>,
    },
    /// The sockets of a pod ride along.
    Pod {
        /// The kernel's number of its namespace.
        cookie: u64,
        /// What each is for.
        sockets: Vec<String>,
    },
    /// That was all.
    End,
    /// From now on the new agent alone changes anything.
    Yours,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    #[serde(rename = "say")]
    message: T,
}

#[derive(Deserialize)]
struct Stated {
    version: u32,
}

/// Sends a message with its sockets.
pub(crate) fn send(
    connection: &Connection,
    message: &impl Serialize,
    sockets: &[Named],
) -> Result<(), HandoverError> {
    let bytes = serde_json::to_vec(&Envelope { version: VERSION, message })?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    Ok(connection.send(&bytes, &descriptors)?)
}

/// Receives a message and whatever sockets it brings.
pub(crate) fn receive<T: DeserializeOwned>(
    connection: &Connection,
) -> Result<(T, Vec<OwnedFd>), HandoverError> {
    let (bytes, descriptors) = connection.recv(MAX_MESSAGE)?;
    if bytes.is_empty() {
        return Err(HandoverError::BrokenOff);
    }
    // The version first: a message of another release may differ in anything else.
    match serde_json::from_slice::<Stated>(&bytes)?.version {
        VERSION => Ok((serde_json::from_slice::<Envelope<T>>(&bytes)?.message, descriptors)),
        other => Err(HandoverError::Version(other)),
    }
}

/// Joins the names of a message with the sockets that it brought.
pub(crate) fn named(names: Vec<String>, sockets: Vec<OwnedFd>) -> Result<Vec<Named>, HandoverError> {
    if names.len() != sockets.len() {
        return Err(HandoverError::Sockets { names: names.len(), sockets: sockets.len() });
    }
    Ok(names.into_iter().zip(sockets).collect())
}

/// The names of sockets.
pub(crate) fn names(sockets: &[Named]) -> Vec<String> {
    sockets.iter().map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use linux::fdpass::Listener;

    use super::*;

    fn pair(name: &str) -> (Connection, Connection) {
        let path = std::env::temp_dir().join(format!("culvert-handover-{name}-{}", std::process::id()));
        let listener = Listener::bind(&path, 0o600).unwrap();
        let a = Connection::connect(&path, Duration::from_secs(5)).unwrap();
        let b = listener.accept().unwrap();
        b.set_timeout(Duration::from_secs(5)).unwrap();
        (a, b)
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn messages_arrive_with_their_sockets() {
        let (a, b) = pair("arrive");
        let ask = Ask { bpffs: Path::new("/sys/fs/bpf/culvert").to_owned(), release: "1".into() };
        send(&a, &ask, &[]).unwrap();
        assert_eq!(receive::<Ask>(&b).unwrap().0, ask);
        let sockets = vec![(LOCK.to_owned(), null()), (CNI.to_owned(), null())];
        let pod = Answer::Pod { cookie: 7, sockets: names(&sockets) };
        send(&b, &pod, &sockets).unwrap();
        let (received, descriptors) = receive::<Answer>(&a).unwrap();
        assert_eq!(received, pod);
        assert_eq!(named(names(&sockets), descriptors).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_message_of_this_version_is_an_error() {
        let (a, b) = pair("errors");
        a.send(b"{\"version\":2,\"say\":\"Later\"}", &[]).unwrap();
        assert!(matches!(receive::<Ask>(&b), Err(HandoverError::Version(2))));
        a.send(b"garbage", &[]).unwrap();
        assert!(matches!(receive::<Ask>(&b), Err(HandoverError::Malformed(_))));
        assert!(matches!(
            named(vec!["cni".into()], vec![null(), null()]),
            Err(HandoverError::Sockets { names: 1, sockets: 2 })
        ));
        drop(a);
        assert!(matches!(receive::<Ask>(&b), Err(HandoverError::BrokenOff)));
    }
}
