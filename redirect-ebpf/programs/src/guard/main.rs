//! The egress guard of a pod: a classifier on the way out of every interface of the pod but lo.
//!
//! Capture decides in connect(2). What is not a connection of a TCP socket never comes there: TCP that a raw or packet socket
//! writes, or that is forwarded from a namespace inside the pod. The guard drops that, and what a socket sends here that has
//! no business here: the opening of a connection that is not the agent's, and whatever a captured connection sends by
//! another interface than lo. Segments without payload that open nothing pass, whoever sends them: the kernel itself resets and
//! acknowledges from a socket that is no TCP socket. Everything that is not TCP passes.
//!
//! A packet that cannot be read counts as TCP that is not the pod's. Its maps are declared the old way, as those of `steer`.
//! Minimum kernel: 5.18, as for the rest of capture.

#![no_std]
#![no_main]

mod fence;
mod packet;

use core::cell::UnsafeCell;

use abi::{CAPTURE_MARK, Exemption, Guarded, MARK_MASK, Seen};
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, bpf_map_def, bpf_sock};
use aya_ebpf::helpers::{bpf_sk_fullsock, bpf_sk_storage_get};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::TcContext;

/// `TC_ACT_UNSPEC`, `TCX_NEXT`: whoever is attached behind this has a say as well.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`, `TCX_DROP`
const DROP: i32 = 2;

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
/// `BPF_TCP_SYN_SENT`
const SYN_SENT: u32 = 2;

/// Socket-local storage of the node, which is pinned: opened, never made by this object.
#[repr(transparent)]
struct Storage(UnsafeCell<bpf_map_def>);

// SAFETY: the kernel alone touches what it stands for.
unsafe impl Sync for Storage {}

impl Storage {
    const fn new() -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_SK_STORAGE,
            key_size: 4,
            value_size: 4,
            max_entries: 0,
            map_flags: BPF_F_NO_PREALLOC,
            id: 0,
            pinning: 0,
        }))
    }

    /// The value of a socket.
    #[inline(always)]
    fn get(&self, socket: *mut bpf_sock) -> Option<u32> {
        // SAFETY: the map is one of this object's and the socket a full one; the value lives as long as its socket, which the
        // packet holds.
        unsafe {
            let value = bpf_sk_storage_get(self.0.get().cast(), socket.cast(), core::ptr::null_mut(), 0);
            if value.is_null() { None } else { Some(*value.cast::<u32>()) }
        }
    }
}

/// The agent's own sockets.
#[map]
static EXEMPT: Storage = Storage::new();

/// Captured sockets.
#[map]
static CAPTURED: Storage = Storage::new();

#[map]
static GUARDED: PerCpuArray<u64> = PerCpuArray::with_max_entries(Guarded::ALL.len() as u32, 0);

#[map]
static SEEN: Array<Seen> = Array::with_max_entries(1, 0);

#[classifier]
pub fn guard_ethernet(ctx: TcContext) -> i32 {
    judge::<true>(ctx.skb.skb)
}

#[classifier]
pub fn guard_ip(ctx: TcContext) -> i32 {
    judge::<false>(ctx.skb.skb)
}

#[inline(always)]
fn judge<const ETHERNET: bool>(skb: *mut __sk_buff) -> i32 {
    let found = match own_stream(skb) {
        Some(socket) => of_stream(socket),
        None if packet::is_tcp_of_nobody::<ETHERNET>(skb) => Some(Guarded::Handwritten),
        None => None,
    };
    let Some(why) = found else { return NEXT };
    if let Some(count) = GUARDED.get_ptr_mut(why as u32) {
        // SAFETY: the value is this CPU's own, and programs are not moved to another CPU while they run.
        unsafe { *count += 1 };
    }
    if let Some(seen) = packet::destination::<ETHERNET>(skb) {
        let _ = SEEN.set(0, seen, 0);
    }
    DROP
}

/// The TCP socket of this machine that sends the packet.
#[inline(always)]
fn own_stream(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the kernel hands a valid __sk_buff to the program; the helper takes a socket that is not null.
    unsafe {
        // What came in by an interface is forwarded. The bridge keeps the socket of whoever sent it, in whatever namespace.
        if (*skb).ingress_ifindex != 0 {
            return None;
        }
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let socket = bpf_sk_fullsock(socket);
        if socket.is_null() || (*socket).type_ != SOCK_STREAM || (*socket).protocol != IPPROTO_TCP {
            return None;
        }
        Some(socket)
    }
}

#[inline(always)]
fn of_stream(socket: *mut bpf_sock) -> Option<Guarded> {
    if EXEMPT.get(socket) == Some(Exemption::Agent as u32) {
        return None;
    }
    // SAFETY: a full socket's fields may be read.
    let (mark, state) = unsafe { ((*socket).mark, (*socket).state) };
    if mark & MARK_MASK == CAPTURE_MARK || CAPTURED.get(socket).is_some() {
        // Its route is lost, or its owner has changed its mark.
        return Some(Guarded::Strayed);
    }
    // Accepted connections, and those of before the pod was captured, are past this state.
    (state == SYN_SENT).then_some(Guarded::Uncaptured)
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
