//! The program of a pod: attached to the pod's network namespace, asked for each new connection that is delivered there.
//!
//! It hands the connection to one of the agent's listeners or lets it through to the application. A slot without a
//! listener (the agent is dead) drops: the peer gets a reset, and nothing reaches the network or the application past the
//! agent. Its maps are declared the old way: the object needs no type information, of which the kernel would keep a copy for
//! every pod, some 14 KiB. Minimum kernel: 5.17 (`ingress_ifindex` in sk_lookup).

#![no_std]
#![no_main]

use abi::{
    Direction, Flow, HBONE_PORT, LISTENERS, LOOPBACK_IFINDEX, MAX_ADDRESSES, MAX_FLOWS, PodAddress, Steering,
    settings,
};
use aya_ebpf::bindings::{bpf_sk_lookup, sk_action};
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, SockMap};
use aya_ebpf::programs::SkLookupContext;

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
/// `BPF_SK_LOOKUP_F_REPLACE`: while one agent takes over from another, the program that was attached later decides.
const REPLACE: u64 = 1;

#[map(name = "LISTENERS")]
static SOCKETS: SockMap = SockMap::with_max_entries(LISTENERS, 0);

#[map]
static ADDRESSES: HashMap<PodAddress, u32> = HashMap::with_max_entries(MAX_ADDRESSES, NO_PREALLOC);

/// The node's, filled by its sockops program.
#[map]
static PROBES: LruHashMap<Flow, u32> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

#[map]
static SETTINGS: Array<u32> = Array::with_max_entries(settings::WORDS, 0);

#[map]
static STEERED: PerCpuArray<u64> = PerCpuArray::with_max_entries(Steering::ALL.len() as u32, 0);

/// What becomes of a new connection.
enum Action {
    /// UDP and the like: the kernel goes on as if there were no program.
    Ignore,
    /// To the application, and why.
    Pass(Steering),
    /// To the agent.
    Steer(Direction),
}

#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: the kernel hands a valid bpf_sk_lookup to the program.
    let lookup = unsafe { &*ctx.lookup };
    match decide(lookup) {
        Action::Ignore => sk_action::SK_PASS,
        Action::Pass(why) => {
            count(why);
            sk_action::SK_PASS
        }
        Action::Steer(direction) => match SOCKETS.redirect_sk_lookup(&ctx, direction.index(), REPLACE) {
            Ok(()) => {
                count(match direction {
                    Direction::Outbound => Steering::Outbound,
                    Direction::Hbone => Steering::Hbone,
                    Direction::Plaintext => Steering::Plaintext,
                });
                sk_action::SK_PASS
            }
            Err(_) => {
                count(Steering::Dropped);
                sk_action::SK_DROP
            }
        },
    }
}

#[inline(always)]
fn decide(lookup: &bpf_sk_lookup) -> Action {
    if lookup.protocol != IPPROTO_TCP {
        return Action::Ignore;
    }
    let (local, remote) = addresses(lookup);
    if local.is_loopback() {
        return Action::Ignore;
    }
    let to_pod = is_own(&local);
    if lookup.ingress_ifindex == LOOPBACK_IFINDEX {
        // From the pod itself to elsewhere: the application's own connection, brought here by its mark. Else the agent
        // delivers to the application: to the pod's own address, or to one that it got just now, and from a client's, which
        // is not the pod's. (An application that spoofs its source so reaches itself, and nothing else.)
        let from_pod = is_own(&remote) || remote.is_loopback();
        return if from_pod && !to_pod {
            Action::Steer(Direction::Outbound)
        } else {
            Action::Pass(Steering::Own)
        };
    }
    // The kernel names the interface that owns the address, not lo, when a pod connects to itself (seen from 6.1 to 6.18),
    // so the pod's own source tells. A loopback source cannot come from outside.
    if to_pod && (is_own(&remote) || remote.is_loopback()) {
        return Action::Pass(Steering::Own);
    }
    let bits = SETTINGS.get(0).copied().unwrap_or(0);
    if bits & settings::HAS_ENTRANCES != 0 && is_entrance(lookup.ingress_ifindex) {
        // A virtual machine in the pod: to the pod itself as a process of the pod would.
        return if to_pod { Action::Pass(Steering::Own) } else { Action::Steer(Direction::Outbound) };
    }
    // The kernel has the remote port in network order and the local one in host order.
    let flow = Flow::new(remote, u16::from_be(lookup.remote_port), local, lookup.local_port as u16);
    if PROBES.get_ptr(&flow).is_some() {
        return Action::Pass(Steering::Probe);
    }
    if lookup.local_port == u32::from(HBONE_PORT) {
        return Action::Steer(Direction::Hbone);
    }
    if bits & settings::BYPASS_INBOUND != 0 {
        return Action::Pass(Steering::Bypassed);
    }
    Action::Steer(Direction::Plaintext)
}

/// Whether what comes in there counts as the application's. No interface has number 0, which an empty place has.
#[inline(always)]
fn is_entrance(interface: u32) -> bool {
    if interface == 0 {
        return false;
    }
    let mut place = settings::ENTRANCES;
    while place < settings::WORDS {
        if SETTINGS.get(place) == Some(&interface) {
            return true;
        }
        place += 1;
    }
    false
}

#[inline(always)]
fn is_own(address: &PodAddress) -> bool {
    ADDRESSES.get_ptr(address).is_some()
}

#[inline(always)]
fn count(what: Steering) {
    if let Some(count) = STEERED.get_ptr_mut(what as u32) {
        // SAFETY: the value is this CPU's own, and programs are not moved to another CPU while they run.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn addresses(lookup: &bpf_sk_lookup) -> (PodAddress, PodAddress) {
    // All fields are read before the family is looked at. Read in two branches, the compiler joins the loads into one
    // through a computed pointer, which the verifier refuses for a context.
    let local6 = [
        word(&lookup.local_ip6[0]),
        word(&lookup.local_ip6[1]),
        word(&lookup.local_ip6[2]),
        word(&lookup.local_ip6[3]),
    ];
    let remote6 = [
        word(&lookup.remote_ip6[0]),
        word(&lookup.remote_ip6[1]),
        word(&lookup.remote_ip6[2]),
        word(&lookup.remote_ip6[3]),
    ];
    let (local4, remote4) = (word(&lookup.local_ip4), word(&lookup.remote_ip4));
    if lookup.family == AF_INET {
        (PodAddress::from_v4(local4), PodAddress::from_v4(remote4))
    } else {
        (PodAddress::from_v6(local6), PodAddress::from_v6(remote6))
    }
}

#[inline(always)]
fn word(field: &u32) -> u32 {
    // SAFETY: a reference is valid for reads; volatile keeps the load where it stands.
    unsafe { core::ptr::read_volatile(field) }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: the loader reads this section as a text and nothing else is in it; the name is this object's alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
