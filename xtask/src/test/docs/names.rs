//! What pages name is there: metrics, flags and variables; and every metric that the code registers is documented.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::{Page, collect};
use crate::shell;
use crate::test::catalogue::{Catalogue, DOCUMENT};

/// Where metrics are registered.
const REGISTERED: [&str; 3] = ["tunnel/src", "control/src", "node-agent/src"];
/// Where flags and variables are read, tests included: some are theirs.
const READ: [&str; 6] =
    ["node-agent/src", "cni-plugin/src", "xtask/src", "tests", "tunnel/src", "redirect-ebpf/loader"];
/// How names of metrics begin.
const BEGIN: [&str; 5] = ["istio_", "culvert_", "workload_manager_", "tokio_", "process_"];
/// How a family's name goes on when it is scraped.
const ENDS: [&str; 5] = ["", "_total", "_seconds", "_seconds_total", "_bytes_total"];
/// Names of rooms and of other software's metrics, which look like metrics of ours.
const NO_METRICS: [&str; 5] =
    ["culvert_", "istio_ca", "istio_tcp_", "istio_requests_total", "workload_manager_"];
/// Flags of kubectl, Helm, istioctl, cargo, the kernel's tools and scripts that pages name.
const OF_OTHERS: [&str; 25] = [
    "all",
    "all-namespaces",
    "as",
    "cascade",
    "delete-emptydir-data",
    "field-selector",
    "for",
    "from",
    "help",
    "ignore-daemonsets",
    "install",
    "keep-going",
    "namespace",
    "no-cluster",
    "no-install-recommends",
    "overwrite",
    "pid",
    "release",
    "reuse-values",
    "set",
    "timeout",
    "type",
    "version",
    "wait",
    "workspace",
];

/// Fails with all names that are nobody's.
pub(super) fn check(pages: &[Page], catalogue: &Catalogue) -> Result<()> {
    let mut wrong = registered(catalogue)?;
    let sources = sources(&READ)?;
    let settings = std::fs::read_to_string(shell::root().join("docs/configuration.md"))?;
    let mut named = 0;
    for page in pages {
        for word in words(&page.text) {
            let known = if let Some(flag) = word.strip_prefix("--") {
                is_flag(flag, &settings, &sources)
            } else if word.starts_with("CULVERT_") {
                settings.contains(word) || sources.contains(word)
            } else if BEGIN.iter().any(|begin| word.starts_with(begin)) {
                is_metric(word, catalogue)
            } else {
                continue;
            };
            named += 1;
            if !known {
                wrong.push(format!("{}: {word} is not there", page.path.display()));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("names that are nobody's, or lack:\n  {}", wrong.join("\n  "));
    }
    println!("  {named} mentions of metrics, flags and variables are of such as there are");
    Ok(())
}

/// Metrics of the code that lack in the document, and the other way round.
fn registered(catalogue: &Catalogue) -> Result<Vec<String>> {
    let source = sources(&REGISTERED)?;
    let literals: BTreeSet<&str> = source
        .split('"')
        .filter(|text| BEGIN.iter().any(|begin| text.starts_with(begin)))
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .collect();
    let is_of = |name: &str, literal: &str| {
        ENDS.iter().any(|end| name.strip_suffix(end).is_some_and(|family| family == literal))
    };
    let mut wrong = Vec::new();
    for name in catalogue.0.keys() {
        if !literals.iter().any(|literal| is_of(name, literal)) {
            wrong.push(format!("{DOCUMENT}: {name} is registered nowhere"));
        }
    }
    for literal in literals {
        // A test in the source may look for a series, or for the beginning of a name.
        let is_known = catalogue.0.keys().any(|name| is_of(name, literal) || name.starts_with(literal))
            || is_metric(literal, catalogue);
        if !is_known {
            wrong.push(format!("{DOCUMENT} lacks {literal}"));
        }
    }
    Ok(wrong)
}

/// A metric, a series of a histogram, a family, or the beginning of several.
fn is_metric(word: &str, catalogue: &Catalogue) -> bool {
    if NO_METRICS.contains(&word) {
        return true;
    }
    let name = word.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
    catalogue.0.keys().any(|known| known == word || known == name)
        || (word.ends_with('_') && catalogue.0.keys().any(|known| known.starts_with(word)))
}

fn is_flag(flag: &str, settings: &str, sources: &str) -> bool {
    OF_OTHERS.contains(&flag)
        || settings.contains(&format!("`--{flag}"))
        || sources.contains(&format!("--{flag}"))
        || sources.contains(&format!("\"{flag}\""))
        || sources.contains(&format!("{}: ", flag.replace('-', "_")))
}

/// Words of a page that may be names: letters, digits, `-` and `_`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(move |c| !is_part(c)).map(|word| word.trim_end_matches('-')).filter(|word| word.len() > 3)
}

/// The text of all sources in directories.
pub(super) fn sources(directories: &[&str]) -> Result<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for directory in directories {
        collect(&shell::root().join(directory), true, "rs", &mut files)?;
    }
    let mut all = String::new();
    for file in files {
        all.push_str(&std::fs::read_to_string(&file).with_context(|| file.display().to_string())?);
    }
    Ok(all)
}
