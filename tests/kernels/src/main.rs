//! `kernel-checks`: does capture work on the kernel that this runs on?
//!
//! Linked statically, it is all that a guest needs besides a kernel: started as process 1 it mounts what it needs, loads
//! the modules beside it, checks, and switches the machine off. Started otherwise it checks the machine's own kernel, in
//! namespaces of its own that leave nothing behind. The last line of its output is [`PASSED`], or it did not pass.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "this program talks to people, and to the one that started it")]

mod agent;
mod call;
mod checks;
mod failure;
mod guest;
mod world;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The last line when everything passed; whoever runs this looks for it.
const PASSED: &str = "kernel-checks: passed";
/// Where the agents' pins are: on a BPF file system of this program's own.
const BPFFS: &str = "/sys/fs/bpf/culvert";
/// Longest wait for anything; an emulated processor is slow.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if guest::is_one() {
        return match guest::run(check) {
            Ok(never) => match never {},
            // Process 1 must not end; the kernel stops with a panic, which ends the guest as well.
            Err(error) => ended(Err(error)),
        };
    }
    ended(role(&words))
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Without a word: the checks. The other roles are this program's own children.
fn role(words: &[OsString]) -> Result<()> {
    match words {
        [] => check(),
        [role, name, netns] if role == agent::ROLE => {
            agent::serve(name.to_str().context("the agent's name is not text")?, Path::new(netns))
        }
        [role, kind, rest @ ..] if role == failure::ROLE => failure::provoke(kind, rest),
        _ => bail!("usage: kernel-checks"),
    }
}

fn check() -> Result<()> {
    world::isolate()?;
    checks::run()?;
    println!("{PASSED}");
    Ok(())
}
