//! Running other programs with their output shown, and finding the repository.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or(own.clone(), PathBuf::from)
}

/// The cargo of the repository's toolchain.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    command
}

/// The command as a person would type it.
pub(crate) fn text(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={:?}", key.to_string_lossy(), value?.to_string_lossy())));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    set.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// Says what it runs, and runs it; a failing status is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("  $ {}", text(command));
    let status = command.status().with_context(|| format!("starting {}", text(command)))?;
    if !status.success() {
        bail!("{status}: {}", text(command));
    }
    Ok(())
}

/// Stdout of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    harness::command::run(command)
}
