//! Rows that are made at the same time, and what of the logs and counters belongs to which of them.
//!
//! Invariant: every line and every series that comes while a step is under way is somebody's: what is of none of its clients
//! is held against its first row. So one that comes late, or twice, is found by the step after.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use harness::Agent;
use recordings::parity::Row;

use crate::chance::Chance;
use crate::compare::{Verdict, judge};
use crate::differences::Difference;
use crate::outcome::{Fields, Outcome, text};
use crate::place::Place;
use crate::rows::target;
use crate::series::{self, Counters};
use crate::{client, log, several};

/// How long the lines and series of a step may take to come; only one that is worse takes as long.
const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// What rows are compared by.
pub struct Judging<'a> {
    /// What chance decides.
    pub chance: &'a Chance,
    /// What differs on purpose.
    pub differences: &'a [Difference],
}

/// How far logs and counters were.
#[derive(Clone, Debug)]
pub struct Mark {
    lengths: Vec<usize>,
    counters: Counters,
}

impl Mark {
    /// Where they are now.
    pub fn now(agents: &[(String, Agent)]) -> Result<Self> {
        let lengths = agents.iter().map(|(_, agent)| log::length(agent)).collect();
        Ok(Self { lengths, counters: counters(agents)? })
    }
}

fn counters(agents: &[(String, Agent)]) -> Result<Counters> {
    let mut all = Counters::new();
    for (node, agent) in agents {
        all.extend(series::of_agent(node, agent)?);
    }
    Ok(all)
}

/// Makes the connections of rows, each by a client of its own; the results by row.
pub fn connect(rows: &[(&Row, &Place)]) -> Result<Vec<Vec<Fields>>> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = rows
            .iter()
            .map(|(row, place)| {
                scope.spawn(|| {
                    let to = target(row)?;
                    (0..several::count(row)).map(|_| client::attempt(place, to)).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let join = |client: std::thread::ScopedJoinHandle<'_, Result<Vec<Fields>>>| {
            client.join().map_err(|_| anyhow!("a client panicked"))?
        };
        clients.into_iter().map(join).collect()
    })
}

/// Waits until all rows are as they are to be, or long enough, and says what became of each.
pub fn settle(
    rows: &[(&Row, &Place)],
    results: &[Vec<Fields>],
    since: &Mark,
    agents: &[(String, Agent)],
    judging: &Judging<'_>,
) -> Result<Vec<Verdict>> {
    let end = Instant::now() + LIMIT;
    loop {
        let (lines, series) = come(since, agents)?;
        let shares = share(rows, lines, series);
        let mut verdicts = Vec::with_capacity(rows.len());
        let mut settled = true;
        for (((row, place), results), (lines, series)) in rows.iter().zip(results).zip(shares) {
            settled &= lines.len() >= expected_lines(row, place);
            let ours = Outcome { results: results.clone(), log: Some(lines), metrics: Some(series) };
            let verdict = verdict(row, ours, judging)?;
            settled &= !matches!(verdict, Verdict::Worse(_));
            verdicts.push(verdict);
        }
        if settled || Instant::now() >= end {
            return Ok(verdicts);
        }
        std::thread::sleep(PAUSE);
    }
}

fn verdict(row: &Row, ours: Outcome, judging: &Judging<'_>) -> Result<Verdict> {
    let recorded = Outcome::recorded(row);
    let ours = ours.like(&recorded);
    let recorded = judging.chance.out_of(row, recorded)?;
    let ours = judging.chance.out_of(row, ours)?;
    Ok(judge(row, &recorded, &ours, judging.differences))
}

/// Where no lines were recorded there are some all the same, which are not to be taken for those of the next step.
fn expected_lines(row: &Row, place: &Place) -> usize {
    match &row.access_log {
        Some(_) => 0,
        None if place.captured => 2,
        None => 1,
    }
}

type Share = (Vec<Fields>, Vec<Fields>);

/// What has come since.
fn come(since: &Mark, agents: &[(String, Agent)]) -> Result<Share> {
    let mut lines = Vec::new();
    for ((node, agent), length) in agents.iter().zip(&since.lengths) {
        lines.extend(log::since(node, agent, *length).with_context(|| format!("the log of {node}"))?);
    }
    Ok((lines, series::moved(&since.counters, &counters(agents)?)))
}

/// Gives every row what is its own.
fn share(rows: &[(&Row, &Place)], lines: Vec<Fields>, series: Vec<Fields>) -> Vec<Share> {
    let mut shares: Vec<Share> = rows.iter().map(|_| Share::default()).collect();
    for line in lines {
        let owner = rows.iter().position(|(_, place)| place.has(log::source(&line)));
        if let Some((lines, _)) = shares.get_mut(owner.unwrap_or_default()) {
            lines.push(line);
        }
    }
    for moved in series {
        // In the other groups only `opened` and `failed` were recorded.
        let left_out = |row: &Row| row.group != "routing" && text(&moved, "name") == "closed";
        let owner = rows.iter().position(|(_, place)| text(&moved, "source_workload") == place.workload);
        let owner = owner.unwrap_or_default();
        if let (Some((row, _)), Some((_, series))) = (rows.get(owner), shares.get_mut(owner))
            && !left_out(row)
        {
            series.push(moved);
        }
    }
    shares
}
