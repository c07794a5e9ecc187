//! The tap on the wire: an `AF_PACKET` socket in the wire's namespace that records every frame.
//!
//! A frame that is forwarded is seen at each interface it passes, so counts are of sightings. Memory is bounded; a tap
//! that overflowed says so instead of denying what it may have missed. [`WireTap::settle`] before a question makes sure
//! that all frames sent before it are in.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::Segment;
use crate::inside::in_netns;
use crate::wait::eventually;

/// `ETH_P_ALL` of `linux/if_ether.h`, in network byte order as socket(2) wants it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
/// Offloaded packets on a veth are up to 64 KiB.
const LONGEST: usize = 1 << 17;
/// All recorded frames together.
const MEMORY: usize = 64 << 20;
const QUEUE: usize = 32 << 20;
const LOOK: Duration = Duration::from_millis(20);
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// A running tap; stops on drop.
#[derive(Debug)]
pub struct WireTap {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    record: Mutex<Record>,
    /// How often the socket was found empty.
    idle: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Record {
    frames: Vec<Vec<u8>>,
    bytes: usize,
    overflowed: bool,
}

impl WireTap {
    /// Begins to record in a namespace.
    pub fn start(netns: &Path) -> Result<Self> {
        let socket = in_netns(netns, || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PROTOCOLS)))?;
            // Beyond net.core.rmem_max, which root may.
            setsockopt(&socket, sockopt::RcvBufForce, &QUEUE)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok::<_, std::io::Error>(socket)
        })?
        .context("AF_PACKET socket on the wire")?;
        let shared = Arc::new(Shared::default());
        let worker = std::thread::Builder::new().name("wire-tap".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.record_from(socket)
        })?;
        Ok(Self { shared, worker: Some(worker) })
    }

    /// Waits until every frame sent before this call is recorded.
    pub fn settle(&self) -> Result<()> {
        // The second emptiness after now began after now.
        let goal = self.shared.idle.load(Ordering::Acquire) + 2;
        eventually("the tap to catch up with the wire", SETTLE_LIMIT, || {
            (self.shared.idle.load(Ordering::Acquire) >= goal).then_some(())
        })?;
        if self.shared.lock().overflowed {
            bail!("the tap overflowed its {MEMORY} bytes: what it did not record cannot be denied");
        }
        Ok(())
    }

    /// Forgets what was recorded, after settling.
    pub fn clear(&self) -> Result<()> {
        let settled = self.settle();
        *self.shared.lock() = Record::default();
        settled
    }

    /// Was this seen in the payload of any TCP segment? Settles first.
    pub fn contains(&self, payload: &[u8]) -> Result<bool> {
        self.settle()?;
        Ok(self.any(|segment| segment.payload.windows(payload.len().max(1)).any(|window| window == payload)))
    }

    /// Were these bytes in any frame, whatever it was? Settles first.
    pub fn carries(&self, bytes: &[u8]) -> Result<bool> {
        self.settle()?;
        let record = self.shared.lock();
        Ok(record.frames.iter().any(|frame| frame.windows(bytes.len().max(1)).any(|window| window == bytes)))
    }

    /// Sightings of TCP segments from or to a port. Settles first.
    pub fn segments_of_port(&self, port: u16) -> Result<usize> {
        self.settle()?;
        let record = self.shared.lock();
        let of_port = |s: &Segment<'_>| s.source.port() == port || s.destination.port() == port;
        Ok(record.segments().filter(of_port).count())
    }

    /// Ports to which connections were opened (SYN). Settles first.
    pub fn ports(&self) -> Result<BTreeSet<u16>> {
        self.settle()?;
        Ok(self.shared.lock().segments().filter(Segment::opens).map(|s| s.destination.port()).collect())
    }

    /// Recorded frames, TCP or not.
    pub fn frames(&self) -> usize {
        self.shared.lock().frames.len()
    }

    /// Calls `f` with each recorded segment; true as soon as it says so.
    pub fn any(&self, f: impl Fn(&Segment<'_>) -> bool) -> bool {
        self.shared.lock().segments().any(|segment| f(&segment))
    }
}

impl Drop for WireTap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(worker) = self.worker.take() {
            // It ends within one look; a panic of it has been printed.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_from(&self, mut socket: Socket) {
        let mut buffer = vec![0; LONGEST];
        while !self.stop.load(Ordering::Acquire) {
            match socket.read(&mut buffer) {
                Ok(length) => self.lock().push(buffer.get(..length).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.idle.fetch_add(1, Ordering::AcqRel);
                }
                // An interface went down; the others go on.
                Err(_) => {}
            }
        }
    }
}

impl Record {
    fn push(&mut self, frame: &[u8]) {
        if self.bytes + frame.len() > MEMORY {
            self.overflowed = true;
            return;
        }
        self.bytes += frame.len();
        self.frames.push(frame.to_owned());
    }

    fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.frames.iter().filter_map(|frame| Segment::parse(frame))
    }
}
