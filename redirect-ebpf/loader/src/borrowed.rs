//! The ports of connections that the agent makes in a client's name.
//!
//! Towards the application the agent borrows the client's address, and needs a port there. One that the client itself uses
//! towards the same port of the application, now or later, would make two connections of the same four numbers, of which one
//! stalls or is reset. So borrowed ports are taken from a range of their own: above the ports that Linux clients draw by
//! default (32768 to 60999), where applications do not listen either. They are taken in turn, so that one is used again as
//! late as can be. What cannot be had there is drawn by the kernel, as for any connection.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use linux::sockopt;
use socket2::Socket;

/// Ports that are borrowed.
const PORTS: Range<u16> = 61_000..65_535;
/// Ports that are tried for one socket, and sockets of one connection, before the kernel draws a port.
const TRIES: usize = 4;

/// Whose turn it is; one for each pod.
#[derive(Debug)]
pub(crate) struct Borrowed {
    turn: AtomicU32,
}

impl Borrowed {
    /// Begins anywhere, so that an agent does not begin with the ports that the one before it used last.
    pub(crate) fn new() -> Self {
        Self { turn: AtomicU32::new(std::process::id().wrapping_mul(0x9e37)) }
    }

    /// Binds a transparent socket to the client's address and a port that is not the client's; `attempt` counts the sockets of
    /// one connection, from 0.
    pub(crate) fn bind(&self, socket: &Socket, client: SocketAddr, attempt: usize) -> io::Result<()> {
        // Many connections share a port: what tells them apart is the application's end.
        socket.set_reuse_address(true)?;
        if attempt < TRIES {
            for _ in 0..TRIES {
                match socket.bind(&SocketAddr::new(client.ip(), self.next(client.port())).into()) {
                    // An application listens there, against all custom.
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    other => return other,
                }
            }
        }
        sockopt::set_bind_address_no_port(socket)?;
        socket.bind(&SocketAddr::new(client.ip(), 0).into())
    }

    fn next(&self, not: u16) -> u16 {
        let span = u32::from(PORTS.end - PORTS.start);
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % span;
            // Below the end of the range, so it is a port.
            let port = PORTS.start + u16::try_from(turn).unwrap_or_default();
            if port != not {
                return port;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_port_of_the_range_has_its_turn_but_the_clients_own() {
        let borrowed = Borrowed::new();
        let span = usize::from(PORTS.end - PORTS.start);
        let ports: HashSet<u16> = (0..span - 1).map(|_| borrowed.next(61_234)).collect();
        assert_eq!(ports.len(), span - 1);
        assert!(ports.iter().all(|port| PORTS.contains(port) && *port != 61_234));
        assert!(PORTS.contains(&borrowed.next(0)));
    }
}
