//! A session begins while lists of revoked certificates are replaced: in every order it hears of it, or never was let in.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateRevocationListDer, UnixTime};
use shuttle::thread;

use super::certificate::Certificate;
use super::revocation::{Revocations, Shown, Side};
use super::tests::Ca;
use crate::schedules::in_many_orders;

/// A peer, the roots that it is judged by, and lists before and after it was revoked.
struct World {
    peer: Arc<Certificate>,
    roots: Arc<RootCertStore>,
    before: CertificateRevocationListDer<'static>,
    after: CertificateRevocationListDer<'static>,
}

impl World {
    fn new() -> Arc<Self> {
        let ca = Ca::new();
        let peer = ca.issue(&mesh::Identity::new("cluster.local", "default", "client"));
        let mut roots = RootCertStore::empty();
        peer.roots.iter().for_each(|root| roots.add(root.clone()).unwrap());
        let (before, after) = (ca.revoke(&[], false), ca.revoke(&[&peer.chain[0]], false));
        Arc::new(Self { peer, roots: Arc::new(roots), before, after })
    }

    fn shown(&self) -> Shown<'_> {
        let when = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_700_000_000));
        Shown { side: Side::Client, leaf: &self.peer.chain[0], others: &[], roots: &self.roots, when }
    }

    fn in_force(&self) -> Arc<Revocations> {
        let revocations = Arc::new(Revocations::default());
        revocations.replace(std::slice::from_ref(&self.before)).unwrap();
        revocations
    }
}

#[test]
fn a_session_that_begins_while_its_peer_is_revoked_is_ended() {
    let world = World::new();
    in_many_orders(move || {
        let (world, revocations) = (Arc::clone(&world), world.in_force());
        let beginning = [(); 2].map(|()| {
            let (world, revocations) = (Arc::clone(&world), Arc::clone(&revocations));
            // A handshake asks first; what it was told then may be old when its session is entered.
            thread::spawn(move || {
                (!revocations.revoke(&world.shown()))
                    .then(|| revocations.enter(&world.shown(), &world.roots, None).unwrap())
            })
        });
        revocations.replace(std::slice::from_ref(&world.after)).unwrap();
        for session in beginning.map(|thread| thread.join().unwrap()) {
            let goes_on = session.is_some_and(|session| !session.is_revoked());
            assert!(!goes_on, "it goes on with a peer that is revoked");
        }
        assert_eq!(revocations.live(), 0);
    });
}

#[test]
fn a_session_that_ends_meanwhile_leaves_nothing_and_others_are_counted() {
    let world = World::new();
    in_many_orders(move || {
        let (world, revocations) = (Arc::clone(&world), world.in_force());
        let stays = revocations.enter(&world.shown(), &world.roots, None).unwrap();
        let goes = revocations.enter(&world.shown(), &world.roots, None).unwrap();
        let going = thread::spawn(move || drop(goes));
        let ended = revocations.replace(std::slice::from_ref(&world.after)).unwrap();
        going.join().unwrap();
        assert!(stays.is_revoked() && (1..=2).contains(&ended), "{ended}");
        assert_eq!(revocations.replace(std::slice::from_ref(&world.after)).unwrap(), 0, "ended before");
        assert_eq!(revocations.live(), 1);
        drop(stays);
        assert_eq!(revocations.live(), 0);
    });
}
