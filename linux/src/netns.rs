//! Network namespaces: opening one by path, telling two apart, running code inside one.
//!
//! Invariant: a thread that entered a namespace leaves it before it does anything else, also when the code
//! inside panics. If a thread cannot return to its own namespace, the process aborts: going on would make
//! sockets of one pod in another pod's network.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::sockopt;

/// Magic number of nsfs, the file system of namespace files (`linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// `NS_GET_NSTYPE` of `ioctl_ns(2)`: asks a namespace descriptor what kind it is (Linux 4.11).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

thread_local! {
    /// Where this thread is while it is inside of no other namespace.
    static HOME: OnceCell<Rc<Netns>> = const { OnceCell::new() };
    /// How many namespaces this thread has entered and not left.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// What went wrong with a namespace.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("network namespace {path} cannot be opened: {source}; is the pod still there?")]
    Open {
        /// Path as given.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The descriptor is no namespace, or one of another kind.
    #[error("{what} is not a network namespace; pass a file such as /run/netns/NAME or /proc/PID/ns/net")]
    NotANetns {
        /// What was opened.
        what: String,
    },
    /// A call on the namespace failed.
    #[error("{operation} of a network namespace failed: {source}")]
    Call {
        /// The system call.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// Tells namespaces apart while they live: the device and inode of their nsfs file.
///
/// An inode number can be used again once the namespace is gone; [`Netns::cookie`] cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of nsfs.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// An open network namespace. It stays alive as long as this does.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at `path` (a bind mount such as `/run/netns/x`, or `/proc/PID/ns/net`).
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let open = |source| NetnsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open)?;
        // Anything but nsfs (a plain file left behind by an unmounted `ip netns`) is told by name.
        let fs = nix::sys::statfs::fstatfs(&file).map_err(|e| open(e.into()))?;
        if fs.filesystem_type().0 != NSFS_MAGIC {
            return Err(NetnsError::NotANetns { what: path.display().to_string() });
        }
        Self::from_fd(file.into())
    }

    /// A new namespace, with nothing in it but lo; it goes with its last handle.
    pub fn create() -> Result<Self, NetnsError> {
        let call = |source| NetnsError::Call { operation: "unshare", source };
        // On a thread of its own, which ends in there.
        let made = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| call(errno.into()))?;
                Self::current()
            })
            .map_err(call)?;
        made.join().map_err(|_| call(io::Error::other("the thread panicked")))?
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Takes over a descriptor that somebody passed on.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetnsError> {
        let call = |operation| move |source| NetnsError::Call { operation, source };
        // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory; the descriptor is open.
        let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(NetnsError::NotANetns { what: format!("descriptor {}", fd.as_raw_fd()) });
        }
        let metadata = File::from(fd.try_clone().map_err(call("dup"))?).metadata().map_err(call("fstat"))?;
        Ok(Self { fd, id: NetnsId { device: metadata.dev(), inode: metadata.ino() } })
    }

    /// Identity of the namespace while it lives.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Another handle of the same namespace.
    pub fn try_clone(&self) -> Result<Self, NetnsError> {
        let fd = self.fd.try_clone().map_err(|source| NetnsError::Call { operation: "dup", source })?;
        Ok(Self { fd, id: self.id })
    }

    /// The kernel's number for this namespace, never used twice since boot (`SO_NETNS_COOKIE`, Linux 5.14).
    pub fn cookie(&self) -> Result<u64, NetnsError> {
        self.run(|| {
            let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
            sockopt::netns_cookie(&socket)
        })?
        .map_err(|source| NetnsError::Call { operation: "getsockopt(SO_NETNS_COOKIE)", source })
    }

    /// Runs `inside` with the calling thread in this namespace, then returns to where the thread was.
    ///
    /// `inside` must not wait for long: nothing else runs on the thread meanwhile.
    pub fn run<T>(&self, inside: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let guard = self.enter()?;
        let value = inside();
        drop(guard);
        Ok(value)
    }

    /// Moves the calling thread into this namespace until the guard is dropped.
    pub fn enter(&self) -> Result<NetnsGuard, NetnsError> {
        let origin = Self::origin()?;
        if origin.id == self.id {
            return Ok(NetnsGuard { origin: None, not_send: PhantomData });
        }
        setns(&self.fd, CloneFlags::CLONE_NEWNET)
            .map_err(|e| NetnsError::Call { operation: "setns", source: e.into() })?;
        DEPTH.set(DEPTH.get() + 1);
        Ok(NetnsGuard { origin: Some(origin), not_send: PhantomData })
    }

    /// The namespace that the calling thread is in, to be returned to.
    fn origin() -> Result<Rc<Self>, NetnsError> {
        if DEPTH.get() > 0 {
            return Ok(Rc::new(Self::current()?));
        }
        if let Some(home) = HOME.with(|home| home.get().cloned()) {
            return Ok(home);
        }
        let found = Rc::new(Self::current()?);
        Ok(HOME.with(|home| Rc::clone(home.get_or_init(|| found))))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Keeps the thread in a namespace; dropping it returns the thread to where it was.
///
/// Not `Send`: the namespace belongs to the thread.
#[derive(Debug)]
pub struct NetnsGuard {
    origin: Option<Rc<Netns>>,
    not_send: PhantomData<*const ()>,
}

impl Drop for NetnsGuard {
    fn drop(&mut self) {
        let Some(origin) = &self.origin else { return };
        if setns(&origin.fd, CloneFlags::CLONE_NEWNET).is_err() {
            // No thread may run on in a namespace that is not its own: its next socket would be another pod's.
            std::process::abort();
        }
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespace_opens_and_is_itself() {
        let a = Netns::current().unwrap();
        let b = Netns::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(a.id(), b.id());
        assert_eq!(a.cookie().unwrap(), b.cookie().unwrap());
        assert_ne!(a.cookie().unwrap(), 0);
    }

    #[test]
    fn a_plain_file_is_named() {
        let error = Netns::open(Path::new("/proc/self/status")).unwrap_err();
        assert!(error.to_string().contains("/proc/self/status is not a network namespace"), "{error}");
        let error = Netns::open(Path::new("/run/netns/culvert-no-such")).unwrap_err();
        assert!(error.to_string().contains("cannot be opened"), "{error}");
    }

    #[test]
    fn another_kind_of_namespace_is_refused() {
        let error = Netns::open(Path::new("/proc/self/ns/uts")).unwrap_err();
        assert!(matches!(error, NetnsError::NotANetns { .. }), "{error}");
    }

    #[test]
    fn a_thread_enters_and_returns_also_after_a_panic() {
        let home = Netns::current().unwrap().id();
        let other = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Netns::current().unwrap()
        })
        .join()
        .unwrap();
        assert_ne!(other.id(), home);
        assert_eq!(other.run(|| Netns::current().unwrap().id()).unwrap(), other.id());
        assert_eq!(Netns::current().unwrap().id(), home);
        let innermost = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Netns::current().unwrap()
        })
        .join()
        .unwrap();
        let (inside, after) = other
            .run(|| {
                let inside = innermost.run(|| Netns::current().unwrap().id()).unwrap();
                (inside, Netns::current().unwrap().id())
            })
            .unwrap();
        assert_eq!((inside, after), (innermost.id(), other.id()));
        assert_eq!(Netns::current().unwrap().id(), home);
        let caught = std::panic::catch_unwind(|| other.run(|| panic!("inside")));
        assert!(caught.is_err());
        assert_eq!(Netns::current().unwrap().id(), home);
    }
}
