//! The commands of blocks marked `console`, run on a node with an agent and two pods of the mesh.
//!
//! A line that begins with `$` is a command, and must end with 0; each of the lines below it must be in what it prints, in that
//! order. Whatever a page shows and cannot be run here stands in a block of another kind; what could be run and stands there is an
//! error.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::mesh_file::{Enroll, Workload};
use harness::wait::eventually;
use harness::{Agent, MeshFile, Node, Run, Wire, command};

use super::Page;

const BEGIN: &str = "```console";
const END: &str = "```";
/// How commands begin that run here, and what some have in them that cannot: other programs, files, names to be put in.
const RUNNABLE: [&str; 4] = ["curl -s", "culvert status", "culvert verify", "culvert config"];
const UNLESS: [&str; 4] = ["jq", " > ", "NAMESPACE", "NAME\""];
const NAMESPACE: &str = "default";
const LIMIT: Duration = Duration::from_secs(30);

/// A command, and what it is to print.
#[derive(Debug, PartialEq, Eq)]
struct Shown<'a> {
    command: &'a str,
    printed: Vec<&'a str>,
}

/// Runs them all, page by page.
pub(super) fn run(pages: &[Page], agent: &Path) -> Result<()> {
    harness::run::teardown_on_signals()?;
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let node = wire.add_node("node1")?;
    let (sleep, page) =
        (node.add_plain_pod("sleep", NAMESPACE)?, node.add_plain_pod("productpage", NAMESPACE)?);
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.workloads = [&sleep, &page].map(Workload::of_pod).to_vec();
    mesh.enroll = [&sleep, &page].map(Enroll::running).to_vec();
    std::fs::create_dir_all(node.agent_dir())?;
    let file = node.agent_dir().join("mesh.yaml");
    mesh.write_for(&node, &file)?;
    let serving = Agent::start(&node, &file)?;
    eventually("both pods to be enrolled", LIMIT, || {
        (serving.log_lines(&["pod enrolled"]).len() >= 2).then_some(())
    })?;
    let mut count = 0;
    for page in pages {
        for shown in commands(&page.text)? {
            check(&shown, &node, agent)
                .with_context(|| format!("{}: {}", page.path.display(), shown.command))?;
            count += 1;
        }
    }
    ensure!(count > 10, "the pages have only {count} commands that can be run");
    println!("  {count} commands did what their pages say");
    Ok(())
}

/// Runs one as a reader would, with the node's agent as the only one there is.
fn check(shown: &Shown<'_>, node: &Node, agent: &Path) -> Result<()> {
    println!("  $ {}", shown.command);
    let programs = agent.parent().context("an agent without a directory")?.to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&others)))?;
    let mut shell: Command = command::in_netns(node.netns(), Path::new("bash"));
    shell.args(["-o", "pipefail", "-c", shown.command]).current_dir(node.agent_dir());
    shell.env("PATH", path).env("CULVERT_RUN_DIR", node.agent_dir()).env("CULVERT_BPFFS", node.bpffs());
    let ended = command::finish(&mut shell, b"")?;
    if !ended.status.success() {
        // grep ends with 1 if a counter has not counted yet, which is what a page asks.
        let may_be_nothing =
            shown.printed.is_empty() && shown.command.contains("| grep") && ended.status.code() == Some(1);
        ensure!(
            may_be_nothing && ended.stderr.is_empty(),
            "{}\n{}{}",
            ended.status,
            ended.stdout,
            ended.stderr
        );
    }
    let mut lines = ended.stdout.lines();
    for expected in &shown.printed {
        if !lines.any(|line| line.trim().contains(expected.trim())) {
            bail!("it does not print {expected:?} here, but\n{}", ended.stdout);
        }
    }
    Ok(())
}

/// The commands of a page.
fn commands(text: &str) -> Result<Vec<Shown<'_>>> {
    let mut commands: Vec<Shown<'_>> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line == BEGIN {
            inside = true;
        } else if line == END {
            inside = false;
        } else if !inside {
            let shown = line.strip_prefix("    ").unwrap_or_default();
            let is_runnable = RUNNABLE.iter().any(|begin| shown.starts_with(begin));
            ensure!(
                !is_runnable || UNLESS.iter().any(|part| shown.contains(part)),
                "{shown:?} can be run: put it into a block marked console"
            );
        } else if let Some(command) = line.strip_prefix("$ ") {
            commands.push(Shown { command, printed: Vec::new() });
        } else {
            let last = commands.last_mut().with_context(|| format!("{line:?} is printed by no command"))?;
            last.printed.push(line);
        }
    }
    ensure!(!inside, "a block does not end");
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_what_they_print_and_from_other_blocks() {
        let text = "```console\n$ a | b\nc\nd\n$ e\n```\n```\n$ f\n```\n    $ g\n";
        let expected =
            [Shown { command: "a | b", printed: vec!["c", "d"] }, Shown { command: "e", printed: vec![] }];
        assert_eq!(commands(text).unwrap(), expected);
        assert!(commands("```console\nc\n```\n").is_err());
        assert!(commands("    culvert verify\n").is_err(), "it can be run");
        assert_eq!(commands("    culvert verify NAMESPACE/POD\n").unwrap(), []);
        assert!(commands("```console\n$ c\n").is_err());
    }
}
