//! What differs on purpose: rules, each with its reason and the rows that it is for, which turn what was recorded into what is
//! to be here.
//!
//! Invariant: a rule changes a recorded outcome by words of its own, so whatever it does not name is compared as ever. A rule, or one
//! of its rows, that makes no difference is found by [`crate::report`].

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::outcome::{Fields, Outcome};

/// One difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// What it is, in a few words.
    pub name: String,
    /// Why it is on purpose.
    pub reason: String,
    /// Titles of rows, see [`crate::rows::title`]; `*` stands for anything.
    pub rows: Vec<String>,
    /// What is to be changed in what was recorded.
    pub edits: Vec<Edit>,
}

/// A change of what was recorded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// What is changed.
    pub part: Part,
    /// Which objects of it: those that have all of these fields; an empty text is a field that is absent.
    #[serde(default, rename = "where")]
    pub matching: Fields,
    /// What they have in place of what was recorded.
    #[serde(default)]
    pub set: Fields,
    /// What they have not.
    #[serde(default)]
    pub unset: Vec<String>,
    /// What becomes of the object itself.
    #[serde(default)]
    pub and: And,
}

/// A part of an outcome.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What the client saw.
    Results,
    /// The access log.
    Log,
    /// The series.
    Metrics,
}

/// What becomes of an object besides its fields.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum And {
    /// It is there once, changed.
    #[default]
    Change,
    /// It is there as it was, and a changed copy of it, too.
    Keep,
    /// It is not there.
    Drop,
    /// An object of these fields is there, besides all others.
    Add,
}

/// All differences, in the order of the file.
pub fn read(path: &Path) -> Result<Vec<Difference>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let all: Vec<Difference> =
        serde_saphyr::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    for difference in &all {
        let Difference { name, reason, rows, edits } = difference;
        ensure!(!reason.trim().is_empty(), "{name}: a difference without a reason");
        ensure!(!rows.is_empty() && !edits.is_empty(), "{name}: a difference of no row");
    }
    Ok(all)
}

impl Difference {
    /// Those of its patterns that a row's title fits.
    pub fn patterns_of<'a>(&'a self, title: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.rows.iter().enumerate().filter(|(_, pattern)| fits(pattern, title)).map(|(index, _)| index)
    }

    /// What is to be here in place of what was recorded.
    pub fn apply(&self, outcome: &mut Outcome) {
        self.edits.iter().for_each(|edit| edit.apply(outcome));
    }
}

impl Edit {
    fn apply(&self, outcome: &mut Outcome) {
        let all = match self.part {
            Part::Results => &mut outcome.results,
            Part::Log => match &mut outcome.log {
                Some(log) => log,
                None => return,
            },
            Part::Metrics => match &mut outcome.metrics {
                Some(metrics) => metrics,
                None => return,
            },
        };
        if self.and == And::Add {
            return all.push(self.set.clone());
        }
        for fields in std::mem::take(all) {
            if !self.matches(&fields) {
                all.push(fields);
                continue;
            }
            if self.and == And::Keep {
                all.push(fields.clone());
            }
            if self.and != And::Drop {
                all.push(self.changed(fields));
            }
        }
    }

    fn matches(&self, fields: &Fields) -> bool {
        self.matching.iter().all(|(key, value)| match fields.get(key) {
            Some(own) => own == value,
            None => value == "",
        })
    }

    fn changed(&self, mut fields: Fields) -> Fields {
        fields.retain(|key, _| !self.unset.contains(key));
        fields.extend(self.set.clone());
        fields
    }
}

/// Whether a text is one that a pattern with `*` stands for.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn patterns_fit_what_they_stand_for() {
        for (pattern, text, fitting) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*b", "ba", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*", "", true),
            ("a*b*", "axbx", true),
        ] {
            assert_eq!(fits(pattern, text), fitting, "{pattern} {text}");
        }
    }

    #[test]
    fn an_edit_changes_what_it_names() {
        let objects = json!([{ "a": 1, "b": 2 }, { "a": 2 }]);
        let fields: Vec<Fields> = serde_json::from_value(objects).unwrap();
        for (edit, expected) in [
            (
                json!({ "where": { "a": 1 }, "set": { "c": 3 }, "unset": ["b"] }),
                json!([{ "a": 1, "c": 3 }, { "a": 2 }]),
            ),
            (json!({ "where": { "b": "" }, "set": { "a": 9 } }), json!([{ "a": 1, "b": 2 }, { "a": 9 }])),
            (json!({ "where": { "a": 1 }, "and": "drop" }), json!([{ "a": 2 }])),
            (
                json!({ "where": { "a": 2 }, "set": { "a": 3 }, "and": "keep" }),
                json!([{ "a": 1, "b": 2 }, { "a": 2 }, { "a": 3 }]),
            ),
            (json!({ "set": { "n": 1 }, "and": "add" }), json!([{ "a": 1, "b": 2 }, { "a": 2 }, { "n": 1 }])),
        ] {
            let mut edit = edit;
            edit["part"] = "results".into();
            let edit: Edit = serde_json::from_value(edit).unwrap();
            let mut outcome = Outcome { results: fields.clone(), ..Outcome::default() };
            edit.apply(&mut outcome);
            assert_eq!(Value::from_iter(outcome.results.into_iter().map(Value::Object)), expected);
        }
    }

    #[test]
    fn every_difference_of_the_file_is_of_rows_that_there_are() {
        use recordings::parity::{live, policy, routing};
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("differences.yaml");
        let rows = [routing().unwrap(), policy().unwrap(), live().unwrap()];
        let titles: Vec<String> = rows.iter().flatten().map(crate::rows::title).collect();
        for difference in read(&path).unwrap() {
            for pattern in &difference.rows {
                assert!(
                    titles.iter().any(|title| fits(pattern, title)),
                    "{}: no row {pattern}",
                    difference.name
                );
            }
        }
    }
}
