//! The maps of a node, pinned and shared by one agent with the next.

use abi::{
    AddressKey, DecisionKey, EVENT_BYTES, Event, Flow, MAX_ALL_ADDRESSES, MAX_DECISIONS, MAX_FLOWS, MAX_PODS,
    MAX_PROBERS, MAX_RESOLVERS, PodAddress, ResolverKey, Row,
};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage, SockHash};
use aya_ebpf::macros::btf_map;

use crate::tell::Budget;

/// `BPF_F_NO_PREALLOC`: memory for what there is, not for the most there can be.
const NO_PREALLOC: usize = 1;

/// Namespaces of enrolled pods.
#[btf_map]
pub static ENROLLED: HashMap<u64, Row, { MAX_PODS as usize }, NO_PREALLOC> = HashMap::new();

/// The addresses of all of them: a pod's connections to itself are its own business, agent or not.
#[btf_map]
pub static OWN: HashMap<AddressKey, u32, { MAX_ALL_ADDRESSES as usize }, NO_PREALLOC> = HashMap::new();

/// Sockets that are left alone, or are not, whoever connects them: a value of `abi::Exemption`.
#[btf_map]
pub static EXEMPT: SkStorage<u32> = SkStorage::new();

/// The process (its id in the first pid namespace) whose sockets are left alone; 0 if there is none.
#[btf_map]
pub static AGENT: Array<u32, 1> = Array::new();

/// Sockets of guarded pods whose connection was captured: such a one never leaves the pod, whatever its mark becomes.
#[btf_map]
pub static CAPTURED: SkStorage<u32> = SkStorage::new();

/// The agent's outbound listener of each pod, there only while the agent lives.
#[btf_map]
pub static AGENTS: SockHash<u64, { MAX_PODS as usize }> = SockHash::new();

/// Processes whose connections to pods are probes.
#[btf_map]
pub static PROBERS: HashMap<u32, u32, { MAX_PROBERS as usize }, NO_PREALLOC> = HashMap::new();

/// Connections of those processes.
#[btf_map]
pub static PROBES: LruHashMap<Flow, u32, { MAX_FLOWS as usize }> = LruHashMap::new();

/// The resolvers that a pod has asked, by slot.
#[btf_map]
pub static RESOLVERS: HashMap<ResolverKey, PodAddress, { MAX_RESOLVERS as usize }, NO_PREALLOC> =
    HashMap::new();

/// How often which decision was taken for which pod.
#[btf_map]
pub static DECISIONS: PerCpuHashMap<DecisionKey, u64, { MAX_DECISIONS as usize }, NO_PREALLOC> =
    PerCpuHashMap::new();

/// Decisions worth knowing; each agent reads those of its own programs.
#[btf_map]
pub static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();

/// How many of them were told lately.
#[btf_map]
pub static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
