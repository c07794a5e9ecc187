//! What the programs know of an enrolled pod.

use crate::PodAddress;

/// The row of a pod in the map of enrolled namespaces: one word, so that it is replaced at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Row(u32);

const _: () = assert!(core::mem::size_of::<Row>() == 4);

impl Row {
    /// Of a pod whose DNS queries go to the agent's socket at `dns_port` of its loopback interface; 0 leaves them alone.
    pub const fn new(dns_port: u16) -> Self {
        Self(dns_port as u32)
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

/// Bits of the settings of one pod, which its `steer` reads.
pub mod settings {
    /// What is not in the tunnel goes to the application as it comes.
    pub const BYPASS_INBOUND: u32 = 1;
}
