//! Bytes to the server on some connections, until the time is over; what counts is what has arrived.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{ClientArgs, Outcome, Targets, counted, ready, shape};
use crate::traffic::exchange::Exchange;
use crate::traffic::poll::Poll;
use crate::traffic::{CHUNK, HEAD};

/// How long what is on its way may take to arrive.
const LIMIT: Duration = Duration::from_secs(30);
const WAIT: u16 = 100;

pub(super) fn run(args: &ClientArgs) -> Result<Outcome> {
    let (mut targets, mut poll) = (Targets::new(args), Poll::new()?);
    let zeros = vec![0; CHUNK];
    let mut streams = Vec::new();
    for number in 0..args.streams as u64 {
        let stream = connect(&mut targets, args, &zeros)?;
        poll.add(&stream, number, true)?;
        streams.push((stream, HEAD as u64));
    }
    ready()?;
    let (begin, mut events) = (Instant::now(), Vec::new());
    let end = begin + Duration::from_secs_f64(args.seconds);
    while Instant::now() < end {
        poll.wait(WAIT, &mut events)?;
        for event in &events {
            let Some((stream, sent)) = usize::try_from(event.number).ok().and_then(|at| streams.get_mut(at))
            else {
                continue;
            };
            match stream.write(&zeros) {
                Ok(count) => *sent += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("writing in bulk"),
            }
        }
    }
    let mut bytes = 0;
    for (stream, _) in &streams {
        stream.shutdown(Shutdown::Write)?;
    }
    for (stream, sent) in &mut streams {
        ensure!(came(stream)? == *sent, "the server counted other bytes than were sent");
        bytes += *sent;
    }
    Ok(counted(begin.elapsed().as_secs_f64(), bytes))
}

/// A connection that stands, with its head written.
fn connect(targets: &mut Targets<'_>, args: &ClientArgs, zeros: &[u8]) -> Result<TcpStream> {
    let head = crate::traffic::exchange::Shape { request: HEAD as u32, reply: 0, ..shape(args) };
    let mut exchange = Exchange::connect(targets.next()?, head)?;
    // Without a poll: it is one small write on a connection that is about to stand.
    exchange.stream.set_nonblocking(false)?;
    exchange.begin(Instant::now(), head, zeros)?;
    exchange.stream.set_nonblocking(true)?;
    Ok(exchange.stream)
}

/// What the server says that has come.
fn came(stream: &mut TcpStream) -> Result<u64> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut count = [0; 8];
    stream.read_exact(&mut count).context("waiting for the server's count")?;
    Ok(u64::from_be_bytes(count))
}
