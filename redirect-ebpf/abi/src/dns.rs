//! How a query's resolver is told by the address that the query is sent to.

use crate::PodAddress;

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// Resolvers that one pod may have asked; what it asks beyond them is left alone.
pub const RESOLVERS_PER_POD: u32 = 8;

/// The IPv6 addresses by which queries reach the agent: a prefix that is local to the pod (RFC 4193, with a global id of
/// ours), for IPv6 has only one loopback address.
pub const DNS_PREFIX_V6: [u16; 8] = [0xfd63, 0x756c, 0x7665, 0x7274, 0, 0, 0, 0];

/// Length of that prefix.
pub const DNS_PREFIX_V6_LENGTH: u8 = 112;

/// The IPv4 addresses by which queries reach the agent: 127.83.0.0 and up.
const DNS_BASE_V4: u32 = 0x7f53_0000;

/// A resolver's place among those of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ResolverKey {
    cookie: u64,
    slot: u32,
    pad: u32,
}

const _: () = assert!(core::mem::size_of::<ResolverKey>() == 16);

impl ResolverKey {
    /// Of the pod with this namespace cookie.
    #[inline(always)]
    pub const fn new(cookie: u64, slot: u32) -> Self {
        Self { cookie, slot, pad: 0 }
    }
}

/// Where a query goes that is for the resolver in this slot.
#[inline(always)]
pub const fn dns_address(v4: bool, slot: u32) -> PodAddress {
    if v4 { PodAddress::from_v4((DNS_BASE_V4 + slot).to_be()) } else { PodAddress::from_v6(v6(slot)) }
}

/// The slot of an address that [`dns_address`] made.
#[inline(always)]
pub const fn dns_slot(address: PodAddress) -> Option<u32> {
    let [a, b, c, d] = address.words();
    let [pa, pb, pc, _] = v6(0);
    let d = u32::from_be(d);
    let slot = if address.is_v4() {
        d.wrapping_sub(DNS_BASE_V4)
    } else if a == pa && b == pb && c == pc {
        d
    } else {
        return None;
    };
    if slot < RESOLVERS_PER_POD { Some(slot) } else { None }
}

#[inline(always)]
const fn v6(slot: u32) -> [u32; 4] {
    let [a, b, c, d, ..] = DNS_PREFIX_V6;
    [word(a, b), word(c, d), 0, slot.to_be()]
}

#[inline(always)]
const fn word(high: u16, low: u16) -> u32 {
    ((high as u32) << 16 | low as u32).to_be()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_the_way_there_and_back() {
        for v4 in [true, false] {
            for slot in 0..RESOLVERS_PER_POD {
                let address = dns_address(v4, slot);
                assert_eq!((dns_slot(address), address.is_v4()), (Some(slot), v4));
            }
            assert_eq!(dns_slot(dns_address(v4, RESOLVERS_PER_POD)), None);
        }
        let text = |text: &str| PodAddress::from(text.parse::<core::net::IpAddr>().unwrap());
        assert_eq!(dns_address(true, 3), text("127.83.0.3"));
        assert_eq!(dns_address(false, 3), text("fd63:756c:7665:7274::3"));
        for other in ["127.0.0.1", "10.96.0.10", "fd63:756c:7665:7275::1", "::1"] {
            assert_eq!(dns_slot(text(other)), None, "{other}");
        }
    }
}
