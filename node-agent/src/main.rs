//! `culvert`: the node agent of an ambient mesh, and the command line to it.
//!
//! This is the only place where all rooms meet: enrolment hands pods to capture, capture hands connections to the tunnel,
//! the tunnel asks the mesh, and the mesh is fed by the control room.

#![forbid(unsafe_code)]

mod admin;
mod admin_socket;
mod certificates;
mod cli;
mod cni_server;
mod commands;
mod config;
mod detach;
mod ending;
mod enrollment;
mod events;
mod feed;
mod foundation;
mod handover;
mod install;
mod kubelet;
mod kubernetes;
mod lock;
mod logging;
mod lookout;
mod membership;
mod metrics;
mod pod_sockets;
mod readiness;
mod run;
mod settling;
mod spans;
mod tls;
mod unix_server;
#[cfg(debug_assertions)]
mod wall_clock;
mod zds;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, PolicyCommand};
use crate::config::Config;

/// Can make profiles of the heap; see `linux::malloc` for what it is told.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let done = |outcome: anyhow::Result<()>| outcome.map(|()| ExitCode::SUCCESS);
    let line = match Cli::try_parse() {
        Ok(line) => line,
        Err(other) => {
            // Help and version are answers, and go to stdout. A stream that is closed has nobody to tell.
            let _ = other.print();
            return if other.use_stderr() { ExitCode::from(commands::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match line.command {
        Command::Run(args) => {
            done(Config::read(&args.flags).map_err(Into::into).and_then(|config| run::run(&config)))
        }
        Command::Install(args) => done(install::install(&args.flags)),
        Command::Uninstall(args) => done(install::uninstall(&args.flags)),
        Command::Config(args) => done(config::show(&args)),
        Command::Detach(args) => done(detach::detach(&args)),
        Command::Verify(args) => commands::verify(&args),
        Command::Status(args) => commands::status(&args),
        Command::Pods(args) => commands::pods(&args),
        Command::Connections(args) => commands::connections(&args),
        Command::Cert(asked) => commands::certificates(&asked),
        Command::Events(args) => commands::events(&args),
        Command::Trace(args) => commands::trace(&args),
        Command::Policy(args) => match args.command {
            PolicyCommand::Check(args) => commands::check_policy(&args),
        },
        Command::Logging(args) => commands::logging(&args),
        Command::Top(args) => commands::top(&args),
        Command::Support(args) => commands::support(&args),
        Command::Completions(args) => commands::completions(&args),
        Command::Man(args) => commands::man(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            commands::code_of(&error)
        }
    }
}

/// The last word goes to stderr, whatever became of the log.
#[expect(clippy::print_stderr, reason = "there may be no log yet, or no longer")]
fn complain(error: &anyhow::Error) {
    eprintln!("culvert: {error:#}");
}
