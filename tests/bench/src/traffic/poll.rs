//! Waiting for many sockets at once: a thin cover of epoll(7), level-triggered, with the caller's numbers.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Events that are taken at once.
const EVENTS: usize = 256;

/// What is waited for.
pub(super) struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

/// Something that happened to a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) number: u64,
    pub(super) writable: bool,
}

impl Poll {
    pub(super) fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll_create1")?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS] })
    }

    /// Waits for a socket to be readable, and writable too if that is `wanted`.
    pub(super) fn add(&self, socket: impl AsFd, number: u64, writable: bool) -> Result<()> {
        self.epoll.add(socket, EpollEvent::new(flags(writable), number)).context("epoll_ctl: add")
    }

    /// Changes whether it is waited for to be writable.
    pub(super) fn change(&self, socket: impl AsFd, number: u64, writable: bool) -> Result<()> {
        self.epoll.modify(socket, &mut EpollEvent::new(flags(writable), number)).context("epoll_ctl: modify")
    }

    /// What has happened, for `millis` at most.
    pub(super) fn wait(&mut self, millis: u16, into: &mut Vec<Event>) -> Result<()> {
        into.clear();
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::from(millis)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context("epoll_wait"),
        };
        let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        into.extend(self.events.iter().take(count).map(|event| Event {
            number: event.data(),
            // What is broken is found by whoever writes or reads next.
            writable: event.events().intersects(EpollFlags::EPOLLOUT | broken),
        }));
        Ok(())
    }
}

fn flags(writable: bool) -> EpollFlags {
    if writable { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
}
