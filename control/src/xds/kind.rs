//! The two types of resources that a node agent subscribes to.

use std::fmt;

/// The type of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// The type of policies.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// A type of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Workloads and services.
    Address,
    /// Policies.
    Authorization,
}

impl Kind {
    /// Both, in the order they are asked for.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// Its name on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => ADDRESS,
            Self::Authorization => AUTHORIZATION,
        }
    }

    /// The type of this name.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "workloads and services",
            Self::Authorization => "policies",
        })
    }
}
