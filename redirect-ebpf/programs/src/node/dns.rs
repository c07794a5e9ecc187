//! DNS queries of enrolled pods: UDP to port 53 goes to the agent's DNS socket in the pod, and the answer seems to come
//! from the resolver that was asked.
//!
//! UDP cannot be marked a datagram at a time (udp_sendmsg reads the mark before the program runs), so the address is
//! rewritten, reversibly and without state a socket: each resolver that a pod asks has a slot, and the slot is a part of
//! the address that the query goes to (`abi::dns_address`). Without a slot, without an agent, or for a socket bound to a
//! device, the query goes straight to the resolver: a name is not the mesh's secret, and nothing resolves otherwise.

use abi::{DNS_PORT, Decision, RESOLVERS_PER_POD, ResolverKey};
use aya_ebpf::programs::SockAddrContext;

use crate::exempt::{self, Exempt};
use crate::maps::RESOLVERS;
use crate::{Address, connect, count, socket};

/// `BPF_NOEXIST`
const IF_ABSENT: u64 = 1;

/// Sends a query to the agent.
#[inline(always)]
pub fn steer<const V4: bool>(ctx: &SockAddrContext, cookie: u64, resolver: Address) {
    if socket::port(ctx) != DNS_PORT
        || resolver.is_loopback()
        || !matches!(socket::kind(ctx), socket::Kind::Udp)
    {
        return;
    }
    let Some(port) = crate::row(cookie).and_then(abi::Row::dns_port) else { return };
    let (_, device) = socket::mark_and_device(ctx);
    let exempt = match exempt::socket(ctx) {
        Exempt::Yes => true,
        Exempt::No => false,
        Exempt::Unsaid => exempt::is_agent(),
    };
    if exempt || device != 0 || !connect::has_agent(cookie) {
        count::add(cookie, Decision::DnsLeftAlone);
        return;
    }
    match slot(cookie, resolver) {
        Some(slot) => {
            count::add(cookie, Decision::DnsSteered);
            socket::set_address::<V4>(ctx, abi::dns_address(resolver.is_v4(), slot), port);
        }
        None => count::add(cookie, Decision::DnsLeftAlone),
    }
}

/// Puts the resolver's address back in the place of the agent's.
#[inline(always)]
pub fn restore<const V4: bool>(ctx: &SockAddrContext, cookie: u64, source: Address) {
    let Some(slot) = abi::dns_slot(source) else { return };
    let Some(port) = crate::row(cookie).and_then(abi::Row::dns_port) else { return };
    if socket::port(ctx) != port || !matches!(socket::kind(ctx), socket::Kind::Udp) {
        return;
    }
    if let Some(resolver) = RESOLVERS.get_ptr(&ResolverKey::new(cookie, slot)) {
        // SAFETY: a resolver's row is written once and not changed while the pod is enrolled.
        socket::set_address::<V4>(ctx, unsafe { *resolver }, DNS_PORT);
    }
}

/// The slot of a resolver of this pod, taken if it has none yet.
#[inline(always)]
fn slot(cookie: u64, resolver: Address) -> Option<u32> {
    for slot in 0..RESOLVERS_PER_POD {
        let key = ResolverKey::new(cookie, slot);
        if is_in(&key, resolver) {
            return Some(slot);
        }
        // Taking it fails if it is taken: by another resolver, or just now by this one on another CPU.
        if RESOLVERS.insert(&key, &resolver, IF_ABSENT).is_ok() || is_in(&key, resolver) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn is_in(key: &ResolverKey, resolver: Address) -> bool {
    // SAFETY: as above.
    RESOLVERS.get_ptr(key).is_some_and(|known| unsafe { *known } == resolver)
}
