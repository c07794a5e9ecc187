//! Where things are pinned: `BPFFS/v1/node` and one directory a pod, `BPFFS/v1/pods/COOKIE`.
//!
//! The kernel forbids dots in names there. A new link is pinned beside the old one and then renamed over it, so that at
//! every moment at least one is attached.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use linux::{bpf, bpffs};

use crate::error::CaptureError;

/// The directory of one installation.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Of an installation whose pins are below `bpffs`.
    pub fn new(bpffs: &Path) -> Self {
        Self { root: bpffs.join(abi::LAYOUT) }
    }

    /// The directory in which every layout has one of its own.
    pub(crate) fn layouts(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Pins of the node's programs and maps.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Pins of all pods.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Pins of one pod.
    pub fn pod(&self, cookie: u64) -> PathBuf {
        self.pods().join(format!("{cookie:x}"))
    }

    /// The cookies of all pods that have pins.
    pub fn cookies(&self) -> Result<Vec<u64>, CaptureError> {
        let names = bpffs::entries(&self.pods())?;
        Ok(names.iter().filter_map(|name| u64::from_str_radix(name, 16).ok()).collect())
    }
}

/// Pins `link` as `directory/name`, in the place of what is pinned there, which goes with its pin.
pub(crate) fn pin_link(link: FdLink, directory: &Path, name: &str) -> Result<(), CaptureError> {
    let new = directory.join(format!("{name}_new"));
    bpffs::remove_file(&new)?;
    link.pin(&new).map_err(|source| CaptureError::Pin { name: name.to_owned(), source })?;
    bpffs::replace(&new, &directory.join(name))?;
    Ok(())
}

/// Pins any object as `directory/name`, in the place of what is pinned there.
pub(crate) fn pin(object: &impl AsFd, directory: &Path, name: &str) -> Result<(), CaptureError> {
    let new = directory.join(format!("{name}_new"));
    bpffs::remove_file(&new)?;
    bpf::pin(object, &new).map_err(CaptureError::socket("pin an eBPF object"))?;
    bpffs::replace(&new, &directory.join(name))?;
    Ok(())
}
