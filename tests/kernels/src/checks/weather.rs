//! Two agents on a wire that loses, doubles, delays, reorders and corrupts packets: what is sent arrives whole, and is not on the wire as
//! it was sent.
//!
//! In the guests alone, which have the kernel's netem. What runs on the machine's own kernel is the storm (`tests/chaos`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use linux::netlink::netem::{self, Weather};
use linux::netns::Netns;
use linux::testing::lost_frames;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::Progress;
use super::pair::{LEFT, OTHER_DEVICE, PATIENCE, Pair, RIGHT};
use crate::world::{DEVICE, Family, HTTP};

/// Connections, by so many clients at once, with so many bytes to and fro.
const CONNECTIONS: usize = 60;
const CLIENTS: usize = 6;
const BYTES: usize = 64 << 10;
/// In all that is sent, and in what is sent in plaintext on purpose.
const NEEDLE: &[u8] = b"culvert-weather-secret";
const CONTROL: &[u8] = b"culvert-weather-control";

const BAD: Weather = Weather {
    delay: Duration::from_millis(5),
    jitter: Duration::from_millis(2),
    lost: 20_000,
    doubled: 10_000,
    reordered: 50_000,
    corrupted: 1_000,
};

pub(super) fn run(progress: &mut Progress, pair: &Pair) -> Result<()> {
    let families = pair.families;
    progress.check(&format!("{CONNECTIONS} connections arrive whole over a wire that spoils packets"), || {
        netem::set(&pair.left, DEVICE, BAD)?;
        netem::set(&pair.right, OTHER_DEVICE, BAD)?;
        let tap = Tap::start(&pair.right)?;
        tap.until_it_sees(pair)?;
        serve(&pair.right, families)?;
        exchange_all(&pair.left, families)?;
        tap.finish()
    })
}

/// Sends back whatever is sent, once all of it is there; until the program ends.
fn serve(pod: &Netns, families: &[Family]) -> Result<()> {
    for family in families {
        let listener = pod.run(|| TcpListener::bind(family.of(RIGHT, HTTP)))??;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client whose connection breaks fails by itself.
                std::thread::spawn(move || give_back(stream));
            }
        });
    }
    Ok(())
}

fn give_back(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    stream.write_all(&heard)?;
    stream.shutdown(Shutdown::Write)
}

fn exchange_all(pod: &Netns, families: &[Family]) -> Result<()> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || -> Result<()> {
                    for number in (client..CONNECTIONS).step_by(CLIENTS) {
                        let family = families.get(number % families.len().max(1)).context("no family")?;
                        let to = family.of(RIGHT, HTTP);
                        exchange(pod, to, number).with_context(|| format!("connection {number} to {to}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

fn exchange(pod: &Netns, to: SocketAddr, number: usize) -> Result<()> {
    let socket = pod.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))??;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Of no two connections the same, and nowhere the same as elsewhere.
    let counted = (0_u32..).flat_map(|at| (at ^ (number as u32) << 20).to_le_bytes());
    let said: Vec<u8> = NEEDLE.iter().copied().chain(counted).take(BYTES).collect();
    stream.write_all(&said)?;
    stream.shutdown(Shutdown::Write)?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    ensure!(heard.len() == said.len(), "{} bytes came back of {}", heard.len(), said.len());
    ensure!(heard == said, "what came back is not what was sent");
    Ok(())
}

/// Looks at every frame of the wire.
struct Tap {
    seen: Arc<Seen>,
    thread: std::thread::JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Seen {
    controls: AtomicU64,
    needles: AtomicU64,
    stop: AtomicBool,
}

impl Tap {
    fn start(netns: &Netns) -> Result<Self> {
        /// `ETH_P_ALL`, in network byte order as socket(2) wants it.
        const ALL: i32 = 0x0003_u16.to_be() as i32;
        const QUEUE: usize = 64 << 20;
        let socket = netns.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL))))??;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let seen = Arc::new(Seen::default());
        let work = Arc::clone(&seen);
        Ok(Self { seen, thread: std::thread::spawn(move || work.look(&socket)) })
    }

    /// Waits until it has seen what is sent in plaintext on purpose; that may be lost as well.
    fn until_it_sees(&self, pair: &Pair) -> Result<()> {
        let family = pair.families.first().context("no family")?;
        let socket = pair.left.run(|| UdpSocket::bind(family.of(LEFT, 0)))??;
        let end = Instant::now() + PATIENCE;
        while self.seen.controls.load(Ordering::Relaxed) == 0 {
            ensure!(Instant::now() < end, "the tap does not see what is sent in plaintext");
            // Nobody listens, which the kernel may tell.
            let _ = socket.send_to(CONTROL, family.of(RIGHT, HTTP));
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        self.seen.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the tap panicked"))??;
        let needles = self.seen.needles.load(Ordering::Relaxed);
        ensure!(needles == 0, "{needles} frames had plaintext of the mesh in them");
        Ok(())
    }
}

impl Seen {
    /// Ends when it is told, and nothing waits any more.
    fn look(&self, socket: &Socket) -> Result<()> {
        let mut buffer = vec![0; 1 << 17];
        let mut lost = 0;
        loop {
            match (&mut &*socket).read(&mut buffer) {
                Ok(length) => {
                    let frame = buffer.get(..length).unwrap_or_default();
                    // The pod's lo, by which its agent hands on what came: there no frame has addresses.
                    if frame.get(..12).is_none_or(|addresses| addresses == [0; 12]) {
                        continue;
                    }
                    let has = |text: &[u8]| u64::from(frame.windows(text.len()).any(|part| part == text));
                    self.controls.fetch_add(has(CONTROL), Ordering::Relaxed);
                    self.needles.fetch_add(has(NEEDLE), Ordering::Relaxed);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    lost += lost_frames(socket)?;
                    if self.stop.load(Ordering::Relaxed) {
                        ensure!(lost == 0, "the tap had no room for {lost} frames");
                        return Ok(());
                    }
                }
                Err(error) => return Err(error).context("reading the wire"),
            }
        }
    }
}
