//! The two users of a relay: each writes what its script says, and reads and judges what comes.
//!
//! What an end sends is known by its place in the stream, so that a byte which is lost, doubled, changed or out of order is
//! found where it is read. Writing and reading go on side by side, so that no script can lock itself up.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What one end does.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Bytes of each burst, and of one write in it.
    pub(super) bursts: Vec<(usize, usize)>,
    /// How it ends: with a reset, or by saying that nothing more comes.
    pub(super) resets: bool,
    /// Bytes of one read.
    pub(super) read: usize,
    /// When it begins to read.
    pub(super) begins: Begins,
    /// Bytes of the kernel's buffers; none for what it thinks fit.
    pub(super) buffer: Option<u32>,
}

/// When an end begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    AtOnce,
    /// Once the other end can write no more, or has written all.
    Resisted,
    /// Once the other end has heard it to its end.
    Heard,
}

/// How the other end ended, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Reset,
    /// This end was the one to reset, and looked no more.
    Left,
}

/// What an end has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) end: End,
    /// Bytes that came; all were as they had been sent.
    pub(super) came: usize,
}

/// What an end lets the reader at the other end know.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Its writer has met with resistance, or is done.
    resisted: bool,
    /// Its reader is done.
    heard: bool,
}

impl Script {
    /// All it writes.
    pub(super) fn length(&self) -> usize {
        self.bursts.iter().map(|(bytes, _)| bytes).sum()
    }
}

/// Plays both scripts to their ends.
pub(super) async fn play(near: (TcpStream, &Script), far: (TcpStream, &Script)) -> [Seen; 2] {
    let ((near, here), (far, there)) = (near, far);
    let (near_state, near_writes) = watch::channel(State::default());
    let (far_state, far_writes) = watch::channel(State::default());
    let both = async {
        tokio::join!(
            one((near, here, 1), near_state, (2, far_writes)),
            one((far, there, 2), far_state, (1, near_writes)),
        )
    };
    let limit = Duration::from_secs(120);
    let (near, far) = tokio::time::timeout(limit, both).await.expect("the scripts come to their ends");
    [near, far]
}

async fn one(
    (stream, own, salt): (TcpStream, &Script, u8),
    state: watch::Sender<State>,
    (other_salt, other_writes): (u8, watch::Receiver<State>),
) -> Seen {
    let is_broken = Cell::new(false);
    let writing = async {
        is_broken.set(!write(&stream, own, salt, &state).await);
        state.send_modify(|state| state.resisted = true);
        if own.resets {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            // Broken by the other end, it is as good as finished.
            let _ = SockRef::from(&stream).shutdown(std::net::Shutdown::Write);
        }
    };
    let reading = async {
        let seen = read(&stream, own, other_salt, other_writes).await;
        state.send_modify(|state| state.heard = true);
        // The kernel tells of a reset once. If a write was told, what is read behind it looks like an end (socket(7), `SO_ERROR`).
        let end = if is_broken.get() && seen.end == End::Finished { End::Reset } else { seen.end };
        Seen { end, ..seen }
    };
    if !own.resets {
        // Each goes on to its end though the other one has come to its own already.
        return tokio::join!(reading, writing).0;
    }
    let reading = async {
        reading.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // What has come is judged before it is left.
        biased;
        () = reading => {}
        () = writing => {}
    }
    Seen { end: End::Left, came: 0 }
}

/// Writes all, unless the connection breaks; whether it has written all.
async fn write(stream: &TcpStream, own: &Script, salt: u8, state: &watch::Sender<State>) -> bool {
    let mut place = 0;
    for (bytes, piece) in &own.bursts {
        let mut left = *bytes;
        while left > 0 {
            let next: Vec<u8> = (place..place + left.min(*piece)).map(|place| byte(place, salt)).collect();
            let mut unsent = next.as_slice();
            while !unsent.is_empty() {
                match stream.try_write(unsent) {
                    Ok(count) => unsent = &unsent[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        state.send_modify(|state| state.resisted = true);
                        if stream.writable().await.is_err() {
                            return false;
                        }
                    }
                    Err(_) => return false,
                }
            }
            (place, left) = (place + next.len(), left - next.len());
        }
        tokio::task::yield_now().await;
    }
    true
}

async fn read(stream: &TcpStream, own: &Script, salt: u8, mut other: watch::Receiver<State>) -> Seen {
    // Gone is as good as done.
    let _ = match own.begins {
        Begins::AtOnce => None,
        Begins::Resisted => other.wait_for(|state| state.resisted).await.ok(),
        Begins::Heard => other.wait_for(|state| state.heard).await.ok(),
    };
    let (mut buffer, mut came) = (vec![0; own.read], 0);
    loop {
        let count = match next(stream, &mut buffer).await {
            Ok(0) => return Seen { end: End::Finished, came },
            Ok(count) => count,
            Err(error) => {
                assert!(is_reset(&error), "{error}");
                return Seen { end: End::Reset, came };
            }
        };
        for (place, found) in (came..).zip(buffer.iter().take(count)) {
            assert_eq!(*found, byte(place, salt), "byte {place} is another one");
        }
        came += count;
    }
}

async fn next(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// The byte at a place; no two neighbouring records, frames or streams look alike.
fn byte(place: usize, salt: u8) -> u8 {
    let [a, b, c, ..] = place.to_le_bytes();
    a.wrapping_mul(31) ^ b.wrapping_mul(17) ^ c ^ salt
}
