//! `culvert completions` and `culvert man`: what shells and `man` know of the command line, made from the same words.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{code, output};
use crate::cli::{Cli, CompletionsArgs, ManArgs};

/// Prints a script for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "culvert", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(code(true))
}

/// Prints a manual page.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    output::print(&page(args.command.as_deref())?)?;
    Ok(code(true))
}

/// The page of `culvert`, or of one of its commands.
fn page(name: Option<&str>) -> anyhow::Result<String> {
    let mut command = Cli::command();
    command.build();
    let command = match name {
        Some(name) => {
            command.find_subcommand(name).with_context(|| format!("there is no command {name}"))?.clone()
        }
        None => command,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_known_to_the_shells_and_to_man() {
        let of_commands = |page: &str| page.contains("pods") && page.contains("trace");
        let page = super::page(None).unwrap();
        assert!(of_commands(&page));
        assert!(page.contains(".TH culvert 1"), "{page}");
        let trace = super::page(Some("trace")).unwrap();
        assert!(trace.contains("culvert") && trace.contains("IP:PORT"), "{trace}");
        assert!(super::page(Some("nothing")).is_err());
        let command = Cli::command();
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        for shell in ["bash", "zsh", "fish"] {
            let mut script = Vec::new();
            let shell: clap_complete::Shell = shell.parse().unwrap();
            clap_complete::generate(shell, &mut Cli::command(), "culvert", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in &names {
                assert!(script.contains(name) && page.contains(name), "{shell}: {name}");
            }
        }
    }
}
