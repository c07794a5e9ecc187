//! What the programs know of an enrolled pod.

use crate::PodAddress;

/// The row of a pod in the map of enrolled namespaces: one word, so that it is replaced at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Row(u32);

const _: () = assert!(core::mem::size_of::<Row>() == 4);

/// Beyond the bits of the DNS port.
const GUARDED: u32 = 1 << 16;

impl Row {
    /// Of a pod whose DNS queries go to the agent's socket at `dns_port` of its loopback interface; 0 leaves them alone.
    pub const fn new(dns_port: u16) -> Self {
        Self(dns_port as u32)
    }

    /// The same of a pod whose egress is guarded, if it is.
    pub const fn guarded(self, guarded: bool) -> Self {
        if guarded { Self(self.0 | GUARDED) } else { self }
    }

    /// Whether the egress guard must know which sockets are captured.
    #[inline(always)]
    pub const fn is_guarded(self) -> bool {
        self.0 & GUARDED != 0
    }

    /// Where DNS queries go.
    #[inline(always)]
    pub const fn dns_port(self) -> Option<u16> {
        match self.0 as u16 {
            0 => None,
            port => Some(port),
        }
    }
}

/// An address of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AddressKey {
    cookie: u64,
    address: PodAddress,
}

const _: () = assert!(core::mem::size_of::<AddressKey>() == 24);

impl AddressKey {
    /// Of the pod with this namespace cookie.
    #[inline(always)]
    pub const fn new(cookie: u64, address: PodAddress) -> Self {
        Self { cookie, address }
    }

    /// The pod's namespace cookie.
    pub const fn cookie(self) -> u64 {
        self.cookie
    }
}

/// The settings of one pod, which its `steer` reads: a word of bits, and after it the numbers of the interfaces whose traffic counts
/// as the application's ([`crate::MAX_ENTRANCES`]; 0 for none).
pub mod settings {
    /// Words.
    pub const WORDS: u32 = 1 + crate::MAX_ENTRANCES;
    /// Where the interfaces begin.
    pub const ENTRANCES: u32 = 1;
    /// What is not in the tunnel goes to the application as it comes.
    pub const BYPASS_INBOUND: u32 = 1;
    /// There may be such interfaces.
    pub const HAS_ENTRANCES: u32 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_port_and_guard_apart() {
        for port in [0, 53, u16::MAX] {
            for guarded in [false, true] {
                let row = Row::new(port).guarded(guarded);
                assert_eq!((row.dns_port().unwrap_or(0), row.is_guarded()), (port, guarded));
            }
        }
    }
}
