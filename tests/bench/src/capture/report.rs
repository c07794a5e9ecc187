//! The figures in words, each beside its target.

use super::floor::Ratio;
use super::paths::{self, Quantity};
use super::pods;
use crate::stats::percentiles;

/// Least ratio of a connection rate to that without capture, and to that of one pod alone.
const RATE: f64 = 0.97;
/// Least ratio of throughput.
const BULK: f64 = 0.99;
/// Most milliseconds to enrol and verify a pod.
const ENROL: f64 = 10.0;
/// Most milliseconds to release it.
const RELEASE: f64 = 5.0;
/// Most kernel memory of a pod.
const MEMORY_KIB: f64 = 40.0;

/// What this runs on.
pub(crate) fn machine(cpu: usize, iptables: &str) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    println!(
        "Linux {}, {}, everything on CPU {cpu}; {iptables}",
        kernel.trim(),
        model.trim_start_matches(['\t', ':', ' '])
    );
    println!("Ratios are medians over rounds, with the middle half of the samples in brackets.");
}

/// A table of legs.
pub(crate) fn paths(quantity: Quantity, outcomes: &[paths::Outcome]) {
    let (title, target) = match quantity {
        Quantity::Rate => ("Short connections (128 B in, 1 KiB out)", RATE),
        Quantity::Bulk => ("Bulk throughput", BULK),
    };
    println!("\n{title}, ratio to no capture; target {target}");
    println!("  {:10} {:>16}  {:24} iptables", "", "no capture", "culvert");
    for outcome in outcomes {
        let base = match quantity {
            Quantity::Rate => format!("{:.0}/s", outcome.base.median),
            Quantity::Bulk => format!("{:.2} GB/s", outcome.base.median / 1e9),
        };
        let iptables = outcome.iptables.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
        let missed = missed(outcome.culvert.median < target);
        println!(
            "  {:10} {base:>16}  {:24} {iptables}{missed}",
            outcome.leg.to_string(),
            outcome.culvert.to_string()
        );
    }
}

/// What pods cost.
pub(crate) fn pods(outcome: &pods::Outcome) {
    println!("\nA pod");
    for (what, times, target) in
        [("enrol and verify", &outcome.enrol, ENROL), ("release", &outcome.release, RELEASE)]
    {
        let (half, most) = percentiles(times);
        let missed = missed(half > target);
        println!(
            "  {what}: p50 {half:.2} ms, p99 {most:.2} ms of {}; target {target} ms{missed}",
            times.len()
        );
    }
    let kib = |bytes: u64| bytes as f64 / 1024.0 / outcome.pods.max(1) as f64;
    let (own, machine) = (kib(outcome.memory.group), kib(outcome.memory.machine));
    println!(
        "  kernel memory, mean of {}: {own:.1} KiB charged to the process, {machine:.1} KiB by the machine's count; target \
         {MEMORY_KIB} KiB{}",
        outcome.pods,
        missed(own > MEMORY_KIB)
    );
    println!("\nShort connections of one pod among many, ratio to one alone; target {RATE}");
    for (leg, count, spread) in &outcome.scale {
        println!("  {:10} {count:>4} pods  {spread}{}", leg.to_string(), missed(spread.median < RATE));
    }
}

fn missed(is: bool) -> &'static str {
    if is { "  <- misses its target" } else { "" }
}

/// The ratios that have a floor: of each the upper end of its middle half, for other work on the machine widens the middle
/// half, while a regression moves all of it.
pub(crate) fn ratios(rate: &[paths::Outcome], bulk: &[paths::Outcome], pods: &pods::Outcome) -> Vec<Ratio> {
    let paths = [("rate", rate), ("bulk", bulk)].into_iter().flat_map(|(group, outcomes)| {
        outcomes.iter().map(move |o| Ratio { group, name: o.leg.to_string(), value: o.culvert.high })
    });
    let scale = pods.scale.iter().map(|(leg, count, spread)| Ratio {
        group: "pods",
        name: format!("{leg}-{count}"),
        value: spread.high,
    });
    paths.chain(scale).collect()
}
