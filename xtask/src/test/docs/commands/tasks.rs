//! Documented lines of `cargo xtask`: each is read by the definition of its own command line.
//!
//! What is optional stands in brackets and what is chosen between bars; every one of them is tried, each by itself.

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::Task;

/// How such a line begins.
pub(in crate::test::docs) const BEGIN: &str = "cargo xtask ";

/// What a reader puts in, where not every word will do.
const VALUES: [(&str, &str); 2] = [("N", "3"), ("NAME", "bookinfo")];

/// Fails if there is no such command line.
pub(in crate::test::docs) fn check(command: &str) -> Result<()> {
    let line = command.strip_prefix(BEGIN).context("no task")?;
    for form in forms(line) {
        let form = super::words::filled(&form, &VALUES);
        Task::try_parse_from(std::iter::once("xtask").chain(form.split_whitespace()))
            .map_err(|error| anyhow::anyhow!("cargo xtask {form}: {error}"))?;
    }
    Ok(())
}

/// The line without what is optional, and with each of that alone; of alternatives, one each.
fn forms(line: &str) -> Vec<String> {
    let mut required = String::new();
    let mut optional = Vec::new();
    let mut rest = line;
    while let Some((before, from)) = rest.split_once('[') {
        let (option, after) = from.split_once(']').unwrap_or((from, ""));
        required.push_str(before);
        optional.push(option.trim_end_matches(".."));
        rest = after;
    }
    required.push_str(rest);
    let with = optional.iter().map(|option| format!("{required} {option}"));
    std::iter::once(required.clone()).chain(with).flat_map(|form| alternatives(&form)).collect()
}

fn alternatives(form: &str) -> Vec<String> {
    let words: Vec<&str> = form.split_whitespace().collect();
    let most = words.iter().map(|word| word.split('|').count()).max().unwrap_or(1);
    let one = |number: usize| {
        let choice = words.iter().map(|word| word.split('|').nth(number).or(word.split('|').next_back()));
        choice.flatten().collect::<Vec<_>>().join(" ")
    };
    (0..most).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_optional_is_tried_alone_and_each_alternative_is() {
        assert_eq!(forms("demo [--check] [--keep]"), ["demo", "demo --check", "demo --keep"]);
        assert_eq!(forms("demo --scenario NAME|all"), ["demo --scenario NAME", "demo --scenario all"]);
        assert_eq!(forms("fuzz [TARGET..]"), ["fuzz", "fuzz TARGET"]);
    }

    #[test]
    fn there_is_such_a_line_or_not() {
        for line in ["test docs", "demo --scenario NAME|all [--check]", "test chaos [--minutes N] [--seed N]"]
        {
            check(&format!("cargo xtask {line}")).unwrap();
        }
        for line in
            ["tset", "test dogs", "demo --scenario nowhere", "test chaos [--days N]", "demo --down [--keep]"]
        {
            assert!(check(&format!("cargo xtask {line}")).is_err(), "{line}");
        }
    }
}
