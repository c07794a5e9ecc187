//! `culvert top`: who opens how many connections, moves how many bytes and fails how often, now, in a terminal.
//!
//! The rates are those of the counters that everybody scrapes, between two looks; a workload's pods on this node are counted together, as there.
//! The terminal is never put into another mode: whatever ends this leaves it as it was.

mod rates;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;

use self::rates::{Counters, Rates, Sample};
use super::output::{self, Paint, Tone};
use super::table::{Cell, Table};
use super::{ask, code};
use crate::admin_socket::protocol::{Answer, Command, Request};
use crate::cli::TopArgs;

/// Goes to the first place of the terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Workloads that are shown; a terminal has no more lines.
const MAX_ROWS: usize = 40;

/// Shows rates until somebody ends it.
pub(crate) fn top(args: &TopArgs) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() {
        bail!(
            "top shows a live view and needs a terminal; ask for `culvert connections -o json`, or scrape the metrics"
        );
    }
    let period = Duration::from_secs(args.every.into());
    let mut before = look(args)?;
    let mut since = Instant::now();
    loop {
        std::thread::sleep(period);
        let now = look(args)?;
        let rates = Rates::between(&before, &now, since.elapsed());
        (before, since) = (now, Instant::now());
        let text = frame(&rates, period, Paint::of_stdout());
        if !output::print(&format!("{CLEAR}{text}"))? {
            return Ok(code(true));
        }
    }
}

fn look(args: &TopArgs) -> anyhow::Result<Sample> {
    let answers = ask::ask(&args.run_dir, &Request::new(Command::Metrics, None))?;
    let mut text = String::new();
    for answer in &answers {
        if let Answer::Piece { text: piece } = answer {
            text.push_str(piece);
        }
    }
    Ok(Sample::read(&text))
}

fn frame(rates: &Rates, period: Duration, paint: Paint) -> String {
    let mut table = Table::new(["WORKLOAD", "WAY", "OPENED/S", "FAILED/S", "SENT/S", "RECEIVED/S", "OPEN"]);
    for (key, rate) in rates.busiest().take(MAX_ROWS) {
        let failed = if rate.failed > 0.0 { Tone::Bad } else { Tone::Plain };
        table.push([
            Cell::from(&key.workload),
            Cell::from(key.way),
            Cell::from(format!("{:.1}", rate.opened)),
            Cell::toned(&format!("{:.1}", rate.failed), failed),
            Cell::from(bytes(rate.sent)),
            Cell::from(bytes(rate.received)),
            Cell::from(format!("{:.0}", rate.open)),
        ]);
    }
    let all: Counters = rates.all();
    format!(
        "culvert top, every {}: {:.1} connections/s, {:.1} failed/s, {:.0} open\n\n{}",
        humantime::format_duration(period),
        all.opened,
        all.failed,
        all.open,
        table.render(paint)
    )
}

/// Bytes with a unit that leaves few digits.
fn bytes(count: f64) -> String {
    let mut rest = count;
    for unit in ["B", "KiB", "MiB"] {
        if rest < 1024.0 {
            return format!("{rest:.1} {unit}");
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_come_first() {
        let labels = r#"source_workload="sleep",source_workload_namespace="demo",destination_workload="web",destination_workload_namespace="demo",response_flags="-""#;
        let text = |opened: u32, closed: u32, failed: u32, sent: u32| {
            format!(
                "# HELP x y\n\
                 istio_tcp_connections_opened_total{{reporter=\"source\",{labels}}} {opened}\n\
                 istio_tcp_connections_closed_total{{reporter=\"source\",{labels}}} {closed}\n\
                 istio_tcp_connections_failed_total{{reporter=\"destination\",{labels}}} {failed}\n\
                 istio_tcp_sent_bytes_total{{reporter=\"source\",{labels}}} {sent}\n\
                 culvert_pods{{state=\"enrolled\"}} 3\n# EOF\n"
            )
        };
        let (before, now) = (Sample::read(&text(10, 10, 0, 0)), Sample::read(&text(30, 25, 4, 8192)));
        let rates = Rates::between(&before, &now, Duration::from_secs(2));
        let expected = "\
culvert top, every 2s: 10.0 connections/s, 2.0 failed/s, 5 open

WORKLOAD    WAY  OPENED/S  FAILED/S  SENT/S   RECEIVED/S  OPEN
demo/sleep  out  10.0      0.0       4.0 KiB  0.0 B       5
demo/web    in   0.0       2.0       0.0 B    0.0 B       0
";
        assert_eq!(frame(&rates, Duration::from_secs(2), Paint::default()), expected);
        assert!(frame(&rates, Duration::from_secs(2), Paint::always()).contains("\x1b[31m2.0\x1b[0m"));
        // An agent that was started anew counts from nothing: no rate is negative.
        let anew = Rates::between(&now, &before, Duration::from_secs(1));
        assert!(anew.busiest().all(|(_, rate)| rate.opened >= 0.0 && rate.sent >= 0.0));
    }
}
