//! What an inspection found: line by line, each part of capture, what is wrong with it and how to mend it.
//!
//! The words are for people; [`Part`] is for counting and for repair.

use std::fmt;

/// A part that can be lost on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The pod's network namespace itself: another one is there now.
    Netns,
    /// The row that makes the connect programs mark.
    Row,
    /// The outbound listener that the connect programs look for.
    Agent,
    /// The link of the sk_lookup program.
    Steer,
    /// The agent's listening sockets.
    Listeners,
    /// The addresses that the sk_lookup program knows.
    Addresses,
    /// The loopback interface.
    Loopback,
    /// The rule for marked packets.
    Rule,
    /// The route to the agent.
    Route,
    /// What leads DNS queries to the agent.
    Dns,
    /// A setting of the namespace.
    Sysctl,
    /// The egress guard on an interface.
    Egress,
    /// A connection that is made to see whether it arrives.
    Connection,
    /// A program of the node on the root cgroup.
    NodeLink,
    /// A pinned map of the node.
    NodeMap,
    /// A program of somebody else's on one of our hooks.
    Others,
    /// Another installation of ours in the same pod.
    Installation,
    /// The pod's sockets, if they are not in its namespace.
    Guest,
}

impl Part {
    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Row => "row",
            Self::Agent => "agent",
            Self::Steer => "steer",
            Self::Listeners => "listeners",
            Self::Addresses => "addresses",
            Self::Loopback => "loopback",
            Self::Rule => "rule",
            Self::Route => "route",
            Self::Dns => "dns",
            Self::Sysctl => "sysctl",
            Self::Egress => "egress_guard",
            Self::Connection => "connection",
            Self::NodeLink => "node_link",
            Self::NodeMap => "node_map",
            Self::Others => "others",
            Self::Installation => "installation",
            Self::Guest => "guest",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One part, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which part.
    pub part: Part,
    /// Which one exactly, for people: `ip rule, IPv4`.
    pub name: String,
    /// What is wrong with it, if something is.
    pub problem: Option<Problem>,
    /// What is not wrong, but worth knowing.
    pub note: Option<Problem>,
}

/// What is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was found.
    pub what: String,
    /// How to mend it.
    pub remedy: String,
}

impl Problem {
    /// From words.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl Line {
    /// A part that is `found` well or not.
    pub fn new(part: Part, name: impl Into<String>, found: Result<(), Problem>) -> Self {
        Self { part, name: name.into(), problem: found.err(), note: None }
    }

    /// A part with which nothing is wrong, and something is worth knowing.
    pub fn noted(part: Part, name: impl Into<String>, note: Problem) -> Self {
        Self { part, name: name.into(), problem: None, note: Some(note) }
    }
}

/// All lines of an inspection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which a connection meets the parts.
    pub lines: Vec<Line>,
}

impl Report {
    /// Is nothing wrong?
    pub fn is_whole(&self) -> bool {
        self.lines.iter().all(|line| line.problem.is_none())
    }

    /// The parts with something wrong, each once.
    pub fn lost(&self) -> Vec<Part> {
        let mut parts: Vec<Part> =
            self.lines.iter().filter(|line| line.problem.is_some()).map(|line| line.part).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Everything that is wrong, in one sentence.
    pub fn problems(&self) -> String {
        let words = self.lines.iter().filter_map(|line| {
            let problem = line.problem.as_ref()?;
            Some(format!("{}: {}", line.name, problem.what))
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_parts_are_told_once_and_problems_each() {
        let bad = |what: &str| Err(Problem::new(what, ""));
        let report = Report {
            lines: vec![
                Line::new(Part::Rule, "ip rule, IPv4", bad("not there")),
                Line::new(Part::Row, "row", Ok(())),
                Line::new(Part::Rule, "ip rule, IPv6", bad("another mask")),
            ],
        };
        assert!(!report.is_whole());
        assert_eq!(report.lost(), [Part::Rule]);
        assert_eq!(report.problems(), "ip rule, IPv4: not there; ip rule, IPv6: another mask");
        assert!(Report::default().is_whole());
    }
}
