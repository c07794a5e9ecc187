//! What the egress guard of a pod drops, for counters and for whoever asks.

use crate::PodAddress;

/// Why the guard dropped a packet that was about to leave the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Guarded {
    /// TCP that comes from no TCP socket of the pod: written by a raw or packet socket, or forwarded.
    Handwritten = 0,
    /// A TCP socket of the pod opens a connection that capture has not seen.
    Uncaptured = 1,
    /// A captured connection leaves by another interface than lo.
    Strayed = 2,
}

impl Guarded {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Handwritten, Self::Uncaptured, Self::Strayed];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handwritten => "guard_dropped_handwritten",
            Self::Uncaptured => "guard_dropped_uncaptured",
            Self::Strayed => "guard_dropped_strayed",
        }
    }
}

/// Where the packet that was dropped last was to go. Two processors that drop at once may mix theirs: it is a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    destination: PodAddress,
    port: u32,
}

const _: () = assert!(core::mem::size_of::<Seen>() == 20);

impl Seen {
    /// The port in host order, 0 where it is not known.
    #[inline(always)]
    pub const fn new(destination: PodAddress, port: u16) -> Self {
        Self { destination, port: port as u32 }
    }

    /// The address and the port.
    pub const fn destination(self) -> (PodAddress, u16) {
        (self.destination, self.port as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        assert!(Guarded::ALL.iter().enumerate().all(|(place, why)| place == *why as usize));
    }
}
