//! What can fail, and where.

use std::fmt;

/// Nodes by their numbers, from 0.
pub type NodeNumber = usize;

/// Something that fails, and is whole again after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The agent of a node is killed (-9), and started again.
    AgentKilled(NodeNumber),
    /// Another agent takes over from the one of a node.
    AgentReplaced(NodeNumber),
    /// The control plane is killed, and started again.
    PlaneKilled,
    /// The certificate authority is killed, and started again.
    AuthorityKilled,
    /// The link of a node has no carrier.
    LinkDown(NodeNumber),
    /// So many of a thousand packets towards a node do not arrive.
    Lost(NodeNumber, u16),
    /// So many of a thousand arrive twice.
    Doubled(NodeNumber, u16),
    /// So many of a thousand arrive late, and so in another order.
    Reordered(NodeNumber, u16),
    /// Packets on the link of a node may be only so long.
    SmallPackets(NodeNumber, u16),
    /// The namespace of an enrolled pod is deleted without a word; another pod comes in its place.
    NamespaceGone,
    /// Nothing more can be written where a node's agent has its log and its files.
    DiskFull(NodeNumber),
    /// The wall clock of a node's agent is set by so many seconds, forward or back, while all other clocks stay.
    ClockSet(NodeNumber, i16),
}

/// What two faults must not have at once, for one would heal the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The agent's process.
    Agent(NodeNumber),
    /// The control plane's.
    Plane,
    /// The authority's.
    Authority,
    /// Whether a link has a carrier.
    Carrier(NodeNumber),
    /// The program that spoils packets.
    Packets(NodeNumber),
    /// The length of packets.
    Length(NodeNumber),
    /// The pod that is lost.
    Pod,
    /// The place for files.
    Disk(NodeNumber),
    /// The wall clock.
    Clock(NodeNumber),
}

impl Fault {
    /// What it spoils.
    pub fn place(self) -> Place {
        match self {
            Self::AgentKilled(node) | Self::AgentReplaced(node) => Place::Agent(node),
            Self::PlaneKilled => Place::Plane,
            Self::AuthorityKilled => Place::Authority,
            Self::LinkDown(node) => Place::Carrier(node),
            Self::Lost(node, _) | Self::Doubled(node, _) | Self::Reordered(node, _) => Place::Packets(node),
            Self::SmallPackets(node, _) => Place::Length(node),
            Self::NamespaceGone => Place::Pod,
            Self::DiskFull(node) => Place::Disk(node),
            Self::ClockSet(node, _) => Place::Clock(node),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AgentKilled(node) => write!(f, "agent {} killed", node + 1),
            Self::AgentReplaced(node) => write!(f, "agent {} replaced by another", node + 1),
            Self::PlaneKilled => f.write_str("control plane killed"),
            Self::AuthorityKilled => f.write_str("authority killed"),
            Self::LinkDown(node) => write!(f, "link of node {} down", node + 1),
            Self::Lost(node, rate) => write!(f, "{rate} of 1000 packets to node {} lost", node + 1),
            Self::Doubled(node, rate) => write!(f, "{rate} of 1000 packets to node {} doubled", node + 1),
            Self::Reordered(node, rate) => write!(f, "{rate} of 1000 packets to node {} late", node + 1),
            Self::SmallPackets(node, mtu) => write!(f, "MTU of node {} is {mtu}", node + 1),
            Self::NamespaceGone => f.write_str("namespace of a pod deleted"),
            Self::DiskFull(node) => write!(f, "disk of node {} full", node + 1),
            Self::ClockSet(node, seconds) => write!(f, "clock of node {} set by {seconds:+} s", node + 1),
        }
    }
}
