//! What the connect programs tell of a decision: one record in a ring buffer.

use crate::{Decision, PodAddress};

/// Events that one CPU may write in a second; counters go on counting beyond that.
pub const EVENTS_PER_SECOND: u64 = 100;

/// Bytes of the ring buffer.
pub const EVENT_BYTES: u32 = 64 * 1024;

/// A decision on a connect(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    cookie: u64,
    destination: PodAddress,
    process: u32,
    decision: u32,
    port: u16,
    pad: [u16; 3],
}

const _: () = assert!(core::mem::size_of::<Event>() == 40);

impl Event {
    /// Of a process (its id as the host sees it) in the pod with this namespace cookie; the port in host order.
    #[inline(always)]
    pub const fn new(
        cookie: u64,
        process: u32,
        decision: Decision,
        destination: PodAddress,
        port: u16,
    ) -> Self {
        Self { cookie, destination, process, decision: decision as u32, port, pad: [0; 3] }
    }

    /// Reads one as the kernel hands it over; nothing where it is none of this layout.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.len() < core::mem::size_of::<Self>() {
            return None;
        }
        Some(Self {
            cookie: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
            destination: PodAddress::from_v6([word(8)?, word(12)?, word(16)?, word(20)?]),
            process: word(24)?,
            decision: word(28)?,
            port: u16::from_ne_bytes(bytes.get(32..34)?.try_into().ok()?),
            pad: [0; 3],
        })
    }

    /// The pod's namespace cookie.
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The process that called, as the host sees it.
    pub const fn process(&self) -> u32 {
        self.process
    }

    /// What was decided.
    pub fn decision(&self) -> Option<Decision> {
        Decision::ALL.get(self.decision as usize).copied()
    }

    /// Where the connection was to go, and the port.
    pub fn destination(&self) -> (PodAddress, u16) {
        (self.destination, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_event_and_an_unknown_decision_none() {
        assert_eq!(Event::decode(&[0; 39]), None);
        let event = Event::decode(&[0xff; 40]).unwrap();
        assert_eq!((event.decision(), event.process(), event.cookie()), (None, u32::MAX, u64::MAX));
        let mut bytes = [0; 40];
        bytes[28..32].copy_from_slice(&(Decision::RefusedLinkLocal as u32).to_ne_bytes());
        bytes[32..34].copy_from_slice(&443_u16.to_ne_bytes());
        let event = Event::decode(&bytes).unwrap();
        assert_eq!((event.decision(), event.destination().1), (Some(Decision::RefusedLinkLocal), 443));
    }
}
