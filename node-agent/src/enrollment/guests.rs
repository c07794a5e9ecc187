//! Pods with a network stack of their own, which cannot be captured: found before they are enrolled, and afterwards, for the
//! plugin is called before such a stack is started.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use linux::guest;
use linux::netns::Netns;
use redirect::{Line, Part, Problem};

use super::{EnrollError, Enroller};

/// The network namespaces of guests, by inode, with the names of their kernels.
pub(super) type Guests = HashMap<u64, String>;

impl Enroller {
    /// Looks through the node's processes.
    pub(super) async fn look_for_guests(&self) {
        let proc = self.proc.clone();
        match self.look_at(move || guest::find(&proc)).await {
            Ok(Ok(found)) => *self.guests.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found),
            Ok(Err(error)) => {
                tracing::warn!(%error, "pods under Kata Containers or gVisor are not looked for")
            }
            Err(error) => tracing::warn!(%error, "pods under Kata Containers or gVisor are not looked for"),
        }
    }

    /// Refuses a namespace whose pod has its sockets elsewhere.
    pub(super) fn refuse_guest(&self, netns: &Netns) -> Result<(), EnrollError> {
        self.guest(netns)?.map_or(Ok(()), |what| Err(EnrollError::Guest(what)))
    }

    /// The line of an inspection about it.
    pub(super) fn see_guest(&self, netns: &Netns) -> Line {
        const NAME: &str = "sockets of the pod";
        let found = match self.guest(netns) {
            Ok(None) => Ok(()),
            Ok(Some(what)) => {
                let what = EnrollError::Guest(what).to_string();
                Err(Problem::new(
                    what,
                    "set no runtimeClassName of Kata or gVisor, or label the pod out of the mesh",
                ))
            }
            Err(error) => Err(Problem::new(format!("cannot be looked for: {error}"), "see the agent's log")),
        };
        Line::new(Part::Guest, NAME, found)
    }

    fn guest(&self, netns: &Netns) -> Result<Option<String>, EnrollError> {
        let known = Arc::clone(&self.guests.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(process) = known.get(&netns.id().inode) {
            return Ok(Some(format!("process {process}")));
        }
        Ok(guest::device(netns)?.map(|device| format!("device {device}")))
    }
}
