//! The server: answers whatever a connection's head asks for, until its process is killed.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};

use super::poll::Poll;
use super::{CHUNK, HEAD, Kind, READY, ServerArgs};

/// How long a look for events lasts at most.
const WAIT: u16 = 10_000;

pub(crate) fn run(args: &ServerArgs) -> Result<()> {
    linux::limits::raise_descriptors().context("raising the limit of open files")?;
    let mut poll = Poll::new()?;
    let ports = args.port..args.port.checked_add(args.ports).context("ports end at 65535")?;
    let listeners: Vec<TcpListener> = ports.map(listen).collect::<Result<_>>()?;
    for (number, listener) in (0..).zip(&listeners) {
        poll.add(listener, number, false)?;
    }
    println!("{READY}");
    let (mut served, mut events) = (HashMap::<u64, Served>::new(), Vec::new());
    let (mut next, mut buffer) = (listeners.len() as u64, vec![0; CHUNK]);
    loop {
        poll.wait(WAIT, &mut events)?;
        for event in &events {
            if let Some(listener) = usize::try_from(event.number).ok().and_then(|at| listeners.get(at)) {
                while let Some(stream) = accept(listener)? {
                    poll.add(&stream, next, false)?;
                    served.insert(next, Served::new(stream));
                    next += 1;
                }
                continue;
            }
            let Some(one) = served.get_mut(&event.number) else { continue };
            let was_behind = one.owed > 0;
            let goes_on =
                if was_behind && event.writable { one.write(&buffer) } else { one.read(&mut buffer) };
            // A client that fails says so itself.
            if !goes_on.unwrap_or(false) {
                served.remove(&event.number);
            } else if was_behind != (one.owed > 0) {
                poll.change(&one.stream, event.number, one.owed > 0)?;
            }
        }
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("port {port}"))?;
    // For a burst of the client's.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(listener: &TcpListener) -> Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error).context("accept"),
    }
}

/// A connection.
struct Served {
    stream: TcpStream,
    head: Vec<u8>,
    /// Bytes that have come, of all or of the request that is not whole yet.
    came: u64,
    /// Bytes of replies that are not written yet.
    owed: usize,
    answered: bool,
}

impl Served {
    fn new(stream: TcpStream) -> Self {
        Self { stream, head: Vec::new(), came: 0, owed: 0, answered: false }
    }

    /// Takes what has come; false if that was all.
    fn read(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return self.end(),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let missing = HEAD - self.head.len();
        self.head.extend(buffer.iter().take(count.min(missing)));
        self.came += count as u64;
        let Some((kind, request, reply)) = self.asked()? else { return Ok(true) };
        if kind == Kind::Bulk {
            return Ok(true);
        }
        while self.came >= request && !(self.answered && kind == Kind::Connect) {
            self.came -= request;
            self.owed += reply;
            self.answered = true;
        }
        self.write(buffer)
    }

    /// Kind, bytes of a request, and bytes of a reply, once they are known.
    fn asked(&self) -> Result<Option<(Kind, u64, usize)>> {
        let Ok(head) = <[u8; HEAD]>::try_from(self.head.as_slice()) else { return Ok(None) };
        let [kind, _, _, _, a, b, c, d, e, f, g, h] = head;
        let kind = Kind::of_letter(kind).context("a head of no kind")?;
        let (request, reply) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        ensure!(request as usize >= HEAD, "a request is shorter than its head");
        Ok(Some((kind, request.into(), reply as usize)))
    }

    /// Writes what is owed; false once a connection of one exchange has had its reply.
    fn write(&mut self, buffer: &[u8]) -> Result<bool> {
        while self.owed > 0 {
            match self.stream.write(buffer.get(..self.owed.min(buffer.len())).unwrap_or_default()) {
                Ok(count) => self.owed -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        let is_over = self.answered && matches!(self.asked()?, Some((Kind::Connect, ..)));
        Ok(!is_over)
    }

    /// The client has ended: in bulk it is told how much has come.
    fn end(&mut self) -> Result<bool> {
        if let Some((Kind::Bulk, ..)) = self.asked()? {
            self.stream.write_all(&self.came.to_be_bytes())?;
        }
        Ok(false)
    }
}
