//! Reading a packet that no TCP socket sends: is it TCP that opens a connection or carries something?
//!
//! The kernel's word on the protocol is not taken (a packet socket says what it likes), the bytes are read. Whoever writes by
//! hand also cuts by hand: a fragment of TCP, a header that is not whole, more headers than are walked count as TCP with
//! something in it. TCP inside of another protocol (UDP, IP in IP, GRE, ESP, MPLS, PPPoE) is that protocol's.

use core::mem::MaybeUninit;

use abi::{PodAddress, Seen};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_load_bytes;

const ETHERNET_HEADER: u32 = 14;
const ETHERTYPE_AT: u32 = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q and 802.1ad.
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const VLAN_TAG: u32 = 4;
/// Tags that are stepped over.
const TAGS: usize = 2;

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
/// Extension headers that are walked; RFC 8504 section 5.3 lets hosts stop there as well.
const HEADERS: usize = 8;

// Protocol numbers (IANA); the extension headers of IPv6 are among them (RFC 8200 section 4).
const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a frame carries.
enum Network {
    V4(u32),
    V6(u32),
    Other,
    /// More VLAN tags than are stepped over.
    Deep,
}

/// What follows the IP header.
struct Inner {
    /// Protocol of what is next, and where it is.
    next: u8,
    at: u32,
    /// Where the packet ends by its own account.
    end: u32,
    /// It is a part of a datagram.
    is_fragment: bool,
    /// It is a part without the beginning.
    is_later: bool,
}

/// Whether it is TCP that opens a connection or carries something.
#[inline(always)]
pub fn is_tcp_of_nobody<const ETHERNET: bool>(skb: *mut __sk_buff) -> bool {
    let inner = match network::<ETHERNET>(skb) {
        Network::Other => return false,
        Network::Deep => return true,
        Network::V4(at) => v4(skb, at),
        Network::V6(at) => v6(skb, at),
    };
    match inner {
        Some(inner) => walk(skb, inner),
        None => true,
    }
}

/// Where it is to go, as far as that can be read.
#[inline(always)]
pub fn destination<const ETHERNET: bool>(skb: *mut __sk_buff) -> Option<Seen> {
    match network::<ETHERNET>(skb) {
        Network::V4(at) => {
            let address = PodAddress::from_v4(load(skb, at + 16)?);
            let first: u8 = load(skb, at)?;
            Some(Seen::new(address, port(skb, at + u32::from(first & 15) * 4, at + 9)))
        }
        Network::V6(at) => {
            let address = PodAddress::from_v6(load(skb, at + 24)?);
            Some(Seen::new(address, port(skb, at + IPV6_HEADER, at + 6)))
        }
        Network::Other | Network::Deep => None,
    }
}

/// The destination's port, if TCP is right there.
#[inline(always)]
fn port(skb: *mut __sk_buff, tcp: u32, protocol: u32) -> u16 {
    match load::<u8>(skb, protocol) {
        Some(TCP) => u16::from_be(load(skb, tcp + 2).unwrap_or(0)),
        _ => 0,
    }
}

#[inline(always)]
fn network<const ETHERNET: bool>(skb: *mut __sk_buff) -> Network {
    if !ETHERNET {
        return match load::<u8>(skb, 0) {
            Some(first) if first >> 4 == 4 => Network::V4(0),
            Some(first) if first >> 4 == 6 => Network::V6(0),
            _ => Network::Other,
        };
    }
    let mut at = ETHERTYPE_AT;
    for _ in 0..=TAGS {
        let Some(kind) = load::<u16>(skb, at).map(u16::from_be) else { return Network::Other };
        if kind == IPV4 {
            return Network::V4(at + ETHERNET_HEADER - ETHERTYPE_AT);
        }
        if kind == IPV6 {
            return Network::V6(at + ETHERNET_HEADER - ETHERTYPE_AT);
        }
        if kind != VLAN[0] && kind != VLAN[1] {
            return Network::Other;
        }
        at += VLAN_TAG;
    }
    Network::Deep
}

/// RFC 791 section 3.1.
#[inline(always)]
fn v4(skb: *mut __sk_buff, at: u32) -> Option<Inner> {
    let header: [u8; IPV4_HEADER as usize] = load(skb, at)?;
    let length = u32::from(header[0] & 15) * 4;
    if length < IPV4_HEADER {
        return None;
    }
    let total = u32::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    Some(Inner {
        next: header[9],
        at: at + length,
        end: at + total,
        // More fragments, or an offset.
        is_fragment: fragment & 0x3fff != 0,
        is_later: fragment & 0x1fff != 0,
    })
}

/// RFC 8200 section 3.
#[inline(always)]
fn v6(skb: *mut __sk_buff, at: u32) -> Option<Inner> {
    let header: [u8; 8] = load(skb, at)?;
    let length = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let at = at + IPV6_HEADER;
    Some(Inner { next: header[6], at, end: at + length, is_fragment: false, is_later: false })
}

/// Walks the extension headers up to TCP.
#[inline(always)]
fn walk(skb: *mut __sk_buff, mut inner: Inner) -> bool {
    for _ in 0..HEADERS {
        match inner.next {
            TCP => return inner.is_fragment || opens_or_carries(skb, &inner),
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 | AUTHENTICATION | FRAGMENT => {}
            _ => return false,
        }
        if inner.is_later {
            // What stands here is not that header, but some bytes of what follows it.
            return true;
        }
        let Some([next, length, high, low]) = load::<[u8; 4]>(skb, inner.at) else { return true };
        inner.at += match inner.next {
            FRAGMENT => {
                inner.is_fragment = true;
                inner.is_later = u16::from_be_bytes([high, low]) & 0xfff8 != 0;
                8
            }
            // RFC 4302 section 2.2
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        inner.next = next;
    }
    true
}

/// RFC 9293 section 3.1.
#[inline(always)]
fn opens_or_carries(skb: *mut __sk_buff, inner: &Inner) -> bool {
    let Some(header) = load::<[u8; 14]>(skb, inner.at) else { return true };
    let length = u32::from(header[12] >> 4) * 4;
    let opens = header[13] & (SYN | ACK) == SYN;
    // By the packet's own account, which is what its receiver goes by; one that contradicts itself carries something.
    opens || length < TCP_HEADER || inner.at + length != inner.end
}

/// A value of the packet's bytes, if they are there.
#[inline(always)]
fn load<T: Plain>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `value` is as long as is said, and of a type of which every bit pattern is valid; the helper fills all of it or
    // fails.
    unsafe {
        let length = size_of::<T>() as u32;
        let done = bpf_skb_load_bytes(skb.cast_const().cast(), at, value.as_mut_ptr().cast(), length);
        if done == 0 { Some(value.assume_init()) } else { None }
    }
}

/// Types of which every bit pattern is valid.
///
/// # Safety
///
/// It must be one.
unsafe trait Plain: Copy {}

// SAFETY: integers, and arrays of them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
