//! The node's half of capture, switched on and off between slices, and what it takes this process for.
//!
//! The connect programs run for every connect(2) of the machine, so "no capture at all" is measured with none attached.
//! Switching off removes the pins of programs and leaves those of maps (whose names are in capitals): pods stay
//! enrolled, and the next switching on finds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use linux::bpffs;
use redirect::pins::Pins;
use redirect::{Attachment, NodeCapture};

use super::apart::Apart;

/// What connections of this process are to the connect programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Anybody's.
    Application,
    /// The agent's.
    Agent,
    /// The kubelet's.
    Kubelet,
}

/// Programs of a node that come and go.
pub(crate) struct Switch {
    bpffs: PathBuf,
    node: Option<NodeCapture>,
    pod: Option<Arc<Attachment>>,
    apart: Apart,
}

impl Switch {
    /// Switched on.
    pub(crate) fn new(bpffs: &Path) -> Result<Self> {
        let node = Some(NodeCapture::open(bpffs)?);
        Ok(Self { bpffs: bpffs.to_owned(), node, pod: None, apart: Apart::new()? })
    }

    /// The pod in which this process makes itself known as the agent.
    pub(crate) fn set_pod(&mut self, pod: Option<Arc<Attachment>>) {
        self.pod = pod;
    }

    /// Switches capture on, with this process in that part, or off.
    pub(crate) fn set(&mut self, part: Option<Part>) -> Result<()> {
        let Some(part) = part else { return self.off() };
        self.on()?;
        let (node, pod) = (self.node.as_ref().context("capture is on")?, self.pod.as_ref());
        node.dismiss()?;
        if part == Part::Agent {
            pod.context("a pod")?.enlist(node)?;
        }
        let (mut processes, mut cgroups) = (BTreeSet::new(), BTreeSet::new());
        if part == Part::Kubelet {
            processes.insert(std::process::id());
            cgroups.insert(self.apart.enter()?);
        } else {
            self.apart.leave()?;
        }
        Ok(node.set_probers(&processes, &cgroups)?)
    }

    fn on(&mut self) -> Result<()> {
        if self.node.is_none() {
            self.node = Some(NodeCapture::open(&self.bpffs)?);
        }
        Ok(())
    }

    fn off(&mut self) -> Result<()> {
        self.apart.leave()?;
        if self.node.take().is_some() {
            let pins = Pins::new(&self.bpffs).node();
            for name in bpffs::entries(&pins)? {
                if !name.contains(|c: char| c.is_ascii_uppercase()) {
                    bpffs::remove_file(&pins.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// The node, switched on.
    pub(crate) fn node(&mut self) -> Result<&NodeCapture> {
        self.on()?;
        self.node.as_ref().context("capture is switched on")
    }
}
