//! One connection of the client's: a request that is being written, and a reply that is being read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::{HEAD, Kind};

/// A connection.
pub(super) struct Exchange {
    pub(super) stream: TcpStream,
    head: [u8; HEAD],
    /// Bytes of the request, and of the reply, that are still to come.
    unsent: usize,
    unread: usize,
    /// The server ends the connection behind its reply.
    ends: bool,
    is_first: bool,
    /// Since when the exchange is due; none if there is none.
    pub(super) since: Option<Instant>,
    /// Whether it is waited for to be writable.
    pub(super) is_full: bool,
}

/// The sizes of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) request: u32,
    pub(super) reply: u32,
}

impl Exchange {
    /// Begins to connect.
    pub(super) fn connect(to: SocketAddr, shape: Shape) -> Result<Self> {
        const EINPROGRESS: i32 = 115;
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP)).context("socket")?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => {
                return Err(error).with_context(|| format!("connect to {to}"));
            }
            Ok(()) | Err(_) => {}
        }
        let mut head = [0; HEAD];
        let fields = [[shape.kind.letter(), 0, 0, 0], shape.request.to_be_bytes(), shape.reply.to_be_bytes()];
        head.iter_mut().zip(fields.into_iter().flatten()).for_each(|(byte, value)| *byte = value);
        Ok(Self {
            stream: socket.into(),
            head,
            unsent: 0,
            unread: 0,
            ends: shape.kind == Kind::Connect,
            is_first: true,
            since: None,
            is_full: false,
        })
    }

    /// Begins an exchange that is due since then.
    pub(super) fn begin(&mut self, since: Instant, shape: Shape, zeros: &[u8]) -> Result<()> {
        (self.unsent, self.unread) = (shape.request as usize, shape.reply as usize);
        self.since = Some(since);
        self.write(zeros)
    }

    /// Writes as much of the request as there is room for.
    pub(super) fn write(&mut self, zeros: &[u8]) -> Result<()> {
        while self.unsent > 0 {
            let zeros = zeros.get(..self.unsent.min(zeros.len())).unwrap_or_default();
            let mut first = [0; 256];
            let bytes = if self.is_first {
                first.iter_mut().zip(self.head).for_each(|(byte, head)| *byte = head);
                first.get(..self.unsent.min(first.len())).unwrap_or_default()
            } else {
                zeros
            };
            match self.stream.write(bytes) {
                Ok(count) => {
                    ensure!(!self.is_first || count >= HEAD, "a head was torn apart");
                    (self.unsent, self.is_first) = (self.unsent - count, false);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_full = true;
                    return Ok(());
                }
                Err(error) => return Err(error).context("writing a request"),
            }
        }
        self.is_full = false;
        Ok(())
    }

    /// Reads what is there of the reply; true once the exchange is over.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.unread == 0 && self.ends => return Ok(true),
                Ok(0) => bail!("the connection ended with {} bytes of the reply missing", self.unread),
                Ok(count) => {
                    self.unread = self.unread.checked_sub(count).context("more came than was asked for")?;
                    if self.unread == 0 && !self.ends {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("reading a reply"),
            }
        }
    }
}
