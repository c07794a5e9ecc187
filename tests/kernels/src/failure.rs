//! Machines on which capture cannot work: each must be told by its error, in words that say what to do.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use linux::netns::Netns;
use redirect::{Attachment, CaptureError, NodeCapture};

use crate::BPFFS;
use crate::world::{own_mounts, path_of, unmount};

/// The word by which this program is started to fail.
pub(crate) const ROLE: &str = "fail";

const NO_CGROUP: &str = "no-cgroup-v2";
const NO_PRIVILEGE: &str = "no-privilege";
const NO_ADDRESS: &str = "no-address";
const NO_CLASSIFIER: &str = "no-classifier";

/// `nobody` of Debian; any user but root would do.
const NOBODY: u32 = 65534;

/// Without a cgroup v2 hierarchy. Returns what the error says.
pub(crate) fn without_cgroup() -> Result<String> {
    said(Command::new("/proc/self/exe").args([ROLE, NO_CGROUP]))
}

/// As a user without privileges.
pub(crate) fn without_privilege() -> Result<String> {
    said(Command::new("/proc/self/exe").args([ROLE, NO_PRIVILEGE]).uid(NOBODY).gid(NOBODY))
}

/// For a pod whose network is not there yet.
pub(crate) fn without_address(pod: &Netns) -> Result<String> {
    said(Command::new("/proc/self/exe").args([ROLE, NO_ADDRESS]).arg(path_of(pod)))
}

/// On a kernel that has neither links on interfaces nor the modules to do without them.
pub(crate) fn without_classifier() -> Result<String> {
    said(Command::new("/proc/self/exe").args([ROLE, NO_CLASSIFIER]))
}

fn said(command: &mut Command) -> Result<String> {
    let ended = command.output().context("starting the failing agent")?;
    let text = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    if !ended.status.success() {
        bail!("not the error that is documented: {text}{}", String::from_utf8_lossy(&ended.stderr));
    }
    Ok(text)
}

/// The failing side: succeeds if capture fails as documented, and then says the error's words.
pub(crate) fn provoke(kind: &OsStr, rest: &[OsString]) -> Result<()> {
    let kind = kind.to_str().context("the kind is not text")?;
    if kind == NO_CGROUP {
        own_mounts()?;
        unmount("cgroup2")?;
    }
    let outcome = NodeCapture::open(Path::new(BPFFS)).and_then(|node| match rest {
        [netns] => Attachment::attach(&node, Netns::open(Path::new(netns))?).map(|_| ()),
        _ if kind == NO_CLASSIFIER => redirect::egress::prepare(&node, true),
        _ => Ok(()),
    });
    let Err(error) = outcome else { bail!("capture worked") };
    let documented = match kind {
        NO_CGROUP => matches!(error, CaptureError::Cgroup(_)),
        NO_PRIVILEGE => matches!(error, CaptureError::Privilege(_)),
        NO_ADDRESS => matches!(error, CaptureError::NoAddress),
        NO_CLASSIFIER => matches!(error, CaptureError::Guard { .. }),
        other => bail!("{other} is no kind of failure"),
    };
    if !documented {
        bail!("{error}");
    }
    println!("{error}");
    Ok(())
}
