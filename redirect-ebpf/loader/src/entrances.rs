//! Interfaces of a pod at which somebody else's traffic comes in that counts as the application's: a virtual machine's (KubeVirt).
//!
//! Such a machine has a kernel of its own, whose connections no program of ours sees being made. What it sends arrives at an interface of the
//! pod, to be forwarded. A rule has its TCP delivered locally instead, and `steer` knows the interface's number. Invariant: what comes
//! in at an interface of which the rule is there and the number is not, is taken for a stranger's, and so refused; an interface that comes
//! later, or anew, gets its number with the next inspection.

use abi::{map, settings};
use aya::maps::{Array, Map, MapData};
use linux::netlink::{self, State, interfaces};
use linux::netns::Netns;

use crate::attachment::ROUTE;
use crate::error::CaptureError;
use crate::guard::unseen;
use crate::report::{Line, Part, Problem};

/// How many a pod may have.
pub const MAX_ENTRANCES: usize = abi::MAX_ENTRANCES as usize;

/// Those of one pod.
pub(crate) struct Entrances {
    names: Vec<String>,
    settings: Option<Array<MapData, u32>>,
}

impl Entrances {
    /// Those with these names; what is beyond the number that there may be is left out.
    pub(crate) fn new(names: &[String]) -> Self {
        Self { names: names.iter().take(MAX_ENTRANCES).cloned().collect(), settings: None }
    }

    /// Keeps the map from which `steer` knows them.
    pub(crate) fn keep(&mut self, settings: Map) -> Result<(), CaptureError> {
        self.settings = Some(Array::try_from(settings).map_err(CaptureError::map(map::SETTINGS))?);
        Ok(())
    }

    /// Brings rules and numbers about, as the interfaces are now.
    pub(crate) fn open(&mut self, netns: &Netns) -> Result<(), CaptureError> {
        if self.settings.is_none() {
            return Ok(());
        }
        netlink::set_entrances(netns, ROUTE, &self.names)?;
        self.follow(netns)
    }

    /// Notes the numbers of interfaces that have come, gone, or come anew. That is no loss of capture, and needs no mending.
    fn follow(&mut self, netns: &Netns) -> Result<(), CaptureError> {
        let Some(known) = &mut self.settings else { return Ok(()) };
        for (place, index) in (settings::ENTRANCES..).zip(indexes(netns, &self.names)?) {
            if known.get(&place, 0).ok() != Some(index) {
                known.set(place, index, 0).map_err(CaptureError::map(map::SETTINGS))?;
            }
        }
        Ok(())
    }

    /// A line for each, after whatever has come of interfaces.
    pub(crate) fn inspect(&mut self, netns: &Netns, state: &State) -> Vec<Line> {
        const AGAIN: &str =
            "the agent adds it again; if it is lost again, look for who flushes rules in the pod";
        if self.settings.is_none() {
            return Vec::new();
        }
        let followed = self.follow(netns);
        let line = |name: &String| {
            let is_led = state.families.iter().all(|family| family.entrances.contains(name));
            let found = match &followed {
                Err(error) => Err(unseen(error)),
                Ok(()) if is_led => Ok(()),
                Ok(()) => Err(Problem::new("its rule is gone: what comes in there is not captured", AGAIN)),
            };
            Line::new(Part::Rule, format!("interface {name} of a virtual machine"), found)
        };
        self.names.iter().map(line).collect()
    }
}

/// The numbers of interfaces; 0 for one that is not there.
fn indexes(netns: &Netns, names: &[String]) -> Result<Vec<u32>, CaptureError> {
    let there = interfaces::interfaces(netns)?;
    let index = |name: &String| there.iter().find(|one| one.name == *name).map_or(0, |one| one.index);
    Ok(names.iter().map(index).collect())
}
