//! What `docs/security.md` says shows a protection: each test that it names must be there.
//!
//! A test is named as `file.rs::function` between backticks. That it holds is the suites' to show; that it was not renamed or
//! taken out is shown here.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::shell;

const DOCUMENT: &str = "docs/security.md";

pub(super) fn check() -> Result<()> {
    println!("  checking the tests that {DOCUMENT} names");
    let root = shell::root();
    let text = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let named = named(&text);
    if named.is_empty() {
        bail!("{DOCUMENT} names no test");
    }
    let missing: Vec<String> = named.into_iter().filter_map(|name| missing(&root, name)).collect();
    if !missing.is_empty() {
        bail!("tests that {DOCUMENT} names and that are not there:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

/// The tests that a text names.
fn named(text: &str) -> Vec<(&str, &str)> {
    // What is between backticks is every other part.
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| quoted.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

/// Its name, if a file has no such test.
pub(super) fn missing(root: &Path, (file, function): (&str, &str)) -> Option<String> {
    let source = fs::read_to_string(root.join(file)).unwrap_or_default();
    let declared = format!("fn {function}()");
    let before = source.split(&declared).next()?.lines().rev().map(str::trim);
    let starts = |line: &str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    // The line that the name is on, and another attribute, may stand between.
    let is_test = source.contains(&declared) && before.take(3).any(starts);
    (!is_test).then(|| format!("{file}::{function}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_by_their_names_and_what_is_gone_is_told() {
        let text = "Shown by `xtask/src/test/security.rs::gone`, and `std::fs`, and `a.rs`.";
        assert_eq!(named(text), [("xtask/src/test/security.rs", "gone")]);
        let own = "tests_are_found_by_their_names_and_what_is_gone_is_told";
        let file = "xtask/src/test/security.rs";
        assert_eq!(missing(&shell::root(), (file, own)), None);
        // A function, and no test.
        for other in ["gone", "check"] {
            assert_eq!(missing(&shell::root(), (file, other)), Some(format!("{file}::{other}")));
        }
    }
}
