//! What waits for a connection to arrive at one pod.
//!
//! Invariant: no connection can be accepted and looked up between its being made and its offer being there: both happen
//! under the lock that a look-up takes. So the kernel may choose the port, as it does best. What is held meanwhile is one
//! connect(2) that does not wait.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use http::StatusCode;
use mesh::Identity;
use tokio::sync::oneshot;

use crate::hbone::server::Asked;
use crate::sync::{Mutex, MutexGuard};

/// What only the two ends of one connection know.
pub(crate) type Token = [u8; 32];

/// The answer of the pod's end: it has the application's connection, or why it has not.
pub(crate) type Answer = Result<(), StatusCode>;

/// Whom a connection is made for, and what it asks for.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The client, which the dialling end has by its own records.
    pub(crate) client: Identity,
    /// What a CONNECT request would have said.
    pub(crate) asked: Box<Asked>,
}

/// An offer whose connection is there.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) offer: Offer,
    pub(crate) token: Token,
    /// Tells who dialled that it was proven, and where to wait for the answer.
    pub(crate) proven: oneshot::Sender<oneshot::Receiver<Answer>>,
}

/// A socket's own end and its peer.
type Ends = (SocketAddr, SocketAddr);

/// The offers that wait at one pod. Not more than there are connections being made to it.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    waiting: Mutex<HashMap<Ends, Taken>>,
}

/// Takes its offer back when dropped, if nobody has taken it.
pub(crate) struct Left {
    offers: Arc<Offers>,
    ends: Ends,
}

impl Offers {
    /// Makes a connection with `connect`, which returns the socket's own end and must not wait, and leaves an offer for it.
    pub(crate) fn leave<T, E>(
        self: &Arc<Self>,
        destination: SocketAddr,
        taken: Taken,
        connect: impl FnOnce() -> Result<(SocketAddr, T), E>,
    ) -> Result<(Left, T), E> {
        let mut waiting = self.waiting();
        let (own, made) = connect()?;
        let ends = (own, destination);
        waiting.insert(ends, taken);
        drop(waiting);
        Ok((Left { offers: Arc::clone(self), ends }, made))
    }

    /// The offer for a connection that was accepted, if there is one. It is for nobody else then.
    pub(crate) fn take(&self, source: SocketAddr, connected: SocketAddr) -> Option<Taken> {
        self.waiting().remove(&(source, connected))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ends, Taken>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting().len()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.offers.waiting().remove(&self.ends);
    }
}

#[cfg(test)]
impl Taken {
    /// A client's offer with this token, and who hears that it was proven.
    pub(crate) fn made_up(token: Token) -> (Self, oneshot::Receiver<oneshot::Receiver<Answer>>) {
        let asked = Asked {
            authority: "10.0.0.2:80".parse().unwrap(),
            baggage: Default::default(),
            forwarded: Default::default(),
            traceparent: None,
            network: None,
        };
        let client = Identity::new("cluster.local", "default", "client");
        let (proven, proof) = oneshot::channel();
        (Self { offer: Offer { client, asked: Box::new(asked) }, token, proven }, proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> Taken {
        Taken::made_up([7; 32]).0
    }

    fn ends() -> Ends {
        ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:15008".parse().unwrap())
    }

    #[test]
    fn an_offer_is_taken_once_and_by_both_its_ends() {
        let offers = Arc::new(Offers::default());
        let (own, destination) = ends();
        let left = offers.leave(destination, taken(), || Ok::<_, ()>((own, ()))).unwrap();
        for (source, connected) in [
            (destination, own),
            (own, "10.0.0.3:15008".parse().unwrap()),
            ("10.0.0.1:40001".parse().unwrap(), destination),
            ("10.0.0.9:40000".parse().unwrap(), destination),
        ] {
            assert!(offers.take(source, connected).is_none(), "{source} to {connected}");
        }
        assert!(offers.take(own, destination).is_some());
        assert!(offers.take(own, destination).is_none());
        drop(left);
        assert_eq!(offers.len(), 0);
    }

    #[test]
    fn who_gives_up_or_fails_to_connect_leaves_nothing() {
        let offers = Arc::new(Offers::default());
        let (own, destination) = ends();
        drop(offers.leave(destination, taken(), || Ok::<_, ()>((own, ()))).unwrap());
        assert!(offers.take(own, destination).is_none());
        assert!(offers.leave(destination, taken(), || Err::<(SocketAddr, ()), _>("no")).is_err());
        assert_eq!(offers.len(), 0);
    }

    /// However the threads meet, who accepts a connection finds the offer: the look-up waits for who is connecting.
    #[test]
    fn a_connection_is_never_seen_before_its_offer() {
        let offers = Arc::new(Offers::default());
        let destination = ends().1;
        for port in 1..500 {
            let own = SocketAddr::from(([10, 0, 0, 1], port));
            let (accepted, accepts) = std::sync::mpsc::channel();
            let looking = Arc::clone(&offers);
            let acceptor = std::thread::spawn(move || {
                accepts.recv().unwrap();
                looking.take(own, destination).is_some()
            });
            // The other end accepts while connect(2) has not even returned here.
            let connect = || {
                accepted.send(()).unwrap();
                std::thread::yield_now();
                Ok::<_, ()>((own, ()))
            };
            let _left = offers.leave(destination, taken(), connect).unwrap();
            assert!(acceptor.join().unwrap(), "port {port}");
        }
    }
}
