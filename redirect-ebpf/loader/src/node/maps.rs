//! The node's maps: pinned, shared by one agent with the next, each behind its type.
//!
//! A lock is held for one bpf(2) call. A panic while it was held cannot have left the kernel's map half-written, so a
//! poisoned lock is taken all the same.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use abi::{AddressKey, Decision, DecisionKey, PodAddress, RESOLVERS_PER_POD, ResolverKey, Row, Seen, map};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuHashMap, SockHash};

use crate::error::CaptureError;

/// Names of all maps that are pinned.
pub(super) const PINNED: [&str; 10] = [
    map::AGENT,
    map::OWN,
    map::ENROLLED,
    map::EXEMPT,
    map::CAPTURED,
    map::AGENTS,
    map::PROBERS,
    map::PROBES,
    map::RESOLVERS,
    map::DECISIONS,
];

/// A type of the abi, as aya wants it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Shared<T>(pub(crate) T);

// SAFETY: transparent wrappers of types without padding, of which every bit pattern is valid: integers and arrays of
// integers whose sizes are asserted beside their definitions.
unsafe impl aya::Pod for Shared<Row> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<PodAddress> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<AddressKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<ResolverKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<DecisionKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<Seen> {}

/// The maps that the agent reads or writes.
pub(super) struct NodeMaps {
    agent: Mutex<Array<MapData, u32>>,
    enrolled: Mutex<HashMap<MapData, u64, Shared<Row>>>,
    agents: Mutex<SockHash<MapData, u64>>,
    own: Mutex<HashMap<MapData, Shared<AddressKey>, u32>>,
    probers: Mutex<HashMap<MapData, u32, u32>>,
    resolvers: Mutex<HashMap<MapData, Shared<ResolverKey>, Shared<PodAddress>>>,
    decisions: Mutex<PerCpuHashMap<MapData, Shared<DecisionKey>, u64>>,
}

impl NodeMaps {
    /// Takes them out of a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, CaptureError> {
        Ok(Self {
            agent: take(object, map::AGENT)?,
            enrolled: take(object, map::ENROLLED)?,
            agents: take(object, map::AGENTS)?,
            own: take(object, map::OWN)?,
            probers: take(object, map::PROBERS)?,
            resolvers: take(object, map::RESOLVERS)?,
            decisions: take(object, map::DECISIONS)?,
        })
    }

    pub(super) fn enrolled(&self) -> MutexGuard<'_, HashMap<MapData, u64, Shared<Row>>> {
        lock(&self.enrolled)
    }

    /// The process whose sockets are left alone; 0 if there is none.
    pub(super) fn agent(&self) -> Result<u32, CaptureError> {
        lock(&self.agent).get(&0, 0).map_err(CaptureError::map(map::AGENT))
    }

    pub(super) fn set_agent(&self, process: u32) -> Result<(), CaptureError> {
        lock(&self.agent).set(0, process, 0).map_err(CaptureError::map(map::AGENT))
    }

    pub(super) fn agents(&self) -> MutexGuard<'_, SockHash<MapData, u64>> {
        lock(&self.agents)
    }

    pub(super) fn probers(&self) -> MutexGuard<'_, HashMap<MapData, u32, u32>> {
        lock(&self.probers)
    }

    /// The resolver that a pod asked, by its slot.
    pub(super) fn resolver(&self, cookie: u64, slot: u32) -> Option<PodAddress> {
        lock(&self.resolvers).get(&Shared(ResolverKey::new(cookie, slot)), 0).ok().map(|address| address.0)
    }

    /// How often a decision was taken for a pod, on all CPUs.
    pub(super) fn decisions(&self, cookie: u64, decision: Decision) -> u64 {
        let counts = lock(&self.decisions).get(&Shared(DecisionKey::new(cookie, decision)), 0);
        counts.map_or(0, |counts| counts.iter().sum())
    }

    /// Makes these the addresses of a pod, in the place of those it had.
    pub(super) fn set_addresses(&self, cookie: u64, addresses: &[IpAddr]) -> Result<(), CaptureError> {
        let wanted: Vec<AddressKey> =
            addresses.iter().map(|address| AddressKey::new(cookie, PodAddress::from(*address))).collect();
        let mut own = lock(&self.own);
        let known: Vec<AddressKey> =
            own.keys().flatten().map(|key| key.0).filter(|key| key.cookie() == cookie).collect();
        let mut change = || {
            wanted.iter().try_for_each(|key| own.insert(Shared(*key), 0, 0))?;
            let gone = known.iter().filter(|key| !wanted.contains(key));
            gone.copied().try_for_each(|key| absent_is_fine(own.remove(&Shared(key))))
        };
        change().map_err(CaptureError::map(map::OWN))
    }

    /// Removes a pod's addresses, resolvers and counters.
    pub(super) fn forget(&self, cookie: u64) -> Result<(), CaptureError> {
        self.set_addresses(cookie, &[])?;
        for slot in 0..RESOLVERS_PER_POD {
            let removed = lock(&self.resolvers).remove(&Shared(ResolverKey::new(cookie, slot)));
            absent_is_fine(removed).map_err(CaptureError::map(map::RESOLVERS))?;
        }
        for decision in Decision::ALL {
            let removed = lock(&self.decisions).remove(&Shared(DecisionKey::new(cookie, decision)));
            absent_is_fine(removed).map_err(CaptureError::map(map::DECISIONS))?;
        }
        Ok(())
    }
}

/// What is not there needs no removal.
pub(super) fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<Mutex<M>, CaptureError> {
    let map = object.take_map(name).ok_or(CaptureError::Missing(name))?;
    Ok(Mutex::new(M::try_from(map).map_err(CaptureError::map(name))?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
