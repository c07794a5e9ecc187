//! Plain sockets of the test's own inside pods, to end connections in every way there is, and to see what is left of them.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::inside::in_netns;
use socket2::{Domain, SockRef, Socket, Type};

use crate::LIMIT;

/// A listener of both families on all addresses of a namespace.
pub fn listen(netns: &Path, port: u16) -> Result<TcpListener> {
    in_netns(netns, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?
        .with_context(|| format!("listening on {port} in {}", netns.display()))
}

/// The next connection, and its client's address.
pub fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let (stream, peer) = harness::eventually("a connection to arrive", LIMIT, || listener.accept().ok())?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok((stream, SocketAddr::new(IpAddr::to_canonical(&peer.ip()), peer.port())))
}

/// Somebody who never answers: a listener whose queue is full, so that the kernel drops what comes.
pub fn deaf(netns: &Path, port: u16) -> Result<(Socket, Vec<Socket>)> {
    in_netns(netns, || {
        let socket = || Socket::new(Domain::IPV6, Type::STREAM, None);
        let listener = socket()?;
        listener.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        listener.listen(0)?;
        let mut queued = Vec::new();
        for _ in 0..16 {
            let client = socket()?;
            let own = SocketAddr::from((Ipv6Addr::LOCALHOST, port)).into();
            if client.connect_timeout(&own, Duration::from_millis(500)).is_err() {
                return Ok((listener, queued));
            }
            queued.push(client);
        }
        bail!("the queue of a listener without a backlog does not fill up")
    })?
}

/// Ends a connection with a RST.
pub fn reset(stream: TcpStream) -> Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Ends the sending half.
pub fn finish(stream: &TcpStream) -> Result<()> {
    Ok(stream.shutdown(Shutdown::Write)?)
}

/// Reads to the end, which must be a clean one; what came.
pub fn read_to_end(mut stream: &TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("the connection was to end in good order")?;
    Ok(bytes)
}

/// Reads to the end, which must be a reset.
pub fn read_to_reset(mut stream: &TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => bail!("not a reset but {error}"),
        Ok(_) => bail!("not a reset but a clean end after {} bytes", bytes.len()),
    }
}

/// Reads exactly what was sent.
pub fn expect(mut stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    let mut read = vec![0; bytes.len()];
    stream
        .read_exact(&mut read)
        .with_context(|| format!("waiting for {}", String::from_utf8_lossy(bytes)))?;
    ensure!(read == bytes, "{} came", String::from_utf8_lossy(&read));
    Ok(())
}

/// The TCP connections of a namespace that somebody holds or the kernel still works on, as `local remote state`: all but
/// listeners, what goes over loopback, and those in TIME_WAIT, which are but a note that their ports are not to be used for
/// a minute.
pub fn connections(netns: &Path) -> Result<Vec<String>> {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    // As the kernel prints them, in words of the machine's byte order.
    const LOOPBACK4: &str = "0100007F:";
    const LOOPBACK6: &str = "00000000000000000000000001000000:";
    let read = || -> io::Result<String> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok(read("tcp")? + &read("tcp6")?)
    };
    let table = in_netns(netns, read)??;
    let mut found = Vec::new();
    for line in table.lines() {
        let mut words = line.split_whitespace();
        let (Some(number), Some(local), Some(remote), Some(state)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let loopback = [LOOPBACK4, LOOPBACK6].iter().any(|own| remote.starts_with(own));
        if number != "sl" && state != TIME_WAIT && state != LISTEN && !loopback {
            found.push(format!("{local} {remote} {state}"));
        }
    }
    Ok(found)
}
