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
    /// The server will take no other request on this connection.
    pub closes: bool,
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
    match connected.and_then(|stream| ask(&mut BufReader::new(stream), "GET", path, &[])) {
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
        self.request("GET", path, &[])
    }

    /// Sends a request without a body, with more headers, and reads its answer.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        ask(&mut self.reader, method, path, headers).with_context(|| format!("{method} {path}"))
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

fn ask(
    reader: &mut BufReader<TcpStream>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Reply> {
    let host = reader.get_ref().peer_addr()?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    if method != "GET" {
        request += "Content-Length: 0\r\n";
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    reader.get_mut().write_all(format!("{request}\r\n").as_bytes())?;
    let status_line = line(reader)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| garbled(format!("status line {status_line:?}")))?;
    let (mut length, mut chunked, mut closes) = (0, false, false);
    loop {
        let header = line(reader)?;
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                length = value.trim().parse::<usize>().map_err(|_| garbled(header.clone()))?;
            }
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            "connection" => closes = value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        chunks(reader, &mut body)?;
    } else {
        take(reader, length, &mut body)?;
    }
    Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned(), closes })
}

/// A body in chunks (RFC 9112 section 7.1), without trailers.
fn chunks(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(reader)?;
        let length = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
        let length = length.map_err(|_| garbled(format!("a chunk of size {size:?}")))?;
        take(reader, length, body)?;
        line(reader)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Reads so many more bytes of a body.
fn take(reader: &mut BufReader<TcpStream>, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let begin = body.len();
    let end = begin.saturating_add(length);
    if end > MAX_BODY {
        return Err(garbled(format!("a body of more than {MAX_BODY} bytes")));
    }
    body.resize(end, 0);
    reader.read_exact(body.get_mut(begin..).unwrap_or_default())
}

fn garbled(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One line without its end. The end of the stream is an error: every answer has a whole head.
fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_whole_however_it_is_sent_and_an_end_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let mut answered = String::new();
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none",
                "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                 2;x=y\r\ntw\r\n1\r\no\r\n0\r\n\r\n",
            ] {
                let length = stream.read(&mut request).unwrap();
                answered += &String::from_utf8_lossy(&request[..length]);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            answered
        });
        let mut http = Http::new(connect(address, LIMIT).unwrap()).unwrap();
        let reply = http.get("/").unwrap();
        assert_eq!((reply.status, reply.body.as_str(), reply.closes), (200, "one", false));
        let reply = http.request("POST", "/x", &[("x-version", "v2")]).unwrap();
        assert_eq!((reply.status, reply.body.as_str(), reply.closes), (403, "two", true));
        let requests = server.join().unwrap();
        assert!(
            requests.contains("POST /x HTTP/1.1\r\n") && requests.contains("x-version: v2"),
            "{requests}"
        );
    }
}
