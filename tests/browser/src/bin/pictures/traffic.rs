//! What the pictures show: calls that are answered and calls that are refused, and one connection that stays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use harness::inside::in_netns;
use harness::{Http, client};
use netns_tests::{HTTP, SERVICE, WEB, World, at, ips};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(250);
/// One round in so many makes calls that are refused.
const REFUSED: u64 = 4;

/// Goes on until it is ended.
pub(crate) struct Traffic {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Traffic {
    /// Of a world's pods.
    pub(crate) fn start(world: &World) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let [of_client, of_neighbour, of_plain] =
            [&world.client, &world.neighbour, &world.plain].map(|pod| pod.netns().to_owned());
        let server = at(world.server.addresses(), HTTP);
        let open = world.client.open_http(server[0])?;
        let is_ended = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut open: Http = open;
            let call = |netns: &std::path::Path, to: SocketAddr| {
                in_netns(netns, || client::connect(to, client::LIMIT))
                    .map(|stream| client::attempt(stream, "/"))
            };
            for round in 0.. {
                if is_ended.load(Ordering::Relaxed) {
                    return Ok(());
                }
                for to in server.into_iter().chain(at(ips(WEB), SERVICE)) {
                    call(&of_client, to)?;
                }
                open.get("/")?;
                if round % REFUSED == 0 {
                    call(&of_neighbour, server[0])?;
                    call(&of_plain, server[1])?;
                }
                std::thread::sleep(PAUSE);
            }
            Ok(())
        });
        Ok(Self { ended, thread })
    }

    /// Ends it, and tells what went wrong meanwhile.
    pub(crate) fn end(self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the traffic panicked"))?
    }
}
