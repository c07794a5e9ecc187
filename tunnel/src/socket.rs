//! Options every TCP socket of the data path gets, and connecting with a limit.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Keepalive;
use crate::gate::Link;
use crate::hbone::ConnectError;
use crate::scope::canonical;
use crate::served::Served;

/// How long a peer has to read why it is refused.
const PARTING: Duration = Duration::from_secs(1);

/// Turns Nagle off and has the kernel notice dead peers. A socket that refuses (it may be reset already) is as good without. What
/// a listener accepts from then on has the options of the listener.
pub(crate) fn tune(socket: &impl AsFd, keepalive: Keepalive) {
    let socket = SockRef::from(socket);
    let probes = TcpKeepalive::new()
        .with_time(keepalive.time)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.retries);
    let options = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_user_timeout(keepalive.unacknowledged),
        if keepalive.enabled { socket.set_tcp_keepalive(&probes) } else { socket.set_keepalive(false) },
    ];
    for error in options.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "socket option refused");
    }
}

/// Does so for an accepted connection: one call in place of six, for it has them of its listener, unless it had waited there before
/// the listener was tuned.
pub(crate) fn tune_accepted(stream: &TcpStream, keepalive: Keepalive) {
    if !SockRef::from(stream).tcp_nodelay().unwrap_or(false) {
        tune(stream, keepalive);
    }
}

/// Whether the connection ends with a RST when it is dropped. For as long as a client has proven nothing, what it leaves
/// behind should not occupy the kernel either, which would wait a minute for its goodbye.
pub(crate) fn abort_on_drop(stream: &TcpStream, abort: bool) {
    // Without the option the close is a close in good order.
    let _ = SockRef::from(stream).set_linger(abort.then_some(Duration::ZERO));
}

/// Ends a connection so that the peer gets to read what was written last. To close it with unread input
/// would make the kernel send a RST, and that overtakes everything.
pub(crate) async fn part(stream: TcpStream) {
    if SockRef::from(&stream).shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut scratch = [0; 1024];
    let drained = async {
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut scratch) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // A peer that goes on sending has had its chance to listen.
    let _ = timeout(PARTING, drained).await;
}

/// Ports that are borrowed of a client before a connection to the application fails.
const PORTS: usize = 6;

/// A socket that is being connected.
pub(crate) struct Dialling {
    socket: Socket,
    own: SocketAddr,
    link: Link,
}

impl Dialling {
    /// Its own end.
    pub(crate) fn own(&self) -> SocketAddr {
        canonical(self.own)
    }
}

/// How sockets are connected: within which limit, and tuned how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialer {
    pub(crate) limit: Duration,
    pub(crate) keepalive: Keepalive,
    /// Whether applications see the client's address as their peer's.
    pub(crate) original_source: bool,
}

impl Dialer {
    /// Connects from inside the pod to somewhere on the network.
    pub(crate) async fn to_network(
        self,
        served: &Served,
        destination: SocketAddr,
    ) -> Result<(TcpStream, Link), ConnectError> {
        let socket = served.pod.sockets.to_network(destination)?;
        self.connect(served, socket, destination).await
    }

    /// Connects to the pod's own application in the name of `client`, or in the pod's own.
    pub(crate) async fn to_app(
        self,
        served: &Served,
        client: SocketAddr,
        destination: SocketAddr,
    ) -> Result<(TcpStream, Link), ConnectError> {
        // A pod that reaches itself needs no borrowed address, and could not borrow its own.
        if client.ip() == destination.ip() || !self.original_source {
            return self.to_network(served, destination).await;
        }
        let mut attempt = 0;
        loop {
            let socket = served.pod.sockets.to_app(client, destination, attempt)?;
            attempt += 1;
            match self.connect(served, socket, destination).await {
                // The port that was borrowed is taken, in the client's name.
                Err(ConnectError::Io(error))
                    if error.kind() == ErrorKind::AddrNotAvailable && attempt < PORTS => {}
                outcome => return outcome,
            }
        }
    }

    async fn connect(
        self,
        served: &Served,
        socket: Socket,
        destination: SocketAddr,
    ) -> Result<(TcpStream, Link), ConnectError> {
        self.finish(self.begin(served, socket, destination)?).await
    }

    /// Begins to connect a socket, without waiting for anything.
    pub(crate) fn begin(
        self,
        served: &Served,
        socket: Socket,
        destination: SocketAddr,
    ) -> Result<Dialling, ConnectError> {
        const EINPROGRESS: i32 = 115;
        match socket.connect(&served.pod.sockets.locate(destination).into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        // From here on the other end may accept, and may turn out to be ourselves.
        let own =
            socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable).map_err(io::Error::from)?;
        Ok(Dialling { socket, own, link: served.gate.dialled_from(own, destination) })
    }

    /// Waits, within the limit, until the other end has accepted.
    pub(crate) async fn finish(self, dialling: Dialling) -> Result<(TcpStream, Link), ConnectError> {
        let Dialling { socket, link, .. } = dialling;
        let stream = TcpStream::from_std(socket.into())?;
        timeout(self.limit, stream.writable()).await.map_err(|_| ConnectError::Timeout(self.limit))??;
        if let Some(error) = stream.take_error()? {
            return Err(error.into());
        }
        tune(&stream, self.keepalive);
        Ok((stream, link))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_option_is_set_and_none_that_is_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, _accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let stream = stream.unwrap();
        let socket = SockRef::from(&stream);
        let off = Keepalive { enabled: false, unacknowledged: None, ..Keepalive::default() };
        tune(&stream, off);
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        tune(&stream, Keepalive { retries: 4, ..Keepalive::default() });
        let (time, interval) =
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(
            (time.as_secs(), interval.as_secs(), socket.tcp_keepalive_retries().unwrap()),
            (180, 180, 4)
        );
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(900)));
    }

    #[tokio::test]
    async fn what_is_accepted_has_the_options_of_its_listener_or_gets_them() {
        let keepalive = Keepalive { retries: 4, ..Keepalive::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for is_tuned in [false, true] {
            let (_stream, accepted) =
                tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
            let accepted = accepted.unwrap().0;
            let socket = SockRef::from(&accepted);
            assert_eq!((socket.tcp_nodelay().unwrap(), socket.keepalive().unwrap()), (is_tuned, is_tuned));
            tune_accepted(&accepted, keepalive);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(
                (socket.tcp_keepalive_time().unwrap().as_secs(), socket.tcp_keepalive_retries().unwrap()),
                (180, 4)
            );
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(900)));
            tune(&listener, keepalive);
        }
    }
}
