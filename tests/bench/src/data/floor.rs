//! The committed ratios, from which a change may take a tenth at most.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::report::{Judged, Measured};

const FLOOR: &str = include_str!("../../floor-data.yaml");
/// What a ratio may lose.
const LOSS: f64 = 0.10;

/// By group, and in it by row.
type Floor = BTreeMap<String, BTreeMap<String, f64>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floors {
    /// Of the agent as it is shipped.
    shipped: Floor,
    /// Of the short form and its agent.
    short: Floor,
}

/// Fails with every ratio that has lost more than a tenth, or that the file does not know.
pub(super) fn check(measured: &Measured, short: bool) -> Result<()> {
    let floors: Floors = serde_saphyr::from_str(FLOOR).context("tests/bench/floor-data.yaml")?;
    let wrong = below(if short { &floors.short } else { &floors.shipped }, &measured.judged());
    if !wrong.is_empty() {
        bail!("more than a tenth below tests/bench/floor-data.yaml:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn below(floor: &Floor, judged: &[Judged]) -> Vec<String> {
    let judge = |one: &Judged| {
        let Judged { group, name, value } = one;
        match floor.get(*group).and_then(|group| group.get(*name)) {
            None => Some(format!("{group} {name}: {value:.3}, and the file has nothing for it")),
            Some(floor) if *value < floor * (1.0 - LOSS) => {
                Some(format!("{group} {name}: {value:.3}, the file says {floor:.3}"))
            }
            Some(_) => None,
        }
    };
    judged.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::super::case::CASES;
    use super::*;

    #[test]
    fn a_tenth_may_be_lost_and_no_more() {
        let floor: Floor = serde_saphyr::from_str("speed: {bulk-1: 0.4, ask: 0.4}").unwrap();
        let one = |name, value| Judged { group: "speed", name, value };
        let wrong = below(&floor, &[one("bulk-1", 0.361), one("ask", 0.359), one("new", 2.0)]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("ask: 0.359, the file says 0.400"), "{wrong:?}");
        assert!(wrong[1].contains("new") && wrong[1].contains("nothing for it"), "{wrong:?}");
    }

    #[test]
    fn the_committed_file_knows_every_row() {
        let Floors { shipped, short } = serde_saphyr::from_str(FLOOR).unwrap();
        for floor in [shipped, short] {
            for group in ["speed", "thrift"] {
                for case in CASES {
                    assert!(floor[group].contains_key(case.name()), "{group} {}", case.name());
                }
            }
        }
    }
}
