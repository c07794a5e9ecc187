//! The walk-throughs, by name: what can be asked for, and what is told of each beforehand.

/// A walk-through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Bookinfo's services on three nodes, with the access log of both ends of a connection.
    Bookinfo,
    /// A waypoint that sends 90 % of the requests to one version and 10 % to another.
    Split,
    /// A waypoint that delays half of the requests by two seconds.
    Delay,
    /// Who may read what: HTTP methods at the waypoint, identities at the node.
    Authorization,
    /// A gateway that takes plain HTTP from outside into the mesh.
    Ingress,
    /// Pods that come into the mesh and leave it by a label while a client goes on calling.
    Move,
}

impl Scenario {
    /// All of them, in the order in which they are played.
    pub const ALL: [Self; 6] =
        [Self::Bookinfo, Self::Split, Self::Delay, Self::Authorization, Self::Ingress, Self::Move];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookinfo => "bookinfo",
            Self::Split => "split",
            Self::Delay => "delay",
            Self::Authorization => "authorization",
            Self::Ingress => "ingress",
            Self::Move => "move",
        }
    }

    /// What it shows.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bookinfo => "Bookinfo on three nodes, and what both ends of a connection log",
            Self::Split => "a waypoint that splits requests 90 to 10 between two versions",
            Self::Delay => "a waypoint that delays half of the requests by two seconds",
            Self::Authorization => {
                "who may do what: GET by two principals at the waypoint, identities at the node"
            }
            Self::Ingress => "a gateway that takes plain HTTP from outside into the mesh",
            Self::Move => "in and out of the mesh by a label, while a client goes on calling",
        }
    }

    /// Whether an Envoy takes part.
    pub fn has_envoy(self) -> bool {
        !matches!(self, Self::Bookinfo | Self::Move)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_is_played_once_and_called_what_the_command_line_calls_it() {
        assert_eq!(Scenario::value_variants(), Scenario::ALL);
        for scenario in Scenario::ALL {
            let value = scenario.to_possible_value();
            assert_eq!(value.as_ref().map(clap::builder::PossibleValue::get_name), Some(scenario.name()));
        }
    }
}
