//! What a client in a pod does: connect, ask, and tell a refusal from silence.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Waits of a client; what takes longer hangs.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Longest body that is read.
const MAX_BODY: usize = 16 << 20;

/// Connects in the calling thread's network namespace.
pub fn connect(to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An HTTP/1.1 answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body; `pod-app` answers in JSON.
    pub body: String,
}

impl Reply {
    /// A field of a JSON body; empty if it is not there.
    pub fn field(&self, name: &str) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The peer address that the server saw.
    pub fn peer(&self) -> Result<SocketAddr> {
        self.field("peer").parse().with_context(|| format!("no peer address in {:?}", self.body))
    }
}

/// What came of a request on a connection of its own.
#[derive(Debug)]
pub enum Attempt {
    /// The server answered.
    Answered(Reply),
    /// Refused, reset, or closed without a byte: told at once.
    Refused(io::Error),
    /// Neither: the client would have waited on.
    TimedOut(io::Error),
}

impl Attempt {
    /// Was it refused, as opposed to answered or left waiting?
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Was it answered with status 200?
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Answered(reply) if reply.status == 200)
    }
}

/// Asks on a connection that may not have come to be.
pub fn attempt(connected: io::Result<TcpStream>, path: &str) -> Attempt {
    match connected.and_then(|stream| ask(&mut BufReader::new(stream), path)) {
        Ok(reply) => Attempt::Answered(reply),
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            Attempt::TimedOut(error)
        }
        Err(error) => Attempt::Refused(error),
    }
}

/// A connection that carries requests one after the other.
#[derive(Debug)]
pub struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    /// Uses a connected stream.
    pub fn new(stream: TcpStream) -> Result<Self> {
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The stream below.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends a request and reads its answer.
    pub fn get(&mut self, path: &str) -> Result<Reply> {
        ask(&mut self.reader, path).with_context(|| format!("GET {path}"))
    }

    /// Waits until the other side ends the connection; anything else that comes is an error.
    pub fn wait_until_cut(&mut self, limit: Duration) -> Result<()> {
        self.stream().set_read_timeout(Some(limit))?;
        match self.reader.read(&mut [0; 1]) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("the connection sent data instead of ending"),
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                bail!("the connection is still open after {limit:?}")
            }
            Err(_) => Ok(()),
        }
    }
}

fn ask(reader: &mut BufReader<TcpStream>, path: &str) -> io::Result<Reply> {
    let host = reader.get_ref().peer_addr()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes())?;
    let garbled = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let status_line = line(reader)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| garbled(format!("status line {status_line:?}")))?;
    let mut length = 0;
    loop {
        let header = line(reader)?;
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().map_err(|_| garbled(header))?;
        }
    }
    if length > MAX_BODY {
        return Err(garbled(format!("a body of {length} bytes")));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// One line without its end. The end of the stream is an error: every answer has a whole head.
fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
