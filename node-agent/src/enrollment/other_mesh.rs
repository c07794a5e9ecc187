//! Pods that istio-cni has captured, on a node that has been moved to this agent without being drained.
//!
//! Their iptables rules stay when its agent goes, and are nobody's to remove one by one while the pod runs. They are told by the
//! policy rule that comes with them in both of iptables' kinds. Such a pod is refused with what to do, rather than captured twice.

use linux::netlink;
use linux::netns::Netns;

use super::EnrollError;

/// What its rules mark packets of its proxy with, and the table that they are looked up in.
const MARK: u32 = 0x111;
const TABLE: u32 = 100;

/// Refuses a namespace that holds such rules.
pub(super) fn refuse(netns: &Netns) -> Result<(), EnrollError> {
    if netlink::has_rule_to(netns, MARK, TABLE)? { Err(EnrollError::OtherMesh) } else { Ok(()) }
}
