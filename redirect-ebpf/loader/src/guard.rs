//! Keeps watch over the capture of one pod: inspects it part by part, and mends what was lost.
//!
//! An inspection sends nothing and changes nothing; it asks the kernel. A repair is the same steps as the attaching, and only
//! for what is lost, so it cannot harm what is not. Listeners are held twice, by whoever serves them and here, so that a
//! part can be made again without the serving side; [`Guard::release`] lets go of them.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::{Direction, PodAddress, map, program};
use aya::maps::{HashMap, Map, MapData};
use linux::bpf::{self, Target};
use linux::netlink;

use crate::attachment::{Attachment, ROUTE};
use crate::error::CaptureError;
use crate::layouts::OtherLayouts;
use crate::listeners::{Listeners, Role};
use crate::node::{NodeCapture, Shared};
use crate::others::{self, After, Other};
use crate::pins::pin;
use crate::report::{Line, Part, Problem, Report};

mod routing;

type Addresses = HashMap<MapData, Shared<PodAddress>, u32>;

/// The watch over one pod.
pub struct Guard {
    attachment: Arc<Attachment>,
    directory: PathBuf,
    program: OwnedFd,
    addresses: Addresses,
    /// Of the link that was attached last.
    link: AtomicU32,
    listeners: Mutex<Option<Listeners>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Every lost part was made again.
    Done,
    /// Something can only be mended by capturing the pod anew.
    Anew,
}

impl Guard {
    /// Over a pod that has just been attached with `listeners`; what another version had of it is let go of.
    pub fn new(
        node: &NodeCapture,
        attachment: Arc<Attachment>,
        listeners: &Listeners,
    ) -> Result<Self, CaptureError> {
        OtherLayouts::of(node.pins()).let_go(attachment.cookie())?;
        let directory = node.pins().pod(attachment.cookie());
        let link = bpf::open_pin(&directory.join(program::STEER))
            .and_then(|link| bpf::link_info(&link))
            .map_err(CaptureError::socket("look at the link of the pod's program"))?;
        let program = bpf::program(link.program).map_err(CaptureError::socket("keep the pod's program"))?;
        let addresses = addresses_of(&program)?;
        let listeners = listeners.try_clone().map_err(CaptureError::socket("keep a listener"))?;
        Ok(Self {
            attachment,
            directory,
            program,
            addresses,
            link: AtomicU32::new(link.id),
            listeners: Mutex::new(Some(listeners)),
        })
    }

    /// The watched capture.
    pub fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// Looks at every part. `agents` is what [`crate::NodeGuard::agents`] has told.
    pub fn inspect(&self, node: &NodeCapture, agents: &HashSet<u64>) -> Report {
        let cookie = self.attachment.cookie();
        let mut lines = vec![
            Line::new(Part::Row, "row in the map of enrolled pods", self.look_at_row(node)),
            Line::new(Part::Agent, "listener that connect(2) looks for", agent(agents, cookie)),
            Line::new(Part::Listeners, "listening sockets", self.look_at_listeners()),
            Line::new(Part::Steer, "sk_lookup program", self.look_at_link()),
            self.look_at_others(),
        ];
        match netlink::state(self.attachment.netns(), ROUTE, self.attachment.dns_prefix()) {
            Ok(state) => {
                if self.attachment.dns_prefix().is_some() {
                    lines.push(Line::new(
                        Part::Dns,
                        "local prefix for DNS, IPv6",
                        routing::dns_prefix(&state),
                    ));
                }
                lines.push(Line::new(Part::Addresses, "addresses", self.look_at_addresses(&state.addresses)));
                lines.extend(routing::lines(&state, self.attachment.addresses()));
                lines.extend(self.attachment.inspect_entrances(&state));
            }
            Err(error) => lines.push(Line::new(Part::Rule, "routing", Err(unseen(&error)))),
        }
        lines.extend(routing::sysctls(self.attachment.netns()));
        lines.extend(self.attachment.inspect_egress());
        Report { lines }
    }

    /// Mends what `report` found lost. Returns [`Repair::Anew`] where that is not enough.
    pub fn repair(&self, node: &NodeCapture, report: &Report) -> Result<Repair, CaptureError> {
        let netns = self.attachment.netns();
        let mut repair = Repair::Done;
        // lo first: with it go its routes.
        let mut lost = report.lost();
        lost.sort_by_key(|part| *part != Part::Loopback);
        for part in lost {
            match part {
                Part::Loopback => netlink::loopback_up(netns)?,
                Part::Rule | Part::Route => self.attachment.add_route()?,
                Part::Dns => self.attachment.add_dns_prefix()?,
                Part::Sysctl => self.attachment.set_sysctls()?,
                Part::Egress => self.attachment.guard_egress()?,
                // Attached again, ours runs after the other.
                Part::Steer | Part::Others => self.attach()?,
                Part::Row | Part::Agent => self.enrol(node)?,
                Part::Netns | Part::Listeners | Part::Addresses | Part::Connection => repair = Repair::Anew,
                Part::NodeLink | Part::NodeMap | Part::Installation | Part::Guest => {}
            }
        }
        Ok(repair)
    }

    /// Stops capturing at once, and lets go of the listeners. Connections that are captured go on, so the route stays until
    /// [`Attachment::remove_route`].
    pub fn release(&self, node: &NodeCapture) -> Result<(), CaptureError> {
        let released = self.attachment.release(node);
        *self.listeners() = None;
        released?;
        OtherLayouts::of(node.pins()).let_go(self.attachment.cookie())
    }

    fn attach(&self) -> Result<(), CaptureError> {
        let link = bpf::attach_lookup(&self.program, self.attachment.netns())
            .map_err(CaptureError::socket("attach the pod's program"))?;
        let info =
            bpf::link_info(&link).map_err(CaptureError::socket("look at the link of the pod's program"))?;
        linux::bpffs::ensure(&self.directory)?;
        pin(&link, &self.directory, program::STEER)?;
        self.link.store(info.id, Ordering::Release);
        Ok(())
    }

    fn enrol(&self, node: &NodeCapture) -> Result<(), CaptureError> {
        let listeners = self.listeners();
        let listeners = listeners.as_ref().ok_or(CaptureError::Missing("listener of the pod"))?;
        let row = self.attachment.row(listeners);
        node.enrol(self.attachment.cookie(), listeners.first(Direction::Outbound)?, row)
    }

    /// Whether the pinned link is the one that was attached, and still is attached to the pod's namespace.
    fn look_at_link(&self) -> Result<(), Problem> {
        const AGAIN: &str = "the agent attaches it again; if it is lost again, look for who removes files below \
                             /sys/fs/bpf or runs bpftool link detach";
        let path = self.directory.join(program::STEER);
        let info = bpf::open_pin(&path).and_then(|link| bpf::link_info(&link)).map_err(|error| {
            Problem::new(format!("its pin {} cannot be opened ({error})", path.display()), AGAIN)
        })?;
        let what = match info.target {
            Target::Netns(inode) if u64::from(inode) != self.attachment.netns().id().inode => {
                "it is attached to another network namespace"
            }
            Target::Netns(_) if info.id != self.link.load(Ordering::Acquire) => {
                "somebody put another link in its place"
            }
            Target::Netns(_) => return Ok(()),
            _ => "somebody detached it from the pod's network namespace",
        };
        Err(Problem::new(what, AGAIN))
    }

    /// Whether the last word on the pod's connections is ours.
    fn look_at_others(&self) -> Line {
        const NAME: &str = "order of sk_lookup programs";
        let own = match bpf::open_pin(&self.directory.join(program::STEER))
            .and_then(|link| bpf::link_info(&link))
        {
            Ok(info) => info.program,
            // The line above tells.
            Err(_) => return Line::new(Part::Others, NAME, Ok(())),
        };
        match others::after(self.attachment.netns(), own) {
            Ok(After::Nothing) => Line::new(Part::Others, NAME, Ok(())),
            Ok(After::Other(Other { id, name, .. })) => {
                let what =
                    format!("program {name} (id {id}) was attached after ours, and may decide otherwise");
                let remedy =
                    "the agent attaches its own again; if that goes on, look for who attaches the other";
                Line::new(Part::Others, NAME, Err(Problem::new(what, remedy)))
            }
            Ok(After::Installation(id)) => {
                let what = format!("another installation of culvert captures the pod too (program id {id})");
                let remedy = "let one of the two leave: stop it and run its `culvert detach`";
                Line::new(Part::Installation, NAME, Err(Problem::new(what, remedy)))
            }
            Err(error) => Line::new(Part::Others, NAME, Err(unseen(&error))),
        }
    }

    fn look_at_row(&self, node: &NodeCapture) -> Result<(), Problem> {
        const AGAIN: &str = "the agent adds it again";
        let listeners = self.listeners();
        let wanted = listeners.as_ref().map(|listeners| self.attachment.row(listeners));
        match (node.row(self.attachment.cookie()), wanted) {
            (None, _) => Err(Problem::new("it is gone: new connections of the pod are not marked", AGAIN)),
            (Some(row), Some(wanted)) if row != wanted => Err(Problem::new(
                "it has another value: DNS queries or the egress guard are led astray",
                AGAIN,
            )),
            (Some(_), _) => Ok(()),
        }
    }

    fn look_at_listeners(&self) -> Result<(), Problem> {
        const ANEW: &str = "the agent captures the pod anew; if it happens again, look for who closes sockets in the pod \
                            (ss -K)";
        let listeners = self.listeners();
        let listeners = listeners.as_ref().ok_or_else(|| Problem::new("the pod is being released", ""))?;
        match listeners.closed() {
            0 => Ok(()),
            count => Err(Problem::new(format!("{count} of them take nothing any more"), ANEW)),
        }
    }

    fn look_at_addresses(&self, now: &[IpAddr]) -> Result<(), Problem> {
        const ANEW: &str = "the agent captures the pod anew with the addresses that it has";
        let as_key = |address: &IpAddr| PodAddress::from(*address).words();
        let known: HashSet<[u32; 4]> = self.addresses.keys().flatten().map(|key| key.0.words()).collect();
        let wanted: HashSet<[u32; 4]> = now.iter().map(as_key).collect();
        if known == wanted {
            return Ok(());
        }
        let before = self.attachment.addresses();
        Err(Problem::new(format!("the pod has {now:?}, capture knows {before:?}"), ANEW))
    }

    /// Descriptors of the pod's listening sockets, with what each is for, to be passed to another agent.
    pub fn share_listeners(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        self.listeners().as_ref().map_or(Ok(Vec::new()), Listeners::share)
    }

    fn listeners(&self) -> MutexGuard<'_, Option<Listeners>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn agent(agents: &HashSet<u64>, cookie: u64) -> Result<(), Problem> {
    if agents.contains(&cookie) {
        return Ok(());
    }
    Err(Problem::new("it is gone: new connections of the pod are refused", "the agent adds it again"))
}

pub(crate) fn unseen(error: &impl std::fmt::Display) -> Problem {
    Problem::new(format!("cannot be looked at: {error}"), "see the agent's log")
}

/// The map of a pod's addresses, found by the program that reads it.
fn addresses_of(program: &OwnedFd) -> Result<Addresses, CaptureError> {
    let ids = bpf::maps_of(program).map_err(CaptureError::socket("list the maps of the pod's program"))?;
    for id in ids {
        let data = MapData::from_id(id).map_err(CaptureError::map(map::ADDRESSES))?;
        let info = data.info().map_err(CaptureError::map(map::ADDRESSES))?;
        if info.name_as_str() == Some(map::ADDRESSES) {
            let map = Map::from_map_data(data).map_err(CaptureError::map(map::ADDRESSES))?;
            return Addresses::try_from(map).map_err(CaptureError::map(map::ADDRESSES));
        }
    }
    Err(CaptureError::Missing(map::ADDRESSES))
}
