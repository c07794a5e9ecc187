//! The watch on the wire: every frame, whatever it is, is searched for what must never be in one.
//!
//! Nothing is recorded but what is found, so that it can go on for hours. A frame that it had no room for is an error: what was
//! not seen cannot be denied. That it sees at all is shown by [`CONTROL`], which somebody outside of the mesh sends on purpose.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::frame::Segment;
use harness::inside::in_netns;
use linux::testing::lost_frames;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd as _;

/// In every request and every answer of the mesh.
pub const MARKER: &str = "culvert-chaos-secret";
/// In what is sent in plaintext on purpose.
pub const CONTROL: &str = "culvert-chaos-control";

/// `ETH_P_ALL`, in network byte order as socket(2) wants it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
const LONGEST: usize = 1 << 17;
const QUEUE: usize = 256 << 20;
const LOOK: Duration = Duration::from_millis(100);
/// What is told of a finding.
const TOLD: usize = 5;

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: AtomicU64,
    bytes: AtomicU64,
    controls: AtomicU64,
    lost: AtomicU64,
    found: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Watch {
    /// Begins in a namespace.
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
        let work = {
            let shared = Arc::clone(&shared);
            move || shared.look(&socket)
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How often the control was seen.
    pub fn controls(&self) -> u64 {
        self.shared.controls.load(Ordering::Relaxed)
    }

    /// Frames and bytes so far; a frame that is forwarded is seen at each interface it passes.
    pub fn seen(&self) -> (u64, u64) {
        (self.shared.frames.load(Ordering::Relaxed), self.shared.bytes.load(Ordering::Relaxed))
    }

    /// Ends it; an error if anything was found, or may have been missed.
    pub fn finish(mut self) -> Result<()> {
        self.end()?;
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(found.is_empty(), "plaintext of the mesh was on the wire, {} times: {found:#?}", found.len());
        ensure!(lost == 0, "the watch had no room for {lost} frames: what it has not seen it cannot deny");
        Ok(())
    }

    /// Fails as soon as something was found.
    pub fn check(&self) -> Result<()> {
        let found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(found.is_empty(), "plaintext of the mesh was on the wire: {found:#?}");
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        ended.map_err(|_| anyhow!("the watch panicked"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its panic has been printed.
        let _ = self.end();
    }
}

impl Shared {
    fn look(&self, socket: &Socket) {
        let mut buffer = vec![0; LONGEST];
        let mut stopping = false;
        loop {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(std::io::Error::from) {
                Ok(length) => self.judge(buffer.get(..length).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.lost.fetch_add(lost_frames(socket).unwrap_or_default().into(), Ordering::Relaxed);
                    // All that was sent before the order to stop has been read.
                    if stopping {
                        return;
                    }
                    stopping = self.stop.load(Ordering::Acquire);
                }
                // An interface went down; the others go on.
                Err(_) => {}
            }
        }
    }

    fn judge(&self, frame: &[u8]) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if contains(frame, CONTROL.as_bytes()) {
            self.controls.fetch_add(1, Ordering::Relaxed);
        }
        if contains(frame, MARKER.as_bytes()) {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.len() < TOLD {
                found.push(told(frame));
            }
        }
    }
}

fn told(frame: &[u8]) -> String {
    match Segment::parse(frame) {
        Some(segment) => {
            let text = String::from_utf8_lossy(segment.payload).chars().take(200).collect::<String>();
            format!("{} -> {}: {text:?}", segment.source, segment.destination)
        }
        None => format!("{} bytes that are no TCP segment", frame.len()),
    }
}

/// Both begin alike, so most bytes are looked at once and not more.
fn contains(frame: &[u8], text: &[u8]) -> bool {
    let (Some(first), length) = (text.first(), text.len()) else { return true };
    let mut rest = frame;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.get(..length) == Some(text) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_is_there_at_either_end_and_within() {
        for frame in [&b"xxabc"[..], b"abcxx", b"xaabcx", b"abc", b"ababc"] {
            assert!(contains(frame, b"abc"), "{frame:?}");
        }
        for frame in [&b""[..], b"ab", b"abxc", b"aab"] {
            assert!(!contains(frame, b"abc"), "{frame:?}");
        }
    }
}
