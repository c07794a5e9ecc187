//! How the stand-in misbehaves: a script of faults, each for the next requests that it fits.

use std::collections::VecDeque;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status, and what it asks for is not done.
    Status(u16),
    /// The request is answered with something that is no JSON.
    Garbage,
    /// The request is not answered at all for as long as its client waits.
    Stall,
    /// The connection is closed in the middle of the answer.
    Cut,
    /// What the request asks for is done, but its answer is this status.
    DoneBut(u16),
}

/// Which requests it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Patch,
    Delete,
    PortForward,
    Exec,
    Log,
}

impl Verb {
    pub(crate) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "get" => Self::Get,
            "list" => Self::List,
            "watch" => Self::Watch,
            "patch" => Self::Patch,
            "delete" => Self::Delete,
            "portforward" => Self::PortForward,
            "exec" => Self::Exec,
            "log" => Self::Log,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::PortForward => "portforward",
            Self::Exec => "exec",
            Self::Log => "log",
        }
    }
}

/// The faults to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    next: VecDeque<(Verb, Fault)>,
}

impl Faults {
    pub(crate) fn add(&mut self, verb: Verb, fault: Fault, times: usize) {
        self.next.extend(std::iter::repeat_n((verb, fault), times));
    }

    pub(crate) fn clear(&mut self) {
        self.next.clear();
    }

    /// The fault that a request meets; it is used up.
    pub(crate) fn take(&mut self, verb: Verb) -> Option<Fault> {
        let place = self.next.iter().position(|(of, _)| *of == verb)?;
        self.next.remove(place).map(|(_, fault)| fault)
    }
}
