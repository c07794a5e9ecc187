//! A listener whose connections can be given to any thread.
//!
//! Tokio's own accepts into the poller of the thread that accepts. Who serves elsewhere takes the connection out of that poller and
//! enters it into another: two system calls more for each. Here it is entered nowhere yet.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

/// A listener that the current runtime waits for.
#[derive(Debug)]
pub struct Acceptor(AsyncFd<TcpListener>);

impl Acceptor {
    /// Has the current runtime wait for connections of a listener that does not block.
    ///
    /// # Errors
    /// Whatever epoll_ctl(2) has against it, and the listener, which is as good as before.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(listener: TcpListener) -> Result<Self, (TcpListener, io::Error)> {
        // SAFETY: a listener has one descriptor, which is open until it is dropped; nothing here replaces or closes it.
        let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(listener.map_err(AsyncFdRegisterError::into_parts)?))
    }

    /// The listener, for which the runtime waits no more.
    #[must_use]
    pub fn into_inner(self) -> TcpListener {
        self.0.into_inner()
    }

    /// The next connection, which does not block, and its peer. Nothing is lost when this is dropped before it is done.
    ///
    /// # Errors
    /// As accept(2): also what has become of the connection meanwhile, after which the next may be asked for.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, take).await
    }

    /// The next connection if one stands in the queue. The runtime need not know of it yet.
    ///
    /// # Errors
    /// As [`Self::accept`]; [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        take(self.0.get_ref())
    }
}

fn take(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn connections_come_in_order_and_do_not_block() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let to = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener).unwrap();
        assert_eq!(acceptor.try_accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        for _ in 0..3 {
            let waiting = acceptor.accept();
            let coming = async { (0..2).map(|_| TcpStream::connect(to).unwrap()).collect::<Vec<_>>() };
            let limit = Duration::from_secs(30);
            let (first, clients) = timeout(limit, async { tokio::join!(waiting, coming) }).await.unwrap();
            let second = acceptor.try_accept();
            for (accepted, client) in [first, second].into_iter().zip(&clients) {
                let (mut stream, peer) = accepted.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        }
        let again = Acceptor::new(acceptor.into_inner()).unwrap();
        let _client = TcpStream::connect(to).unwrap();
        timeout(Duration::from_secs(30), again.accept()).await.unwrap().unwrap();
        drop(again);
        assert_eq!(TcpStream::connect(to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
