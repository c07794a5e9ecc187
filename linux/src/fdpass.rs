//! Messages with descriptors between processes of one machine: `AF_UNIX` `SOCK_SEQPACKET` with `SCM_RIGHTS`.
//!
//! One message is one datagram; a message longer than the receiver's limit is an error, never a prefix. Every wait has
//! the connection's time-out. Descriptors that arrive are owned by the caller at once, so none leaks when a message
//! turns out to be garbage.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, getsockopt, recvmsg, sendmsg,
    sockopt::PeerCredentials,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Descriptors that one message may carry.
const MAX_DESCRIPTORS: usize = 16;
/// Connections the kernel queues before `accept`.
const BACKLOG: i32 = 128;

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
}

impl Connection {
    /// Connects to the socket at `path`; `timeout` bounds this and each later send and receive.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        // A listener whose queue is full makes connect(2) wait, bounded by the send time-out (unix(7)).
        socket.set_write_timeout(Some(timeout))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self { socket })
    }

    /// Takes over a connection that was accepted by other means than [`Listener::accept`].
    pub fn accepted(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        socket.set_nonblocking(false)?;
        Ok(Self { socket })
    }

    /// Bounds each later send and receive.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_write_timeout(Some(timeout))?;
        self.socket.set_read_timeout(Some(timeout))
    }

    /// User, group and process of the other end, as they were when it connected.
    pub fn peer(&self) -> io::Result<UnixCredentials> {
        Ok(getsockopt(&self.socket, PeerCredentials)?)
    }

    /// Sends one message; the descriptors are duplicated into the receiver.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<UnixAddr>(self.socket.as_raw_fd(), &[IoSlice::new(message)], control, flags, None)?;
        Ok(())
    }

    /// Receives one message of at most `max` bytes with the descriptors it carries. An empty message is the end of the
    /// connection.
    pub fn recv(&self, max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = vec![0; max];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut vectors = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut vectors, Some(&mut control), flags)?;
        let (length, received) = (message.bytes, message.flags);
        let mut descriptors = Vec::new();
        // With MSG_CTRUNC the kernel has closed what did not fit; what did fit is still ours to close.
        for item in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = item {
                // SAFETY: recvmsg has just installed these descriptors for us, and nobody else knows their numbers.
                descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if received.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("message longer than {max} bytes"),
            ));
        }
        if received.contains(MsgFlags::MSG_CTRUNC) {
            let what = format!("message with more than {MAX_DESCRIPTORS} descriptors");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        bytes.truncate(length);
        Ok((bytes, descriptors))
    }
}

/// A listening socket in the file system; its file is removed when this is dropped, unless it was left to another process.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    path: Option<PathBuf>,
}

impl Listener {
    /// Binds `path` with permissions `mode`. The file of a dead process is replaced; whoever calls holds the
    /// installation's lock, so a live one is not there.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket, path: Some(path.to_owned()) })
    }

    /// Takes over a listening socket that another process bound at `path`.
    pub fn inherit(descriptor: OwnedFd, path: &Path) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        let is_unix = socket.local_addr()?.is_unix();
        if !is_unix || socket.r#type()? != Type::SEQPACKET || !socket.is_listener()? {
            let what = "the descriptor is no listening AF_UNIX SOCK_SEQPACKET socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Self { socket, path: Some(path.to_owned()) })
    }

    /// Another descriptor of the same socket, to be passed to another process.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// Leaves the file to another process, which listens there with the same socket.
    pub fn leave(&mut self) {
        self.path = None;
    }

    /// Waits for the next connection.
    pub fn accept(&self) -> io::Result<Connection> {
        let (socket, _) = self.socket.accept()?;
        Ok(Connection { socket })
    }

    /// Makes `accept` return `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing to do about a failure: the next start replaces the file.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, Connection, Listener) {
        let path = std::env::temp_dir().join(format!(
            "culvert-fdpass-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let listener = Listener::bind(&path, 0o600).unwrap();
        let a = Connection::connect(&path, Duration::from_secs(5)).unwrap();
        let b = listener.accept().unwrap();
        b.set_timeout(Duration::from_secs(5)).unwrap();
        (a, b, listener)
    }

    #[test]
    fn a_message_brings_its_descriptor() {
        let (a, b, _listener) = pair();
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        a.send(b"hello", &[file.as_fd()]).unwrap();
        let (bytes, descriptors) = b.recv(64).unwrap();
        assert_eq!(bytes, b"hello");
        assert_eq!(descriptors.len(), 1);
        b.send(b"ok", &[]).unwrap();
        assert_eq!(a.recv(64).unwrap().0, b"ok");
        assert_eq!(b.peer().unwrap().pid(), std::process::id() as i32);
    }

    #[test]
    fn a_long_message_is_an_error_and_a_closed_end_is_empty() {
        let (a, b, _listener) = pair();
        a.send(&[7; 65], &[]).unwrap();
        assert_eq!(b.recv(64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert!(b.recv(64).unwrap().0.is_empty());
    }

    #[test]
    fn a_listener_is_handed_over_with_those_who_wait() {
        let (a, b, mut listener) = pair();
        let path = listener.path.clone().unwrap();
        let waiting = Connection::connect(&path, Duration::from_secs(5)).unwrap();
        a.send(b"take it", &[listener.share().unwrap().as_fd()]).unwrap();
        let (_, descriptors) = b.recv(64).unwrap();
        listener.leave();
        drop(listener);
        assert!(Listener::inherit(std::fs::File::open("/dev/null").unwrap().into(), &path).is_err());
        let heir = Listener::inherit(descriptors.into_iter().next().unwrap(), &path).unwrap();
        let served = heir.accept().unwrap();
        served.send(b"hello", &[]).unwrap();
        assert_eq!(waiting.recv(64).unwrap().0, b"hello");
        drop(heir);
        assert!(!path.exists());
    }

    #[test]
    fn a_silent_peer_times_out() {
        let (a, b, _listener) = pair();
        a.set_timeout(Duration::from_millis(20)).unwrap();
        assert_eq!(a.recv(64).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(b);
    }
}
