//! Whether a row is the same as recorded, differs on purpose, or is worse.
//!
//! Invariant: the recorded outcome is changed by the rules for this row and nothing else, and then the two are equal or the row is
//! worse. A rule is used where without it they would not be.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use recordings::parity::Row;
use serde_json::Value;

use crate::differences::Difference;
use crate::outcome::{Fields, Outcome};
use crate::rows::title;
use crate::several;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As recorded.
    Same,
    /// As the differences say, by their numbers.
    Better(BTreeSet<usize>),
    /// Neither; how, in lines.
    Worse(String),
}

/// Compares what was recorded with what became of the row here, both without chance.
pub fn judge(row: &Row, recorded: &Outcome, ours: &Outcome, differences: &[Difference]) -> Verdict {
    let one = |outcome: &Outcome| {
        if several::is_it(row) { several::once(outcome.clone()) } else { outcome.clone().sorted() }
    };
    if let Err(error) = several::is_it(row).then(|| several::adds_up(row, ours)).transpose() {
        return Verdict::Worse(format!("{error:#}\n"));
    }
    let (plain, here) = (one(recorded), one(ours));
    if plain == here {
        return Verdict::Same;
    }
    let title = title(row);
    let rules: Vec<usize> = (0..differences.len())
        .filter(|rule| differences.get(*rule).is_some_and(|it| it.patterns_of(&title).next().is_some()))
        .collect();
    let by = |rules: &[usize]| {
        let mut outcome = recorded.clone();
        rules.iter().filter_map(|rule| differences.get(*rule)).for_each(|rule| rule.apply(&mut outcome));
        one(&outcome)
    };
    let expected = by(&rules);
    if expected != here {
        return Verdict::Worse(unlike(&expected, &here));
    }
    let without = |rule: usize| rules.iter().copied().filter(|other| *other != rule).collect::<Vec<_>>();
    Verdict::Better(rules.iter().copied().filter(|rule| by(&without(*rule)) != here).collect())
}

/// What one has and the other has not.
fn unlike(expected: &Outcome, here: &Outcome) -> String {
    let mut text = String::new();
    let parts = [
        ("result", Some(&expected.results), Some(&here.results)),
        ("line", expected.log.as_ref(), here.log.as_ref()),
        ("series", expected.metrics.as_ref(), here.metrics.as_ref()),
    ];
    for (part, expected, here) in parts {
        let (expected, here) = (expected.map_or(&[][..], Vec::as_slice), here.map_or(&[][..], Vec::as_slice));
        for fields in only_in(expected, here) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "- {part} {}", Value::Object(fields));
        }
        for fields in only_in(here, expected) {
            let _ = writeln!(text, "+ {part} {}", Value::Object(fields));
        }
    }
    text
}

/// Those of `these` that are not among `those`, as often as they are more there.
fn only_in(these: &[Fields], those: &[Fields]) -> Vec<Fields> {
    let mut rest = those.to_vec();
    let mut only = Vec::new();
    for fields in these {
        match rest.iter().position(|other| other == fields) {
            Some(found) => {
                rest.swap_remove(found);
            }
            None => only.push(fields.clone()),
        }
    }
    only
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(results: Value) -> Outcome {
        Outcome { results: serde_json::from_value(results).unwrap(), ..Outcome::default() }
    }

    #[test]
    fn a_row_is_the_same_or_as_the_rules_say_or_worse() {
        let row: Row = serde_json::from_value(json!({
            "group": "g", "about": "it", "from": "x", "to": "10.0.0.1:1", "results": [{ "outcome": "closed" }],
            "xds_before": 0, "xds_messages": 0,
        }))
        .unwrap();
        let rule = |rows: &str, from: &str, to: &str| -> Difference {
            let edits =
                json!([{ "part": "results", "where": { "outcome": from }, "set": { "outcome": to } }]);
            serde_json::from_value(json!({ "name": "", "reason": "", "rows": [rows], "edits": edits }))
                .unwrap()
        };
        let rules = [
            rule("other: *", "closed", "reset"),
            rule("g: it*", "closed", "reset"),
            rule("g: *", "none", "x"),
        ];
        let recorded = outcome(json!([{ "outcome": "closed" }]));
        let judge =
            |here: &str| super::judge(&row, &recorded, &outcome(json!([{ "outcome": here }])), &rules);
        assert_eq!(judge("closed"), Verdict::Same);
        assert_eq!(judge("reset"), Verdict::Better([1].into()));
        let Verdict::Worse(how) = judge("answered") else { panic!("not worse") };
        assert!(how.contains(r#"- result {"outcome":"reset"}"#), "{how}");
        assert!(how.contains(r#"+ result {"outcome":"answered"}"#), "{how}");
    }
}
