//! What clients send: many requests at once, and many bytes in both directions.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::{Http, Pod, Reply};

/// Read or written at once.
const BLOCK: usize = 64 * 1024;

/// A request and who sends it.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The client.
    pub from: &'a Pod,
    /// The server, as it is addressed.
    pub to: SocketAddr,
    /// Path.
    pub path: &'a str,
    /// More headers.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Load<'a> {
    /// GET without anything special.
    pub fn get(from: &'a Pod, to: SocketAddr, path: &'a str) -> Self {
        Self { from, to, path, headers: &[] }
    }

    /// Sends `each` requests one after the other on each of so many connections at once; the answers and how long they took.
    /// A connection that the server ends with an answer is followed by another.
    pub fn send(&self, connections: usize, each: usize) -> Result<Vec<(Reply, Duration)>> {
        let answers = thread::scope(|scope| {
            let senders: Vec<_> = (0..connections).map(|_| scope.spawn(|| self.on_one(each))).collect();
            let joined = senders.into_iter().map(|sender| {
                sender
                    .join()
                    .map_err(|_| anyhow!("a client panicked"))?
                    .with_context(|| format!("{} asking {} for {}", self.from.name(), self.to, self.path))
            });
            joined.collect::<Result<Vec<_>>>()
        });
        Ok(answers?.into_iter().flatten().collect())
    }

    fn on_one(&self, each: usize) -> Result<Vec<(Reply, Duration)>> {
        let mut connection: Option<Http> = None;
        let mut answers = Vec::new();
        for _ in 0..each {
            let mut http = match connection.take() {
                Some(http) => http,
                None => self.from.open_http(self.to)?,
            };
            let began = Instant::now();
            let reply = http.request("GET", self.path, self.headers)?;
            connection = (!reply.closes).then_some(http);
            answers.push((reply, began.elapsed()));
        }
        Ok(answers)
    }
}

/// How many answers came from which application; each must be a 200.
pub fn by_app<'a>(replies: impl IntoIterator<Item = &'a Reply>) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for reply in replies {
        ensure!(reply.status == 200, "{} {}", reply.status, reply.body);
        *counts.entry(reply.field("app")).or_default() += 1;
    }
    Ok(counts)
}

/// Sends so many bytes to an echo server while it reads them back, ends its own half when all are sent, and reads on to the
/// end: every byte must have come back, in its place.
pub fn echoed(stream: &TcpStream, length: u64) -> Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(move || send_pattern(stream, length));
        let read = expect_pattern(stream, length);
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        sent.and(read)
    })
}

/// Sends so many bytes, each of which follows from its place, and ends this half of the connection.
pub fn send_pattern(mut stream: &TcpStream, length: u64) -> Result<()> {
    let mut sent = 0;
    while sent < length {
        let block = pattern(sent, length);
        stream.write_all(&block).with_context(|| format!("after {sent} bytes sent"))?;
        sent += block.len() as u64;
    }
    stream.shutdown(Shutdown::Write).context("ending the sending half")
}

/// Reads to the end of the other's half, which must be what [`send_pattern`] sends.
pub fn expect_pattern(mut stream: &TcpStream, length: u64) -> Result<()> {
    let mut received = 0;
    loop {
        let mut block = pattern(received, length);
        let wanted = block.clone();
        if block.is_empty() {
            let more = stream.read(&mut [0; 1]).context("waiting for the end")?;
            ensure!(more == 0, "more than {length} bytes came");
            return Ok(());
        }
        stream.read_exact(&mut block).with_context(|| format!("after {received} of {length} bytes"))?;
        ensure!(block == wanted, "bytes after {received} are not what was sent");
        received += block.len() as u64;
    }
}

/// The bytes from a place on, a block of them at most.
fn pattern(from: u64, length: u64) -> Vec<u8> {
    let to = length.min(from + BLOCK as u64);
    (from..to).map(|place| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_lost_or_changed_on_the_way_is_told() {
        let through = |change: fn(&mut Vec<u8>)| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                change(&mut all);
                stream.write_all(&all).unwrap();
            });
            let outcome = echoed(&client, 200_000);
            server.join().unwrap();
            outcome.map_err(|error| format!("{error:#}"))
        };
        through(|_| {}).unwrap();
        assert!(through(|all| all.truncate(150_000)).unwrap_err().contains("after 131072 of 200000"));
        assert!(through(|all| all.push(0)).unwrap_err().contains("more than"));
        assert!(through(|all| all.swap(10, 11)).unwrap_err().contains("not what was sent"));
    }
}
