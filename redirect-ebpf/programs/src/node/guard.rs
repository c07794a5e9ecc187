//! What the egress guard of a pod must know of a socket that was judged: by its mark it would not, for a privileged
//! application may change that, nor by its process, for none runs when a packet is sent.

use core::ffi::c_void;

use abi::{Decision, Exemption};
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::bpf_sk_storage_get;
use aya_ebpf::programs::SockAddrContext;

use crate::maps::{CAPTURED, EXEMPT};

/// Notes a socket of a guarded pod; false where there is no memory for that.
#[inline(always)]
pub fn note(ctx: &SockAddrContext, decision: Decision) -> bool {
    match decision {
        Decision::Captured => store((&raw const CAPTURED).cast(), ctx, 1),
        Decision::Agent => store((&raw const EXEMPT).cast(), ctx, Exemption::Agent as u32),
        _ => true,
    }
}

/// Stores a value with the socket, unless it has one.
#[inline(always)]
fn store(map: *const c_void, ctx: &SockAddrContext, mut value: u32) -> bool {
    // SAFETY: the map is socket-local storage of this object, `sk` of the context is a valid socket, and `value` outlives the
    // call.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        !bpf_sk_storage_get(map.cast_mut(), sk.cast(), (&raw mut value).cast(), create).is_null()
    }
}
