//! The conversation of two agents: messages of [`protocols::handover`] over a connection (`SOCK_SEQPACKET`), with sockets.
//!
//! Every message has as many sockets as it names; one that has not is an error, and the sockets are closed.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use linux::fdpass::Connection;
use protocols::handover::{self, MAX_MESSAGE, MessageError};
pub(crate) use protocols::handover::{Answer, Ask, Taken};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The installation's lock.
pub(crate) const LOCK: &str = "lock";
/// The process of the agent itself (a pidfd), by which its end is known. Releases without it hand none over.
pub(crate) const PROCESS: &str = "process";
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

/// A descriptor, mostly of a socket, with what it is for.
pub(crate) type Named = (String, OwnedFd);

/// A conversation that cannot go on.
#[derive(Debug, Error)]
pub(crate) enum HandoverError {
    /// The other side is gone, silent or does not read.
    #[error("the other agent does not answer: {0}")]
    Lost(#[from] io::Error),
    /// No message of ours, or not the one that is due.
    #[error(transparent)]
    Message(#[from] MessageError),
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
    /// The other side says no.
    #[error("the running agent refuses to hand over: {0}")]
    Refused(String),
}

/// Sends a message with its sockets.
pub(crate) fn send(
    connection: &Connection,
    message: &impl Serialize,
    sockets: &[Named],
) -> Result<(), HandoverError> {
    let bytes = handover::encode(message)?;
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
    Ok((handover::decode(&bytes)?, descriptors))
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
        assert!(matches!(receive::<Ask>(&b), Err(HandoverError::Message(MessageError::Version(2)))));
        a.send(b"garbage", &[]).unwrap();
        assert!(matches!(receive::<Ask>(&b), Err(HandoverError::Message(MessageError::Malformed(_)))));
        assert!(matches!(
            named(vec!["cni".into()], vec![null(), null()]),
            Err(HandoverError::Sockets { names: 1, sockets: 2 })
        ));
        drop(a);
        assert!(matches!(receive::<Ask>(&b), Err(HandoverError::BrokenOff)));
    }
}
