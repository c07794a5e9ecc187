//! What an agent that ended left of pods that are gone: found by the links that are attached to nothing any more.
//!
//! A link outlives the namespace it was attached to, and then says so. So nothing has to be remembered to know that a pod
//! is gone, and nothing is concluded of a pod whose link still is attached.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use abi::program;
use linux::bpf::{self, Target};

use crate::error::CaptureError;
use crate::layouts::OtherLayouts;
use crate::node::NodeCapture;

/// What a sweep has found, by the cookies of namespaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Gone, and what was left of them removed.
    pub removed: Vec<u64>,
    /// Still captured, but unknown to whoever asked.
    pub unknown: Vec<u64>,
}

/// Removes what is left of pods that are gone; `known` ones are whoever asked's own business.
pub fn sweep(node: &NodeCapture, known: &HashSet<u64>) -> Result<Swept, CaptureError> {
    let others = OtherLayouts::of(node.pins());
    let mut cookies: BTreeSet<u64> = node.pins().cookies()?.into_iter().collect();
    cookies.extend(node.enrolled());
    cookies.extend(others.cookies()?);
    let mut swept = Swept::default();
    for cookie in cookies.into_iter().filter(|cookie| !known.contains(cookie)) {
        let pinned = std::iter::once(node.pins().pod(cookie)).chain(others.pods(cookie)?);
        let links: Vec<Target> = pinned.filter_map(|directory| target(&directory)).collect();
        // Without any link nothing proves that the pod is gone, unless nothing is marked there either.
        let is_gone = if links.is_empty() {
            !node.is_enrolled(cookie)
        } else {
            links.iter().all(|target| *target == Target::Nothing)
        };
        if is_gone {
            node.forget(cookie)?;
            others.let_go(cookie)?;
            swept.removed.push(cookie);
        } else {
            swept.unknown.push(cookie);
        }
    }
    Ok(swept)
}

/// What the link that is pinned in a pod's directory is attached to; none where there is no link.
fn target(directory: &Path) -> Option<Target> {
    let link = bpf::open_pin(&directory.join(program::STEER)).ok()?;
    Some(bpf::link_info(&link).map_or(Target::Other, |info| info.target))
}
