//! The committed floor: ratios below which a change has made capture slower than it may be.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

const FLOOR: &str = include_str!("../../floor.yaml");

/// A ratio that is judged.
#[derive(Clone, Debug)]
pub(crate) struct Ratio {
    /// Group and name, as in the floor file.
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) value: f64,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Floor(BTreeMap<String, BTreeMap<String, f64>>);

/// Fails with every ratio that is below its floor, or has none.
pub(crate) fn check(ratios: &[Ratio]) -> Result<()> {
    let floor: Floor = serde_saphyr::from_str(FLOOR).context("tests/bench/floor.yaml")?;
    let wrong = below(&floor, ratios);
    if !wrong.is_empty() {
        bail!("below the floor of tests/bench/floor.yaml:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn below(floor: &Floor, ratios: &[Ratio]) -> Vec<String> {
    let judge = |ratio: &Ratio| {
        let Ratio { group, name, value } = ratio;
        match floor.0.get(*group).and_then(|group| group.get(name)) {
            None => Some(format!("{group} {name}: {value:.3}, and the file has no floor for it")),
            Some(floor) if value < floor => {
                Some(format!("{group} {name}: {value:.3}, at least {floor:.3} is due"))
            }
            Some(_) => None,
        }
    };
    ratios.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_its_floor_or_has_none_is_named() {
        let floor: Floor = serde_saphyr::from_str("rate: {outbound: 0.9, inbound: 0.9}").unwrap();
        let ratio = |name: &str, value| Ratio { group: "rate", name: name.to_owned(), value };
        let wrong = below(&floor, &[ratio("outbound", 0.89), ratio("inbound", 0.9), ratio("new", 2.0)]);
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].contains("outbound: 0.890, at least 0.900"), "{wrong:?}");
        assert!(wrong[1].contains("new") && wrong[1].contains("no floor"), "{wrong:?}");
    }

    #[test]
    fn the_committed_floor_is_read() {
        let floor: Floor = serde_saphyr::from_str(FLOOR).unwrap();
        assert!(floor.0.contains_key("rate") && floor.0.contains_key("bulk") && floor.0.contains_key("pods"));
    }
}
