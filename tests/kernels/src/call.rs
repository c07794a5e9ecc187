//! One connection: what its client hears, and what servers say.
//!
//! Whoever accepts a connection says who he is and what the connection's ends are, in one line; whoever passes it on
//! appends what the next one says. So a client's lines tell the whole way of its connection.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use linux::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::LIMIT;

/// What the client of a connection knows after it.
#[derive(Debug)]
pub(crate) struct Call {
    /// The client's own end.
    pub(crate) own: SocketAddr,
    /// The other end, as the client sees it.
    pub(crate) peer: SocketAddr,
    /// What it heard.
    pub(crate) lines: Vec<String>,
}

/// Connects from a namespace, bound to `device` if there is one, and listens to the end.
pub(crate) fn call(from: &Netns, to: SocketAddr, device: Option<&str>) -> io::Result<Call> {
    let socket = from
        .run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))
        .map_err(io::Error::other)??;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    // Shorter than the kernel's time-out by far: a refusal has to come at once.
    socket.connect_timeout(&to.into(), LIMIT / 4)?;
    let stream = TcpStream::from(socket);
    let (own, peer) = (stream.local_addr()?, stream.peer_addr()?);
    Ok(Call { own, peer, lines: hear(stream)? })
}

/// Everything that the other side says, line by line.
pub(crate) fn hear(mut stream: TcpStream) -> io::Result<Vec<String>> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The line of `who` about a connection that he accepted.
pub(crate) fn line(who: &str, local: SocketAddr, peer: SocketAddr) -> String {
    format!("{who} {peer} -> {local}")
}

/// Whether `said` is a line of `who`, about a connection from this address, whatever its port.
pub(crate) fn is_line(said: &str, who: &str, local: SocketAddr, peer: IpAddr) -> bool {
    let from = said.strip_prefix(who).and_then(|rest| rest.strip_suffix(&format!(" -> {local}")));
    let from = from.and_then(|text| text.trim().parse::<SocketAddr>().ok());
    from.is_some_and(|from| from.ip() == peer)
}

/// A server that says [`line`] to everybody.
#[derive(Debug)]
pub(crate) struct Server {
    served: Arc<AtomicUsize>,
}

impl Server {
    /// Starts one in a namespace, at these addresses; it runs until the program ends.
    pub(crate) fn start(
        netns: &Netns,
        who: &'static str,
        at: impl Iterator<Item = SocketAddr>,
    ) -> Result<Self> {
        let served = Arc::new(AtomicUsize::new(0));
        for address in at {
            let listener = netns
                .run(|| TcpListener::bind(address))?
                .with_context(|| format!("listening at {address}"))?;
            let served = Arc::clone(&served);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    served.fetch_add(1, Ordering::Relaxed);
                    // A client that is gone before it heard anything fails its own check.
                    let _ = greet(stream, who);
                }
            });
        }
        Ok(Self { served })
    }

    /// How many connections it accepted.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

fn greet(mut stream: TcpStream, who: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let line = line(who, stream.local_addr()?, stream.peer_addr()?);
    stream.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_recognised_by_its_ends() {
        let (local, peer): (SocketAddr, SocketAddr) =
            ("[fd77::2]:80".parse().unwrap(), "[fd77::1]:4000".parse().unwrap());
        let said = line("app", local, peer);
        assert!(is_line(&said, "app", local, peer.ip()));
        assert!(!is_line(&said, "server", local, peer.ip()));
        assert!(!is_line(&said, "app", peer, peer.ip()));
        assert!(!is_line(&said, "app", local, local.ip()));
    }
}
