//! The servers of the recorded world: in every place on the same ports, and what each port does.
//!
//! They answer with the recorded bytes, blanks included: how much was sent is compared. A thread a listener and one a connection; they
//! end with this process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::inside::in_netns;
use socket2::SockRef;

use crate::place::Place;

/// Longest line that is read.
const LONGEST: u64 = 1 << 16;
const BULK: usize = 1 << 20;

/// Serves in a place on all of these ports, of both families.
pub fn start(place: &Place, ports: &[u16]) -> Result<()> {
    let bind = |port: &u16| {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
        TcpListener::bind(address).with_context(|| format!("listen on port {port} of {}", place.name))
    };
    let listeners: Vec<TcpListener> =
        in_netns(place.netns(), || ports.iter().map(bind).collect::<Result<_>>())??;
    let name: Arc<str> = place.name.as_str().into();
    for (listener, port) in listeners.into_iter().zip(ports.iter().copied()) {
        let name = Arc::clone(&name);
        std::thread::Builder::new().name(format!("{name} {port}")).spawn(move || {
            // A connection that was gone before it was accepted, or that breaks, is its client's business.
            for stream in listener.incoming().flatten() {
                let name = Arc::clone(&name);
                std::thread::spawn(move || serve(&name, port, stream).ok());
            }
        })?;
    }
    Ok(())
}

fn serve(name: &str, port: u16, mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    match port {
        7001 => {
            let count = stream.read_to_end(&mut Vec::new())?;
            writeln!(stream, r#"{{"pod": "{name}", "after_eof": {count}}}"#)?;
        }
        7002 => {
            line(&mut BufReader::new(&stream))?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        7003 => {
            line(&mut BufReader::new(&stream))?;
            stream.write_all(&vec![b'x'; BULK])?;
        }
        7004 => {
            stream.read_to_end(&mut Vec::new())?;
        }
        _ => answer(name, &stream)?,
    }
    Ok(())
}

/// One line of JSON for each line.
fn answer(name: &str, mut stream: &TcpStream) -> Result<()> {
    let (peer, local) = (stream.peer_addr()?.ip().to_canonical(), stream.local_addr()?);
    let (own, port) = (local.ip().to_canonical(), local.port());
    let mut reader = BufReader::new(stream);
    while line(&mut reader)? > 0 {
        // In one write, so that it is one segment and one DATA frame.
        let answer = format!("{{\"pod\": \"{name}\", \"peer\": \"{peer}\", \"local\": \"{own}:{port}\"}}\n");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn line(reader: &mut BufReader<&TcpStream>) -> Result<usize> {
    Ok(reader.take(LONGEST).read_until(b'\n', &mut Vec::new())?)
}
