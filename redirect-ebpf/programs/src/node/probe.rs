//! Health probes of the kubelet: they reach the application as they are, also while the agent is dead.
//!
//! In connect(2) the calling process is known, but not yet the source port; when the SYN is about to be sent it is the
//! other way round. So the socket is marked in the first and its addresses are noted in the second, where `steer` of the
//! pod looks them up.

use abi::{Exemption, Flow, PodAddress};
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_TCP_CONNECT_CB};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_sk_storage_get};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use core::ffi::c_void;

use crate::maps::{EXEMPT, PROBERS, PROBES};
use crate::socket::{self, Kind};

const AF_INET: u32 = 2;

/// Marks a socket of the kubelet's.
#[inline(always)]
pub fn mark(ctx: &SockAddrContext) {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    if PROBERS.get_ptr(&process).is_none() || !matches!(socket::kind(ctx), Kind::Tcp) {
        return;
    }
    let mut value = Exemption::Probe as u32;
    // SAFETY: the map is one of this object's, `sk` of the context is a valid socket, and `value` outlives the call. A
    // failure leaves a probe that is captured, which the agent then handles as any other connection.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let map = (&raw const EXEMPT).cast_mut().cast::<c_void>();
        bpf_sk_storage_get(map, sk.cast(), (&raw mut value).cast(), u64::from(BPF_SK_STORAGE_GET_F_CREATE));
    }
}

/// Notes the addresses of a marked socket that sends its SYN.
#[inline(always)]
pub fn note(ctx: &SockOpsContext) {
    // SAFETY: the kernel hands a valid bpf_sock_ops to the program, of which `op` may be read.
    if unsafe { (*ctx.ops).op } != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return;
    }
    if is_probe(ctx) {
        // A full map forgets the oldest: that probe is captured.
        let _ = PROBES.insert(&flow(ctx), &1, 0);
    }
}

#[inline(always)]
fn is_probe(ctx: &SockOpsContext) -> bool {
    // SAFETY: `sk` is a valid socket or null, which is tested; the storage's value is one aligned word.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return false;
        }
        let map = (&raw const EXEMPT).cast_mut().cast::<c_void>();
        let value = bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0).cast::<u32>();
        !value.is_null() && *value == Exemption::Probe as u32
    }
}

#[inline(always)]
fn flow(ctx: &SockOpsContext) -> Flow {
    // SAFETY: the context is valid and these fields may be read. All of them are, before the family is looked at: read in
    // two branches, the compiler may join the loads into one through a computed pointer, which the verifier refuses.
    unsafe {
        let ops = &*ctx.ops;
        let word = |field: &u32| core::ptr::read_volatile(field);
        let local6 = [
            word(&ops.local_ip6[0]),
            word(&ops.local_ip6[1]),
            word(&ops.local_ip6[2]),
            word(&ops.local_ip6[3]),
        ];
        let remote6 = [
            word(&ops.remote_ip6[0]),
            word(&ops.remote_ip6[1]),
            word(&ops.remote_ip6[2]),
            word(&ops.remote_ip6[3]),
        ];
        let (local4, remote4) = (word(&ops.local_ip4), word(&ops.remote_ip4));
        // The local port is in host order; the remote one in network order, in the word's upper half.
        let (local_port, remote_port) = (word(&ops.local_port), u32::from_be(word(&ops.remote_port)));
        let (client, pod) = if ops.family == AF_INET {
            (PodAddress::from_v4(local4), PodAddress::from_v4(remote4))
        } else {
            (PodAddress::from_v6(local6), PodAddress::from_v6(remote6))
        };
        Flow::new(client, local_port as u16, pod, remote_port as u16)
    }
}
