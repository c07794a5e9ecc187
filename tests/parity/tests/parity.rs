//! Every recorded connection, made again. A word names one group of rows; without one all are made, and only then is every listed
//! difference looked for.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to people")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use parity::differences;
use parity::report::Report;
use parity::suite::{Script, Suite};

fn main() -> ExitCode {
    match run(std::env::args().skip(1).find(|word| !word.starts_with('-')).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(only: Option<&str>) -> Result<()> {
    harness::run::teardown_on_signals()?;
    let began = Instant::now();
    let differences = differences::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("differences.yaml"))?;
    let mut scripts = Vec::from(Script::all()?);
    scripts.retain(|script| only.is_none_or(|only| script.name().contains(only)));
    let first = scripts.first().with_context(|| format!("no group of rows is called {only:?}"))?;
    let mut suite = Suite::new(first, differences)?;
    println!("  the world stands after {:.0?}", began.elapsed());
    let mut report = Report::default();
    for script in &scripts {
        let group = suite.run(script, &mut |title, how| println!("\n  worse: {title}\n{how}"))?;
        report.add(group);
    }
    let (table, mut wrong) = report.tell(suite.differences());
    println!("\n{table}  in {:.0?}", began.elapsed());
    if only.is_some() {
        // Most of them belong to other groups.
        wrong.retain(|what| !what.starts_with("does not occur"));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
    Ok(())
}
