//! Where threads meet in the data path, run in many orders: the table of live connections, and offers of direct connections. (What
//! TLS shares is in `tls/schedules.rs`; a worker's tunnels are its own.)
//!
//! `cargo test -p culvert-tunnel --features schedules --lib schedules::`; nothing else runs with that feature. A scheduler changes
//! threads only at what `sync.rs` has, so that is what these tests can see. An order that fails is printed, and can be run again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mesh::Identity;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use crate::connections::{ConnectionInfo, Connections, Direction};
use crate::same_node::{Offers, Taken};

/// Orders that are tried of each kind: all threads alike, and one that is always preferred, but for a few turns.
const ORDERS: usize = 1500;
/// How often another one is preferred.
const TURNS: usize = 3;
/// The stack of a thread, in bytes: certificates are verified on it.
const STACK: usize = 1 << 20;

/// Runs a test in many orders of its threads.
pub(crate) fn in_many_orders(test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK;
    let test = Arc::new(test);
    let again = Arc::clone(&test);
    shuttle::Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(move || again());
    shuttle::Runner::new(PctScheduler::new(TURNS, ORDERS), config).run(move || test());
}

fn connection() -> ConnectionInfo {
    ConnectionInfo {
        workload: "uid".into(),
        direction: Direction::Inbound,
        source: ([10, 0, 0, 1], 40000).into(),
        original_destination: None,
        destination: ([10, 0, 0, 2], 80).into(),
        hbone: true,
        identity: Some(Identity::new("cluster.local", "ns", "client")),
    }
}

#[test]
fn connections_that_come_and_go_are_each_in_the_table_once() {
    in_many_orders(|| {
        let table = Arc::new(Connections::default());
        let threads = [(); 3].map(|()| {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let stays = table.enter(connection(), None);
                drop(table.enter(connection(), None));
                stays
            })
        });
        let stay = threads.map(|thread| thread.join().unwrap());
        assert_eq!(table.count(), 3);
        drop(stay);
        assert_eq!(table.count(), 0);
    });
}

#[test]
fn a_direct_connection_is_never_seen_without_its_offer_and_the_offer_is_taken_once() {
    in_many_orders(|| {
        let offers = Arc::new(Offers::default());
        let (own, destination): (SocketAddr, _) =
            (([10, 0, 0, 1], 40000).into(), ([10, 0, 0, 2], 15008).into());
        let made = Arc::new(shuttle::sync::atomic::AtomicBool::new(false));
        let acceptors = [(); 2].map(|()| {
            let (offers, made) = (Arc::clone(&offers), Arc::clone(&made));
            thread::spawn(move || {
                // Accepted: the other end may not even have returned from connect(2).
                let accepted = made.load(Ordering::SeqCst);
                (accepted, offers.take(own, destination).is_some())
            })
        });
        let connect = || {
            made.store(true, Ordering::SeqCst);
            Ok::<_, ()>((own, ()))
        };
        let (left, ()) = offers.leave(destination, Taken::made_up([7; 32]).0, connect).unwrap();
        let seen = acceptors.map(|acceptor| acceptor.join().unwrap());
        let takers = seen.iter().filter(|(_, took)| *took).count();
        let accepted = seen.iter().filter(|(accepted, _)| *accepted).count();
        assert!(takers <= 1 && takers >= accepted.min(1), "{accepted} accepted, {takers} found the offer");
        drop(left);
        assert_eq!(offers.len(), 0);
    });
}
