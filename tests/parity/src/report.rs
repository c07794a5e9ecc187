//! The end of a run: the table, the differences that occurred, and whether all of it is as it must be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::compare::Verdict;
use crate::differences::Difference;

/// What became of every row, by its title, group by group.
#[derive(Debug, Default)]
pub struct Report {
    groups: Vec<Group>,
}

/// A group of rows.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many rows were recorded.
    pub recorded: usize,
    /// What became of those that were made, by title.
    pub verdicts: Vec<(String, Verdict)>,
}

impl Report {
    /// Adds a group that was made.
    pub fn add(&mut self, group: Group) {
        self.groups.push(group);
    }

    /// All of it in words, and what is wrong, if anything is.
    pub fn tell(&self, differences: &[Difference]) -> (String, Vec<String>) {
        let (mut text, mut wrong) = (String::new(), Vec::new());
        let occurred = self.occurred(differences);
        for (rule, difference) in differences.iter().enumerate() {
            let rows = occurred.get(&rule).map(|rows| rows.iter().sum::<usize>()).unwrap_or_default();
            // Writing to a string does not fail.
            let _ = writeln!(text, "  better, {rows} rows: {}", difference.name);
        }
        let _ = writeln!(text, "\n  {:<20}{:>6}{:>6}{:>8}{:>7}", "", "rows", "same", "better", "worse");
        let mut all = [0; 4];
        for group in &self.groups {
            let counts = group.counts();
            let _ = writeln!(text, "  {}", line(&group.name, counts));
            all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            if group.verdicts.len() != group.recorded {
                let (made, of) = (group.verdicts.len(), group.recorded);
                wrong.push(format!("{}: {made} of {of} rows were made", group.name));
            }
        }
        let _ = writeln!(text, "  {}", line("all", all));
        let [.., worse] = all;
        if worse > 0 {
            wrong.push(format!("{worse} rows are worse"));
        }
        wrong.extend(unused(differences, &occurred));
        (text, wrong)
    }

    /// In how many rows each pattern of each difference occurred.
    fn occurred(&self, differences: &[Difference]) -> BTreeMap<usize, Vec<usize>> {
        let mut occurred: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (title, verdict) in self.groups.iter().flat_map(|group| &group.verdicts) {
            let Verdict::Better(rules) = verdict else { continue };
            for rule in rules {
                let Some(difference) = differences.get(*rule) else { continue };
                let patterns = occurred.entry(*rule).or_insert_with(|| vec![0; difference.rows.len()]);
                // A row counts for the first of those that it fits; the others have to have rows of their own.
                if let Some(count) = difference.patterns_of(title).next().and_then(|at| patterns.get_mut(at))
                {
                    *count += 1;
                }
            }
        }
        occurred
    }
}

impl Group {
    fn counts(&self) -> [usize; 4] {
        let count = |wanted: fn(&Verdict) -> bool| self.verdicts.iter().filter(|(_, it)| wanted(it)).count();
        [
            self.recorded,
            count(|verdict| matches!(verdict, Verdict::Same)),
            count(|verdict| matches!(verdict, Verdict::Better(_))),
            count(|verdict| matches!(verdict, Verdict::Worse(_))),
        ]
    }
}

fn line(name: &str, [rows, same, better, worse]: [usize; 4]) -> String {
    format!("{name:<20}{rows:>6}{same:>6}{better:>8}{worse:>7}")
}

/// Differences, row by row, that are listed and did not occur.
fn unused(differences: &[Difference], occurred: &BTreeMap<usize, Vec<usize>>) -> Vec<String> {
    let mut unused = Vec::new();
    for (rule, difference) in differences.iter().enumerate() {
        for (at, pattern) in difference.rows.iter().enumerate() {
            if occurred.get(&rule).and_then(|rows| rows.get(at)).is_none_or(|count| *count == 0) {
                unused.push(format!("does not occur any more: {}, in {pattern}", difference.name));
            }
        }
    }
    unused
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(rows: &[&str]) -> Difference {
        serde_json::from_value(json!({ "name": "rule", "reason": "r", "rows": rows, "edits": [] })).unwrap()
    }

    fn report(recorded: usize, verdicts: &[(&str, Verdict)]) -> Report {
        let verdicts =
            verdicts.iter().map(|(title, verdict)| ((*title).to_owned(), verdict.clone())).collect();
        let mut report = Report::default();
        report.add(Group { name: "g".to_owned(), recorded, verdicts });
        report
    }

    #[test]
    fn a_row_that_is_worse_or_missing_and_a_rule_that_is_not_used_are_wrong() {
        let better = || Verdict::Better([0].into());
        let used = [rule(&["a*"])];
        let fine = report(2, &[("a", better()), ("b", Verdict::Same)]);
        let (text, wrong) = fine.tell(&used);
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(text.contains("better, 1 rows: rule") && text.contains("rows  same"), "{text}");
        for (report, rules, what) in [
            (report(1, &[("a", Verdict::Worse(String::new()))]), vec![], "1 rows are worse"),
            (report(2, &[("a", Verdict::Same)]), vec![], "1 of 2 rows"),
            (report(1, &[("a", Verdict::Same)]), vec![rule(&["a"])], "does not occur any more: rule, in a"),
            (report(1, &[("a", better())]), vec![rule(&["a", "*"])], "does not occur any more: rule, in *"),
        ] {
            let (_, wrong) = report.tell(&rules);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].contains(what), "{wrong:?}");
        }
    }
}
