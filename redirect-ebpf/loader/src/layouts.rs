//! Other versions' pins beside this one's: an agent of another layout captured pods, and this one takes them over.
//!
//! What every layout has in common, and must keep: a directory `vN` with `node/ENROLLED`, a map whose keys are the cookies of
//! enrolled namespaces, and `pods/COOKIE` with the links of each pod. So whatever else differs, a pod can be let go of
//! there once it is captured here. As long as a pod is not, the other version's programs refuse it: its links stay
//! attached. When no pod is left the directory goes, and with it the other version's programs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use abi::map;
use linux::{bpf, bpffs};

use crate::error::CaptureError;
use crate::pins::Pins;

/// The layouts that are not this version's.
#[derive(Clone, Debug)]
pub struct OtherLayouts {
    root: PathBuf,
}

impl OtherLayouts {
    /// Those beside `pins`.
    pub fn of(pins: &Pins) -> Self {
        Self { root: pins.layouts().to_owned() }
    }

    /// The cookies of the pods that another version captures.
    pub fn cookies(&self) -> Result<HashSet<u64>, CaptureError> {
        let mut cookies = HashSet::new();
        for directory in self.directories()? {
            cookies.extend(cookies_in(&directory)?);
        }
        Ok(cookies)
    }

    /// Where another version would have pinned a pod's link.
    pub(crate) fn pods(&self, cookie: u64) -> Result<Vec<PathBuf>, CaptureError> {
        let directories = self.directories()?;
        Ok(directories.iter().map(|directory| directory.join("pods").join(format!("{cookie:x}"))).collect())
    }

    /// Lets go of a pod that is captured here, or not to be captured any more.
    pub fn let_go(&self, cookie: u64) -> Result<(), CaptureError> {
        for directory in self.directories()? {
            let pin = directory.join("node").join(map::ENROLLED);
            if pin.exists() {
                bpf::open_pin(&pin)
                    .and_then(|enrolled| bpf::delete_row(&enrolled, &cookie.to_ne_bytes()))
                    .map_err(CaptureError::socket("release a pod from another version's capture"))?;
            }
            bpffs::remove(&directory.join("pods").join(format!("{cookie:x}")))?;
        }
        Ok(())
    }

    /// Removes the layouts that capture nobody any more; returns their names.
    pub fn retire(&self) -> Result<Vec<String>, CaptureError> {
        let mut retired = Vec::new();
        for directory in self.directories()? {
            if cookies_in(&directory)?.is_empty() {
                bpffs::remove(&directory)?;
                let name = directory.file_name().unwrap_or_default();
                retired.push(name.to_string_lossy().into_owned());
            }
        }
        Ok(retired)
    }

    /// Removes them all: nothing that another version captured is captured any more.
    pub fn remove(&self) -> Result<(), CaptureError> {
        self.directories()?.iter().try_for_each(|directory| Ok(bpffs::remove(directory)?))
    }

    fn directories(&self) -> Result<Vec<PathBuf>, CaptureError> {
        let names = bpffs::entries(&self.root)?;
        let is_other = |name: &&String| *name != abi::LAYOUT && is_layout(name);
        Ok(names.iter().filter(is_other).map(|name| self.root.join(name)).collect())
    }
}

fn cookies_in(directory: &Path) -> Result<Vec<u64>, CaptureError> {
    let names = bpffs::entries(&directory.join("pods"))?;
    Ok(names.iter().filter_map(|name| u64::from_str_radix(name, 16).ok()).collect())
}

fn is_layout(name: &str) -> bool {
    name.strip_prefix('v')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_from_whatever_else_is_there() {
        for name in ["v0", "v1", "v27"] {
            assert!(is_layout(name), "{name}");
        }
        for name in ["v", "v1x", "1", "node", "vx"] {
            assert!(!is_layout(name), "{name}");
        }
    }
}
