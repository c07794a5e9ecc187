//! What a program may read and write of the socket whose call it judges.

use core::ffi::c_void;
use core::mem::size_of;

use aya_ebpf::helpers::bpf_setsockopt;
use aya_ebpf::programs::SockAddrContext;

use crate::Address;

const SOL_SOCKET: i32 = 1;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_MPTCP: u32 = 262;

/// Socket options that are set here.
#[derive(Clone, Copy)]
pub enum Option {
    /// `SO_BINDTODEVICE`
    BindToDevice = 25,
    /// `SO_MARK`
    Mark = 36,
}

/// What kind of socket it is.
pub enum Kind {
    /// TCP, by itself or by MPTCP.
    Tcp,
    /// UDP.
    Udp,
    /// Anything else.
    Other,
}

#[inline(always)]
pub fn kind(ctx: &SockAddrContext) -> Kind {
    // SAFETY: the kernel hands a valid bpf_sock_addr to the program; both fields may be read by every one of them.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP) => Kind::Tcp,
        (SOCK_DGRAM, IPPROTO_UDP) => Kind::Udp,
        _ => Kind::Other,
    }
}

/// The address of an IPv4 call.
#[inline(always)]
pub fn address_v4(ctx: &SockAddrContext) -> Address {
    // SAFETY: the context is valid, and `user_ip4` may be read by the programs for IPv4.
    Address::from_v4(unsafe { (*ctx.sock_addr).user_ip4 })
}

/// The address of an IPv6 call.
#[inline(always)]
pub fn address_v6(ctx: &SockAddrContext) -> Address {
    // SAFETY: the context is valid, and `user_ip6` may be read by the programs for IPv6, one word at a time.
    Address::from_v6(unsafe {
        let addr = &*ctx.sock_addr;
        [addr.user_ip6[0], addr.user_ip6[1], addr.user_ip6[2], addr.user_ip6[3]]
    })
}

/// The port of the call's address, in host order.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: the context is valid; `user_port` holds 16 bits in network order.
    u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16)
}

/// Rewrites the call's address; `V4` tells the programs for IPv4, which may write nothing else, from those for IPv6.
#[inline(always)]
pub fn set_address<const V4: bool>(ctx: &SockAddrContext, address: Address, port: u16) {
    let [a, b, c, d] = address.words();
    // SAFETY: the context is valid, and the programs of a family may write its fields.
    unsafe {
        let addr = &mut *ctx.sock_addr;
        if V4 {
            addr.user_ip4 = d;
        } else {
            addr.user_ip6[0] = a;
            addr.user_ip6[1] = b;
            addr.user_ip6[2] = c;
            addr.user_ip6[3] = d;
        }
        addr.user_port = u32::from(port.to_be());
    }
}

/// The mark and the bound device of the socket.
#[inline(always)]
pub fn mark_and_device(ctx: &SockAddrContext) -> (u32, u32) {
    // SAFETY: `sk` of a sock_addr context is a valid socket, and both fields may be read.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        ((*sk).mark, (*sk).bound_dev_if)
    }
}

/// Sets an option; whether that worked.
#[inline(always)]
pub fn set(ctx: &SockAddrContext, option: Option, value: &mut u32) -> bool {
    let value: *mut u32 = value;
    // SAFETY: `ctx` is the program's own context; `value` points to four readable bytes on the program's stack.
    let done = unsafe {
        bpf_setsockopt(
            ctx.sock_addr.cast::<c_void>(),
            SOL_SOCKET,
            option as i32,
            value.cast::<c_void>(),
            size_of::<u32>() as i32,
        )
    };
    done == 0
}
