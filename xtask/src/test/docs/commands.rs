//! The commands that pages show: each is run, or stands in the list of what is run elsewhere ([`elsewhere`]).
//!
//! A block marked `console` has commands behind `$`, which must end with 0, and below each lines that must be in what it prints, in
//! that order; `^C` as the last one is the reader who ends what goes on by itself. Indented blocks have commands too, with names in
//! capitals that a reader fills in; the stage ([`stage`]) fills them in as well. A command in the text between backticks counts, if it
//! has words of its own. So what is no command stands in a block of another kind, and a line in an indented block that begins with no
//! program is an error, and so is a program's in a block of another kind.

mod elsewhere;
mod shown;
mod stage;
pub(super) mod tasks;
mod words;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

use self::elsewhere::Elsewhere;
use self::shown::{Form, Shown};
use self::stage::Stage;
use super::{Page, fields, names};
use crate::binaries::Binaries;
use crate::built::Built;

/// What the text names that ends the stage's agent, or starts another one in its place: it is run when everything else has been.
const LAST: [&str; 2] = ["culvert run --", "culvert detach"];

/// What became of the commands, for the last line.
#[derive(Default)]
struct Counts {
    run: usize,
    named: usize,
    elsewhere: usize,
}

/// Runs them all, page by page.
pub(super) fn run(pages: &[Page], built: &Built, binaries: &Binaries) -> Result<()> {
    let shown = |page: &Page| shown::commands(&page.text).with_context(|| page.path.display().to_string());
    let all: Vec<Vec<Shown>> = pages.iter().map(shown).collect::<Result<_>>()?;
    let mut elsewhere = Elsewhere::read()?;
    let run: BTreeSet<String> = all
        .iter()
        .flatten()
        .filter(|one| one.form != Form::Text || is_last(one))
        .flat_map(|one| words::asked(&one.command))
        .collect();
    let stage = Stage::set(built, binaries)?;
    check_all_are_shown(&stage.subcommands()?, &run, &mut elsewhere)?;
    let logs = names::sources(&fields::SOURCES)?.to_lowercase();
    let mut counts = Counts::default();
    for (page, commands) in pages.iter().zip(&all) {
        stage.begin_page()?;
        for one in commands {
            check(&stage, one, &run, (&mut elsewhere, &mut counts), &logs)
                .with_context(|| format!("{}:{}: {}", page.path.display(), one.line, one.command))?;
        }
    }
    let last = all.iter().flatten().filter(|one| is_last(one)).map(|one| one.command.as_str());
    stage.finish(&last.collect())?;
    elsewhere.check_all_are_met()?;
    let Counts { run, named, elsewhere } = counts;
    println!(
        "  {run} commands did what their pages say, {named} in the text are run in a block, {elsewhere} elsewhere"
    );
    Ok(())
}

fn check(
    stage: &Stage,
    one: &Shown,
    run: &BTreeSet<String>,
    (elsewhere, counts): (&mut Elsewhere, &mut Counts),
    logs: &str,
) -> Result<()> {
    if one.command.starts_with(tasks::BEGIN) {
        tasks::check(&one.command)?;
    }
    if is_last(one) {
        counts.run += 1;
        return Ok(());
    }
    if elsewhere.has(&one.command) {
        counts.elsewhere += 1;
        return stage.parses(&one.command);
    }
    ensure!(!one.command.starts_with("cargo "), "nothing runs it: name who does in {}", elsewhere::FILE);
    if one.form == Form::Text && one.command.starts_with("culvert ") {
        counts.named += 1;
        return named(stage, &one.command, run);
    }
    if let Some(sought) = words::sought_in_log(&one.command) {
        // A log that has no such line yet is no error; words that stand in none are one.
        let sought = sought.to_lowercase();
        ensure!(logs.contains(&sought), "nothing that is logged has {sought:?} in it");
    }
    counts.run += 1;
    stage.run(one)
}

fn is_last(one: &Shown) -> bool {
    one.form == Form::Text && LAST.iter().any(|begins| one.command.starts_with(begins))
}

/// A command of ours that the text names, without what would make it whole: it is run in a block, and has the flags that are named.
fn named(stage: &Stage, command: &str, run: &BTreeSet<String>) -> Result<()> {
    for asked in words::asked(command) {
        if !run.contains(&asked) {
            bail!(
                "no block runs `culvert {asked}`: show it in one, or say in {} who runs it",
                elsewhere::FILE
            );
        }
    }
    stage.parses(command)
}

/// What the command line offers and no page shows would be run by nobody here.
fn check_all_are_shown(offered: &[String], run: &BTreeSet<String>, elsewhere: &mut Elsewhere) -> Result<()> {
    for offer in offered {
        let is_elsewhere = elsewhere.has(&format!("culvert {offer}"));
        ensure!(
            is_elsewhere || run.contains(offer),
            "no page has a block that runs `culvert {offer}`, nor does {} say who runs it",
            elsewhere::FILE
        );
    }
    Ok(())
}
