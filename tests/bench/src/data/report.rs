//! What was measured: as tables for people, and whole as JSON.

use serde::Serialize;

use super::case::{CASES, Case, Round};
use super::growth::Point;
use super::memory::Memory;
use super::slice::{GIB, Slice};
use crate::stats::quantile;

/// Gb/s of a node's network for which cores are counted.
const NODE: f64 = 25.0;

/// All of one agent on some CPUs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) agent: String,
    /// `one CPU` or `all CPUs`.
    pub(super) cpus: &'static str,
    /// What comes of the rounds, a row for each case.
    table: Vec<Row>,
    pub(super) rounds: Vec<Round>,
    pub(super) memory: Memory,
    /// Connections at a steady rate to one port, without and with the mesh.
    pub(super) steady: [Slice; 2],
}

/// A row of the table: both figures, and the cost of everything without the mesh and that of the two agents.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    case: Case,
    unit: &'static str,
    direct: Range,
    meshed: Range,
    cost_unit: &'static str,
    cost_without: Range,
    cost_of_agents: Range,
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) kernel: String,
    pub(super) measured: Vec<Measured>,
    pub(super) growth: Vec<Point>,
}

/// The least, the middle and the most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Range {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

/// A ratio that is held against the floor: the upper end of the middle half of the rounds, since what else the machine does
/// makes rounds worse, and a regression makes all of them so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    pub(super) value: f64,
}

impl Range {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let [min, median, max] = [0.0, 0.5, 1.0].map(|share| quantile(&sorted, share));
        Self { min, median, max }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.median >= 1000.0 { 0 } else { 3 };
        write!(f, "{:.digits$} [{:.digits$}..{:.digits$}]", self.median, self.min, self.max)
    }
}

impl Measured {
    pub(super) fn new(
        agent: String,
        cpus: &'static str,
        rounds: Vec<Round>,
        memory: Memory,
        steady: [Slice; 2],
    ) -> Self {
        let mut measured = Self { agent, cpus, table: Vec::new(), rounds, memory, steady };
        measured.table = CASES.map(|case| measured.row(case)).to_vec();
        measured
    }

    fn row(&self, case: Case) -> Row {
        let ([direct, meshed], [cost_without, cost_of_agents]) = (self.figures(case), self.costs(case));
        let (unit, cost_unit) = (case.unit(), case.cost_unit());
        Row { case, unit, direct, meshed, cost_unit, cost_without, cost_of_agents }
    }

    /// Cores that each agent would need for so many Gb/s, by what a GiB has cost it.
    fn cores(&self, case: Case, gigabits: f64) -> [f64; 2] {
        let gibs = gigabits * 1e9 / 8.0 / GIB;
        [0, 1].map(|side: usize| {
            let each = |round: &Round| {
                let seconds = round.meshed.agents.get(side).copied().unwrap_or_default();
                case.per_work(seconds, &round.meshed) * gibs
            };
            Range::of(self.of(case).map(each)).median
        })
    }

    fn of(&self, case: Case) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(move |round| round.case == case)
    }

    /// The figures of a row: without the mesh, and with it.
    pub(super) fn figures(&self, case: Case) -> [Range; 2] {
        [
            Range::of(self.of(case).map(|round| case.figure(&round.direct))),
            Range::of(self.of(case).map(|round| case.figure(&round.meshed))),
        ]
    }

    /// The cost of everything without the mesh, and that of the two agents.
    pub(super) fn costs(&self, case: Case) -> [Range; 2] {
        [
            Range::of(self.of(case).map(|round| case.per_work(round.direct.cpu(), &round.direct))),
            Range::of(self.of(case).map(|round| case.per_work(round.meshed.mesh(), &round.meshed))),
        ]
    }

    /// Every ratio that the floor file has a say about.
    pub(super) fn judged(&self) -> Vec<Judged> {
        let upper = |case, of: fn(&Round) -> f64| {
            let mut values: Vec<f64> = self.of(case).map(of).collect();
            values.sort_by(f64::total_cmp);
            quantile(&values, 0.75)
        };
        let each = |case: Case| {
            [("speed", upper(case, Round::ratio)), ("thrift", upper(case, Round::thrift))]
                .map(|(group, value)| Judged { group, name: case.name(), value })
        };
        CASES.into_iter().flat_map(each).collect()
    }

    /// Prints the table, in the form of docs/performance.md.
    pub(super) fn print(&self) {
        println!("\n{} on {}: half of the rounds, [least..most]\n", self.agent, self.cpus);
        println!("| | direct | in the mesh | cost of all without | cost of the two agents |");
        println!("|---|---|---|---|---|");
        for Row { case, unit, direct, meshed, cost_unit, cost_without, cost_of_agents } in &self.table {
            println!(
                "| {} | {direct} {unit} | {meshed} {unit} | {cost_without} {cost_unit} | {cost_of_agents} {cost_unit} |",
                case.title()
            );
        }
        let p99 = |of: fn(&Round) -> f64| Range::of(self.of(Case::Ask).map(of));
        let (direct, meshed) = (p99(|r| r.direct.outcome.p99), p99(|r| r.meshed.outcome.p99));
        println!("| request at 1,000/s, 99 of 100 within | {direct} us | {meshed} us | | |");
        let [direct, meshed] = &self.steady;
        let stalls = |slice: &Slice| {
            format!(
                "{} of {}, longest {:.1} ms",
                slice.outcome.stalls,
                slice.outcome.count,
                slice.outcome.longest / 1e3
            )
        };
        println!("| new connections at 500/s: 8 ms or more | {} | {} | | |", stalls(direct), stalls(meshed));
        let Memory { idle, connection, given_back } = &self.memory;
        let both = |[near, far]: [f64; 2], digits| format!("{near:.digits$} and {far:.digits$}");
        println!("| idle agent, memory | | {} MiB | | |", both(*idle, 1));
        println!("| idle captured connection, each side | | {} KiB | | |", both(*connection, 2));
        let percent = given_back.map(|share| share * 100.0);
        println!("| of that, given back after 3 s | | {} % | | |", both(percent, 0));
        for case in [Case::Bulk1, Case::Bulk64] {
            let cores = both(self.cores(case, NODE), 1);
            println!(
                "| cores for {NODE:.0} Gb/s, sending and receiving agent: {} | | {cores} | | |",
                case.title()
            );
        }
        println!();
        for Judged { group, name, value } in self.judged() {
            println!("  {group} {name}: {value:.3}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_ends_and_its_middle() {
        let range = Range::of([3.0, 1.0, 2.0]);
        assert_eq!(range, Range { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(range.to_string(), "2.000 [1.000..3.000]");
        assert_eq!(Range::of([1234.5]).to_string(), "1234 [1234..1234]");
    }
}
