//! The walk-throughs, by name: what can be asked for, and what is told of each beforehand.

/// A walk-through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Bookinfo's services on three nodes, with the access log of both ends of a connection.
    Bookinfo,
}

impl Scenario {
    /// All of them, in the order in which they are played.
    pub const ALL: [Self; 1] = [Self::Bookinfo];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookinfo => "bookinfo",
        }
    }

    /// What it shows.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bookinfo => "Bookinfo on three nodes, and what both ends of a connection log",
        }
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
