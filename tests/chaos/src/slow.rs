//! Where packets wait that are to be late: a pair of interfaces, and a thread that holds what comes out of it for a while and
//! writes it to where it was going, past the program that sent it here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::command::ip;
use harness::inside::in_netns;
use harness::wire::name_of;
use linux::testing::{FRAME_HEADER, bypass_queues, packet_socket, with_frame_headers};
use nix::net::if_::if_nametoindex;
use socket2::Socket;

use crate::chance::Chance;

/// `ETH_P_ALL`
const ALL: u16 = 0x0003;
/// How long a packet is held, in microseconds: longer than many others take.
const HELD: (u64, u64) = (2_000, 40_000);
const LONGEST: usize = (1 << 16) + 256;
/// Packets that are held at once; more are lost, as where a queue is full.
const MOST: usize = 4096;
/// The thread looks for the time this often.
const LOOK: Duration = Duration::from_millis(1);

/// A place to wait.
#[derive(Debug)]
pub struct Slow {
    /// The interface to send to.
    pub interface: u32,
    held: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Slow {
    /// On the way to `port`, an interface of the same namespace.
    pub fn before(netns: &Path, port: &str, seed: u64) -> Result<Self> {
        let (near, far, name) = (format!("{port}s"), format!("{port}b"), name_of(netns));
        ip(&format!("-n {name} link add {near} type veth peer name {far}"))?;
        for end in [&near, &far] {
            // It is to say nothing of its own.
            ip(&format!("-n {name} link set {end} addrgenmode none arp off up"))?;
        }
        let (interface, from, to) = in_netns(netns, || -> Result<(u32, OwnedFd, OwnedFd)> {
            let (from, to) = (if_nametoindex(far.as_str())?, if_nametoindex(port)?);
            let (from, to) = (packet_socket(from, ALL)?, packet_socket(to, 0)?);
            with_frame_headers(&from)?;
            with_frame_headers(&to)?;
            bypass_queues(&to)?;
            Ok((if_nametoindex(near.as_str())?, from, to))
        })??;
        let from = Socket::from(from);
        from.set_read_timeout(Some(LOOK))?;
        let (held, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let work = {
            let (held, stop) = (Arc::clone(&held), Arc::clone(&stop));
            move || hold(from, File::from(to), seed, &held, &stop)
        };
        let thread = std::thread::Builder::new().name("slow".to_owned()).spawn(work).context("a thread")?;
        Ok(Self { interface, held, stop, thread: Some(thread) })
    }

    /// How many packets were held so far.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

fn hold(mut from: Socket, mut to: File, seed: u64, held: &AtomicU64, stop: &AtomicBool) {
    let (mut chance, mut waiting) = (Chance::new(seed), BinaryHeap::new());
    let mut buffer = vec![0; LONGEST];
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(length) if length > FRAME_HEADER && waiting.len() < MOST => {
                let until = Instant::now() + Duration::from_micros(chance.between(HELD.0, HELD.1));
                waiting.push(Reverse((until, buffer.get(..length).unwrap_or_default().to_owned())));
                held.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // The interface is gone, and the test over.
            Err(_) => return,
        }
        while waiting.peek().is_some_and(|Reverse((until, _))| *until <= Instant::now()) {
            if let Some(Reverse((_, frame))) = waiting.pop() {
                // Where the link is down meanwhile it is lost, as others are.
                let _ = to.write(&frame);
            }
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it panicked of has been said.
            let _ = thread.join();
        }
    }
}
