//! The programs of a node: attached once, to the root of the cgroup v2 hierarchy.
//!
//! They decide, when a process calls connect(2) or sends a DNS query, what becomes of it. A captured TCP connection is only
//! marked: its destination is not rewritten and no state is kept. What cannot be marked is refused, and what nobody would
//! accept as well: an enrolled pod never reaches the network past the agent, and is told at once. Minimum kernel: 5.18
//! (`bpf_get_netns_cookie` 5.7, `bpf_setsockopt` and socket-local storage in these programs 5.8, `bpf_set_retval` 5.18).

#![no_std]
#![no_main]

mod connect;
mod count;
mod dns;
mod exempt;
mod guard;
mod maps;
mod probe;
mod socket;
mod tell;

use core::ffi::c_void;

use abi::PodAddress;
use aya_ebpf::helpers::bpf_get_netns_cookie;
use aya_ebpf::macros::{cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};

/// The call goes on.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::decide::<true>(&ctx, socket::address_v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::decide::<false>(&ctx, socket::address_v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    dns::steer::<true>(&ctx, cookie(&ctx), socket::address_v4(&ctx));
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    dns::steer::<false>(&ctx, cookie(&ctx), socket::address_v6(&ctx));
    ALLOW
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    dns::restore::<true>(&ctx, cookie(&ctx), socket::address_v4(&ctx));
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    dns::restore::<false>(&ctx, cookie(&ctx), socket::address_v6(&ctx));
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    dns::restore::<true>(&ctx, cookie(&ctx), socket::address_v4(&ctx));
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    dns::restore::<false>(&ctx, cookie(&ctx), socket::address_v6(&ctx));
    ALLOW
}

#[sock_ops]
pub fn probes(ctx: SockOpsContext) -> u32 {
    probe::note(&ctx);
    1
}

/// The number of the socket's network namespace.
#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: `ctx` is the program's own context, which this helper takes.
    unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast::<c_void>()) }
}

/// The row of an enrolled namespace.
#[inline(always)]
fn row(cookie: u64) -> Option<abi::Row> {
    // SAFETY: a row is one aligned word that the agent replaces whole; a value that is just being replaced is as good.
    maps::ENROLLED.get_ptr(&cookie).map(|row| unsafe { *row })
}

/// An address of a pod or a resolver, in the form of map keys.
type Address = PodAddress;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: the loader reads this section as a text and nothing else is in it; the name is this object's alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
