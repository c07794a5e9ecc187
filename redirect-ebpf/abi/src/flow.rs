//! Connections and sockets that capture leaves alone.

use crate::PodAddress;

/// Why a socket is left alone: the value in its socket-local storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exemption {
    /// The agent's own, towards the network.
    Agent = 1,
    /// The kubelet's, towards a pod.
    Probe = 2,
    /// The agent's own; the process that connects it is the agent, whose other sockets are left alone from now on.
    Enlist = 3,
    /// Made by the agent, and yet captured as an application's: that is how capture is proven.
    Nobody = 4,
}

/// A connection to a pod, by its addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Flow {
    client: PodAddress,
    pod: PodAddress,
    client_port: u16,
    pod_port: u16,
}

const _: () = assert!(core::mem::size_of::<Flow>() == 36);

impl Flow {
    /// Ports in host order.
    #[inline(always)]
    pub const fn new(client: PodAddress, client_port: u16, pod: PodAddress, pod_port: u16) -> Self {
        Self { client, pod, client_port, pod_port }
    }
}
