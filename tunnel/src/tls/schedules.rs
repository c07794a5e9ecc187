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
        let replacing = {
            let (world, revocations) = (Arc::clone(&world), Arc::clone(&revocations));
            thread::spawn(move || revocations.replace(std::slice::from_ref(&world.after)).unwrap())
        };
        // A handshake asks first; what it was told then may be old when its session is entered.
        let session = (!revocations.revoke(&world.shown()))
            .then(|| revocations.enter(&world.shown(), &world.roots, None).unwrap());
        replacing.join().unwrap();
        assert!(session.is_none_or(|session| session.is_revoked()), "it goes on with a peer that is revoked");
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
        drop(stays);
        assert_eq!(revocations.replace(std::slice::from_ref(&world.after)).unwrap(), 0);
    });
}
