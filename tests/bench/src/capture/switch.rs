//! The node's half of capture, switched on and off between slices.
//!
//! The connect programs run for every connect(2) of the machine, so "no capture at all" is measured with none attached.
//! Switching off removes the pins of programs and leaves those of maps (whose names are in capitals): pods stay
//! enrolled, and the next switching on finds them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use linux::bpffs;
use redirect::NodeCapture;
use redirect::pins::Pins;

/// Programs of a node that come and go.
pub(crate) struct Switch {
    bpffs: PathBuf,
    node: Option<NodeCapture>,
}

impl Switch {
    /// Switched on.
    pub(crate) fn new(bpffs: &Path) -> Result<Self> {
        let node = Some(NodeCapture::open(bpffs)?);
        Ok(Self { bpffs: bpffs.to_owned(), node })
    }

    /// Switches.
    pub(crate) fn set(&mut self, on: bool) -> Result<()> {
        if on && self.node.is_none() {
            self.node = Some(NodeCapture::open(&self.bpffs)?);
        }
        if !on && self.node.take().is_some() {
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
        self.set(true)?;
        self.node.as_ref().context("capture is switched on")
    }
}
