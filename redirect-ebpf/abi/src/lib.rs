//! What the eBPF programs and their loader must agree on: names, keys, values, marks.
//!
//! Everything here is part of the pinned layout. A change of a map's key or value needs a new [`LAYOUT`], so that an
//! agent never adopts maps of another shape.

#![no_std]
#![forbid(unsafe_code)]

mod decision;
mod dns;
mod event;
mod flow;
mod guard;
mod row;

pub use decision::{Decision, DecisionKey, Steering};
pub use dns::{
    DNS_PORT, DNS_PREFIX_V6, DNS_PREFIX_V6_LENGTH, RESOLVERS_PER_POD, ResolverKey, dns_address, dns_slot,
};
pub use event::{EVENT_BYTES, EVENTS_PER_SECOND, Event};
pub use flow::{Exemption, Flow};
pub use guard::{Guarded, Seen};
pub use row::{AddressKey, Row, settings};

/// Version of the pinned layout; it is a part of the path in the BPF file system.
pub const LAYOUT: &str = "v1";

/// The bits of a socket's mark that capture uses. The others stay the application's own.
pub const MARK_MASK: u32 = 0x0fff;

/// Mark of a connection whose packets are to be delivered to the agent. It is none of the values that istio-cni (`0x539`,
/// `0x111`) gives a meaning within the same bits.
pub const CAPTURE_MARK: u32 = 0x0c17;

/// Routing table of a pod's namespace in which every destination is local.
pub const ROUTE_TABLE: u32 = 0x0c17;

/// Preference of the rule that sends marked packets to [`ROUTE_TABLE`]: after the kernel's own `local` table (0), before
/// whatever a VPN client in the pod adds.
pub const RULE_PRIORITY: u32 = 32;

/// Index of the loopback interface, the same in every namespace (`LOOPBACK_IFINDEX` of `net/flow.h`).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Port of the tunnel between nodes (HBONE).
pub const HBONE_PORT: u16 = 15008;

/// Rows of the map of enrolled namespaces: more pods than a node can hold, by a factor of four at least. Maps set aside eight bytes for each row
/// that they may have, so twice as many would cost each node 0.8 MiB.
pub const MAX_PODS: u32 = 2048;

/// Addresses of one pod.
pub const MAX_ADDRESSES: u32 = 64;

/// Interfaces of one pod whose traffic counts as the application's.
pub const MAX_ENTRANCES: u32 = 4;

/// Processes that are known as kubelets: one, and the next one while the first ends.
pub const MAX_PROBERS: u32 = 16;

/// Connections of the kubelet that are remembered; each is looked up once, right after it was noted.
pub const MAX_FLOWS: u32 = 8192;

/// Rows of the map of all pods' addresses.
pub const MAX_ALL_ADDRESSES: u32 = MAX_PODS * 8;

/// Rows of the map of resolvers.
pub const MAX_RESOLVERS: u32 = MAX_PODS * RESOLVERS_PER_POD;

/// Rows of the map of decisions.
pub const MAX_DECISIONS: u32 = MAX_PODS * Decision::ALL.len() as u32;

/// Names of the maps in the object files.
pub mod map {
    /// Namespace cookie of each enrolled pod.
    pub const ENROLLED: &str = "ENROLLED";
    /// Sockets that are left alone whoever connects them (socket-local storage).
    pub const EXEMPT: &str = "EXEMPT";
    /// The agent's process.
    pub const AGENT: &str = "AGENT";
    /// The agent's outbound listener in each pod, by namespace cookie: there only while the agent lives.
    pub const AGENTS: &str = "AGENTS";
    /// The addresses of all enrolled pods.
    pub const OWN: &str = "OWN";
    /// Processes whose connections to pods are probes.
    pub const PROBERS: &str = "PROBERS";
    /// Connections of those processes.
    pub const PROBES: &str = "PROBES";
    /// The resolvers that a pod has asked, by slot.
    pub const RESOLVERS: &str = "RESOLVERS";
    /// How often which decision was taken for which pod.
    pub const DECISIONS: &str = "DECISIONS";
    /// Decisions worth knowing, as they are taken.
    pub const EVENTS: &str = "EVENTS";
    /// How often `steer` of one pod took which decision.
    pub const STEERED: &str = "STEERED";
    /// Settings of one pod.
    pub const SETTINGS: &str = "SETTINGS";
    /// The agent's listeners in one pod, by [`super::Direction::index`].
    pub const LISTENERS: &str = "LISTENERS";
    /// The addresses of one pod.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Marks sockets of guarded pods whose connection was captured (socket-local storage).
    pub const CAPTURED: &str = "CAPTURED";
    /// How often the egress guard of one pod dropped what.
    pub const GUARDED: &str = "GUARDED";
    /// Where the packet was to go that the egress guard of one pod dropped last.
    pub const SEEN: &str = "SEEN";
}

/// Names of the programs in the object files.
pub mod program {
    /// cgroup/connect4, once a node.
    pub const CONNECT4: &str = "connect4";
    /// cgroup/connect6, once a node.
    pub const CONNECT6: &str = "connect6";
    /// cgroup/sendmsg4, once a node.
    pub const SENDMSG4: &str = "sendmsg4";
    /// cgroup/sendmsg6, once a node.
    pub const SENDMSG6: &str = "sendmsg6";
    /// cgroup/recvmsg4, once a node.
    pub const RECVMSG4: &str = "recvmsg4";
    /// cgroup/recvmsg6, once a node.
    pub const RECVMSG6: &str = "recvmsg6";
    /// cgroup/getpeername4, once a node.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// cgroup/getpeername6, once a node.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// sockops, once a node.
    pub const PROBES: &str = "probes";
    /// sk_lookup, once a pod.
    pub const STEER: &str = "steer";
    /// Classifier on the way out, for interfaces whose packets begin with an Ethernet header.
    pub const GUARD_ETHERNET: &str = "guard_ethernet";
    /// Classifier on the way out, for interfaces whose packets begin with an IP header.
    pub const GUARD_IP: &str = "guard_ip";
    /// cgroup/setsockopt, once a node whose pods are guarded.
    pub const FENCE: &str = "fence";
}

/// Where a captured connection is handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the pod's applications to anywhere.
    Outbound,
    /// From elsewhere to the pod, in the tunnel.
    Hbone,
    /// From elsewhere to the pod, as it is.
    Plaintext,
}

/// Slots of the map of listeners: one a direction, for both families.
pub const LISTENERS: u32 = 3;

impl Direction {
    /// The slot of its listener in the map of listeners.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Outbound => 0,
            Self::Hbone => 1,
            Self::Plaintext => 2,
        }
    }
}

/// An address of a pod as a map key: the four words of an IPv6 address, each in network order as the kernel's contexts hold
/// them; an IPv4 address is mapped into IPv6 (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PodAddress([u32; 4]);

const _: () = assert!(core::mem::size_of::<PodAddress>() == 16);

impl PodAddress {
    /// Of the words of an IPv6 address, each in network order.
    #[inline(always)]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Of an IPv4 address in network order.
    #[inline(always)]
    pub const fn from_v4(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// The words, each in network order.
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// 0.0.0.0 or ::, which a connect(2) takes for the local host.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        let [a, b, c, d] = self.0;
        a == 0 && b == 0 && (c == 0 || c == 0xffff_u32.to_be()) && d == 0
    }

    /// fe80::/10.
    #[inline(always)]
    pub const fn is_link_local_v6(self) -> bool {
        let [a, _, _, _] = self.0;
        u32::from_be(a) >> 22 == 0xfe80_0000 >> 22
    }

    /// An IPv4 address, as such or mapped.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, _] = self.0;
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// 127.0.0.0/8 in either form, or ::1.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        let [a, b, c, d] = self.0;
        let d = u32::from_be(d);
        a == 0 && b == 0 && ((c == 0xffff_u32.to_be() && d >> 24 == 127) || (c == 0 && d == 1))
    }
}

impl From<PodAddress> for core::net::IpAddr {
    fn from(address: PodAddress) -> Self {
        let bits =
            address.words().into_iter().fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(word)));
        Self::V6(bits.into()).to_canonical()
    }
}

impl From<core::net::IpAddr> for PodAddress {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::from_v4(u32::from(v4).to_be()),
            core::net::IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                let word = |shift: u32| ((bits >> shift) as u32).to_be();
                Self([word(96), word(64), word(32), word(0)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_has_a_slot_of_its_own() {
        let mut seen = [false; LISTENERS as usize];
        for direction in [Direction::Outbound, Direction::Hbone, Direction::Plaintext] {
            let slot = &mut seen[direction.index() as usize];
            assert!(!*slot);
            *slot = true;
        }
        assert!(seen.iter().all(|s| *s));
    }

    #[test]
    fn loopback_in_every_form() {
        let address = |text: &str| PodAddress::from(text.parse::<core::net::IpAddr>().unwrap());
        for text in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(address(text).is_loopback(), "{text}");
        }
        for text in ["10.0.0.127", "::", "::ffff:10.0.0.1", "fd00::1", "1::1"] {
            assert!(!address(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn unspecified_in_every_form() {
        let address = |text: &str| PodAddress::from(text.parse::<core::net::IpAddr>().unwrap());
        assert!(["0.0.0.0", "::", "::ffff:0.0.0.0"].iter().all(|text| address(text).is_unspecified()));
        assert!(!["0.0.0.1", "::1", "1::"].iter().any(|text| address(text).is_unspecified()));
    }

    #[test]
    fn link_local_is_its_prefix() {
        let address = |text: &str| PodAddress::from(text.parse::<core::net::IpAddr>().unwrap());
        assert!(address("fe80::1").is_link_local_v6() && address("febf::1").is_link_local_v6());
        assert!(!address("fec0::1").is_link_local_v6() && !address("fd00::1").is_link_local_v6());
        assert!(!address("169.254.1.1").is_link_local_v6());
    }

    #[test]
    fn both_forms_of_an_ipv4_address_are_one_key() {
        let v4 = PodAddress::from(core::net::IpAddr::V4([10, 1, 2, 3].into()));
        let mapped =
            PodAddress::from(core::net::IpAddr::V6(core::net::Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped()));
        assert_eq!(v4, mapped);
        assert_eq!(v4, PodAddress::from_v4(u32::from_ne_bytes([10, 1, 2, 3])));
        for text in ["10.1.2.3", "2001:db8::1:2", "::1"] {
            let address: core::net::IpAddr = text.parse().unwrap();
            assert_eq!(core::net::IpAddr::from(PodAddress::from(address)), address);
        }
    }
}
