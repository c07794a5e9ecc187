//! setsockopt(2) in guarded pods: what would take frames past every classifier is refused.
//!
//! A packet socket with `PACKET_QDISC_BYPASS` and an AF_XDP socket hand their frames to the driver. Both must say so by
//! setsockopt(2) first. Sockets that did before the pod was guarded are past this, and so are 32-bit calls, for which the
//! kernel does not ask.

use abi::{MAX_PODS, Row};
use aya_ebpf::helpers::bpf_get_netns_cookie;
use aya_ebpf::macros::{cgroup_sockopt, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SockoptContext;

const SOL_PACKET: i32 = 263;
const PACKET_QDISC_BYPASS: i32 = 20;
const SOL_XDP: i32 = 283;
/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// What the kernel shows to programs at most: with more the call would fail, unless they say that they look at nothing.
const SHOWN: i32 = 4096;

/// The node's, by which guarded pods are known.
#[map]
static ENROLLED: HashMap<u64, Row> = HashMap::with_max_entries(MAX_PODS, NO_PREALLOC);

#[cgroup_sockopt(setsockopt)]
pub fn fence(ctx: SockoptContext) -> i32 {
    // SAFETY: the kernel hands a valid bpf_sockopt to the program, which may read these fields and write `optlen`.
    let sockopt = unsafe { &mut *ctx.sockopt };
    let past_queues = sockopt.level == SOL_PACKET && sockopt.optname == PACKET_QDISC_BYPASS;
    if past_queues || sockopt.level == SOL_XDP {
        // SAFETY: `ctx` is the program's own context, which this helper takes.
        let cookie = unsafe { bpf_get_netns_cookie(ctx.sockopt.cast()) };
        // SAFETY: a row is one aligned word that the agent replaces whole.
        let row = ENROLLED.get_ptr(cookie).map(|row| unsafe { *row });
        if row.is_some_and(Row::is_guarded) {
            return REFUSE;
        }
    }
    if sockopt.optlen > SHOWN {
        sockopt.optlen = 0;
    }
    ALLOW
}
