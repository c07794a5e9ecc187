//! Decisions of the connect programs, as they are taken.

use std::net::{IpAddr, SocketAddr};

use abi::{Decision, Event};
use aya::maps::{Map, MapData, RingBuf};

use crate::error::CaptureError;

/// The ring buffer of decisions.
pub struct Events {
    ring: RingBuf<MapData>,
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The pod's namespace cookie.
    pub cookie: u64,
    /// The process that called, as the host sees it.
    pub process: u32,
    /// Where its connection was to go.
    pub destination: SocketAddr,
    /// What was decided.
    pub decision: Decision,
}

impl Events {
    pub(crate) fn new(map: Map) -> Result<Self, CaptureError> {
        let ring = RingBuf::try_from(map).map_err(CaptureError::map(abi::map::EVENTS))?;
        Ok(Self { ring })
    }

    /// All that are there. What cannot be read is passed over.
    pub fn drain(&mut self) -> Vec<Decided> {
        let mut decided = Vec::new();
        while let Some(item) = self.ring.next() {
            let Some(event) = Event::decode(&item) else { continue };
            let Some(decision) = event.decision() else { continue };
            let (address, port) = event.destination();
            let destination = SocketAddr::new(IpAddr::from(address), port);
            decided.push(Decided { cookie: event.cookie(), process: event.process(), destination, decision });
        }
        decided
    }
}
