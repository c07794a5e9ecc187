//! `deploy/Dockerfile`, which no container engine builds here: what can be said of it without one.
//!
//! It builds with the Rust that the workspace asks for, from everything that is in the repository and nothing else; the tasks that it
//! runs are there; what it puts into the image is what one of them unpacks; and its image runs what `cargo xtask image` has its own run.
//! What its base image and the network give is not seen here.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::commands::tasks;
use crate::{image, shell};

const FILE: &str = "deploy/Dockerfile";
const IGNORED: &str = ".dockerignore";
/// Of Rust, in the building stage's image.
const VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// A line of it, such as `FROM scratch`.
struct Instruction {
    keyword: String,
    words: String,
}

/// Fails unless all of that is so.
pub(super) fn check() -> Result<()> {
    let root = shell::root();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
    check_text(&read(FILE)?).context(FILE)?;
    let mut git = Command::new("git");
    let files = shell::output(git.args(["ls-files", "-z"]).current_dir(&root))?;
    check_sent(&read(IGNORED)?, &read(".gitignore")?, files.split_terminator('\0')).context(IGNORED)?;
    println!(
        "  {FILE} builds with Rust {VERSION} and runs tasks that there are; its image runs what ours does"
    );
    Ok(())
}

fn check_text(text: &str) -> Result<()> {
    let instructions = instructions(text);
    let from = |at: &&Instruction| at.keyword == "FROM";
    let last = instructions.iter().rposition(|one| one.keyword == "FROM").context("no FROM")?;
    let (building, shipped) = instructions.split_at(last);
    let bases: Vec<&str> = instructions.iter().filter(from).map(|one| one.words.as_str()).collect();
    let [base, "scratch"] = bases.as_slice() else { bail!("its stages are of {bases:?}") };
    let (base, stage) = base.split_once(" AS ").context("its first stage has no name")?;
    let is_of_version =
        base.strip_prefix(&format!("rust:{VERSION}")).is_some_and(|rest| rest.starts_with(['-', '.']));
    ensure!(is_of_version, "it builds with {base} and the workspace with Rust {VERSION}");
    ensure!(values(building, "COPY") == [". ."], "it builds from {:?}", values(building, "COPY"));
    let unpacked = unpacked(building)?;
    let copied = values(shipped, "COPY");
    ensure!(
        copied == [format!("--from={stage} {unpacked}/ /")],
        "what is unpacked into {unpacked} is not what it copies: {copied:?}"
    );
    let list = |keyword: &str| -> Result<Value> {
        let given = values(shipped, keyword);
        let [given] = given.as_slice() else { bail!("{keyword} is {given:?}") };
        serde_json::from_str(given).with_context(|| format!("{keyword} is not a list of words: {given}"))
    };
    let run =
        json!({ "Entrypoint": list("ENTRYPOINT")?, "Cmd": list("CMD")?, "Env": values(shipped, "ENV") });
    ensure!(run == image::config(), "its image runs {run} and ours {}", image::config());
    Ok(())
}

/// Where the tasks that it runs unpack the image; all of them must be there.
fn unpacked(building: &[Instruction]) -> Result<&str> {
    let commands = values(building, "RUN").into_iter().flat_map(|line| line.split("&&")).map(str::trim);
    let asked: Vec<&str> = commands.filter(|command| command.starts_with(tasks::BEGIN)).collect();
    asked.iter().try_for_each(|task| tasks::check(task))?;
    let [.., last] = asked.as_slice() else { bail!("it runs no task") };
    let mut words = last.split_whitespace().skip_while(|word| *word != "--unpack");
    words.nth(1).with_context(|| format!("`{last}` does not unpack what it makes"))
}

/// What is sent to the engine: everything that git knows, and nothing that it is told to ignore.
fn check_sent<'a>(ignored: &str, by_git: &str, known: impl Iterator<Item = &'a str>) -> Result<()> {
    let patterns: Vec<&str> = ignored.lines().collect();
    for pattern in &patterns {
        let is_path = pattern.starts_with('/') && !pattern.contains(['*', '?', '[', '!']);
        ensure!(is_path, "{pattern:?} is not a path from the top, and what it means is not known here");
    }
    for pattern in by_git.lines().chain(["/.git"]) {
        ensure!(patterns.contains(&pattern), "{pattern} is sent to the engine");
    }
    for file in known {
        let file = format!("/{file}");
        let is_in = |pattern: &&&str| {
            file.strip_prefix(**pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(pattern) = patterns.iter().find(is_in) {
            bail!("{pattern} keeps {file} back");
        }
    }
    Ok(())
}

/// What stands behind a keyword, wherever it does.
fn values<'a>(instructions: &'a [Instruction], keyword: &str) -> Vec<&'a str> {
    let of_it = instructions.iter().filter(|one| one.keyword == keyword);
    of_it.map(|one| one.words.as_str()).collect()
}

/// Lines that go on are joined, and comments left out.
fn instructions(text: &str) -> Vec<Instruction> {
    let mut whole = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(before) = line.strip_suffix('\\') {
            whole.push_str(before);
            continue;
        }
        whole.push_str(line);
        let (keyword, words) = whole.split_once(' ').unwrap_or((&whole, ""));
        found.push(Instruction { keyword: keyword.to_owned(), words: words.trim().to_owned() });
        whole.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_so_is_found() {
        let text = std::fs::read_to_string(shell::root().join(FILE)).unwrap();
        check_text(&text).unwrap();
        for (so, not_so) in [
            (VERSION, "1.9"),
            ("COPY . .", "COPY xtask ."),
            ("build-ebpf --install", "build-ebpf --instal"),
            ("--output", "--out"),
            ("--unpack /layer", "--unpack /elsewhere"),
            (" --unpack /layer", ""),
            ("--from=build", "--from=other"),
            (" AS build", " AS builder"),
            ("FROM scratch", "FROM debian"),
            ("PATH=/usr/bin", "PATH=/bin"),
            ("[\"/usr/bin/culvert\"]", "[\"/culvert\"]"),
            ("[\"/usr/bin/culvert\"]", "/usr/bin/culvert"),
            ("CMD [\"run\"]", "CMD []"),
            ("CMD [\"run\"]", ""),
        ] {
            assert!(text.contains(so), "{so}");
            assert!(check_text(&text.replace(so, not_so)).is_err(), "{so} {not_so}");
        }
    }

    #[test]
    fn what_git_knows_is_sent_and_what_it_ignores_is_not() {
        let known = ["Cargo.toml", "targets/x", "a/target/x"];
        let check = |ignored: &str, known: &[&str]| check_sent(ignored, "/target\n", known.iter().copied());
        check("/target\n/.git\n/other\n", &known).unwrap();
        for (ignored, known) in [
            ("/target\n", &known[..]),
            ("/.git\n", &known),
            ("/target\n/.git\n/a\n", &known),
            ("/target\n/.git\n", &["target/x"]),
            ("/target\n/.git\n**/*.md\n", &known),
        ] {
            assert!(check(ignored, known).is_err(), "{ignored} {known:?}");
        }
    }
}
