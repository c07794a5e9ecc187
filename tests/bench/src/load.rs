//! The plain TCP client and server whose work is measured.
//!
//! Two kinds of connection, told apart by the first byte. A short one: 128 bytes in, 1 KiB out, both ends close. A bulk
//! one: bytes in until the client has had enough, then their count out. The client ends a short one with a reset once it
//! has read the server's end, so that no end lingers in TIME_WAIT and rounds do not disturb each other. Whatever goes
//! wrong with a connection ends the measurement: a rate of failures is no rate.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;

/// What a client sends.
const REQUEST: usize = 128;
/// What the server answers.
const REPLY: usize = 1024;
/// First byte of a bulk connection.
const BULK: u8 = b'b';
/// Bytes of one write or read in bulk.
const CHUNK: usize = 128 * 1024;
/// Longer than any answer takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(10);

/// How a server learns where its client wanted to go: a part of the cost of capture.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// It is the destination itself.
    Own,
    /// The local address of the accepted socket.
    LocalAddress,
    /// Connection tracking remembers (`SO_ORIGINAL_DST`).
    Tracked,
}

/// A thread that accepts and answers, one connection at a time, until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(listener: TcpListener, origin: Origin) -> Result<Self> {
        listener.set_nonblocking(false)?;
        let accepting = listener.try_clone()?;
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while let Ok((stream, _)) = accepting.accept() {
                // A client that fails says so itself.
                let _ = answer(stream, origin, &mut buffer);
            }
        })?;
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the accept(2) that the thread waits in.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, origin: Origin, buffer: &mut [u8]) -> io::Result<()> {
    match origin {
        Origin::Own => {}
        Origin::LocalAddress => {
            stream.local_addr()?;
        }
        Origin::Tracked => {
            SockRef::from(&stream).original_dst_v4()?;
        }
    }
    let mut request = [0; REQUEST];
    stream.read_exact(&mut request)?;
    if request.first() != Some(&BULK) {
        return stream.write_all(&[0; REPLY]);
    }
    let mut count = 0_u64;
    loop {
        match stream.read(buffer)? {
            0 => return stream.write_all(&count.to_be_bytes()),
            read => count += read as u64,
        }
    }
}

/// Connections a second, one after the other for about `time`.
pub(crate) fn rate(connect: &dyn Fn() -> io::Result<TcpStream>, time: Duration) -> Result<f64> {
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < time {
        short(connect).with_context(|| format!("connection {count} of a slice"))?;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

fn short(connect: &dyn Fn() -> io::Result<TcpStream>) -> Result<()> {
    let mut stream = connect().context("connect")?;
    stream.write_all(&[b's'; REQUEST]).context("request")?;
    let mut reply = [0; REPLY + 1];
    let mut length = 0;
    loop {
        match stream.read(reply.get_mut(length..).unwrap_or_default()).context("reply")? {
            0 => break,
            read => length += read,
        }
    }
    ensure!(length == REPLY, "{length} bytes came as the reply");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

/// Bytes a second over one connection, for about `time`.
pub(crate) fn throughput(connect: &dyn Fn() -> io::Result<TcpStream>, time: Duration) -> Result<f64> {
    let mut stream = connect().context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&[BULK; REQUEST])?;
    let chunk = vec![0; CHUNK];
    let begin = Instant::now();
    let mut sent = 0_u64;
    while begin.elapsed() < time {
        stream.write_all(&chunk).context("bulk write")?;
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count).context("waiting for the count")?;
    ensure!(u64::from_be_bytes(count) == sent, "the server counted other bytes than were sent");
    Ok(sent as f64 / begin.elapsed().as_secs_f64())
}
