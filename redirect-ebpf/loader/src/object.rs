//! The eBPF objects, embedded in the binary.

/// The programs of a node: connect4, connect6.
pub(crate) static NODE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/node.o"));

/// The program of a pod: steer.
pub(crate) static POD: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod.o"));

/// The egress guard of a pod: guard_ethernet, guard_ip.
pub(crate) static GUARD: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard.o"));
