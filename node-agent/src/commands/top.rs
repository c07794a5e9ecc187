//! `culvert top`: who opens how many connections, moves how many bytes and fails how often, now, in a terminal.
//!
//! The rates are those of the counters that everybody scrapes, between two looks; a workload's pods on this node are counted together, as there.
//! How long connections take to come about is counted by the agent only while somebody looks.
//! The terminal is never put into another mode: whatever ends this leaves it as it was.

mod connect;
mod rates;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;

use self::connect::Times;
use self::rates::{Counters, Rates, Sample};
use super::ask::Agent;
use super::code;
use super::output::{self, Paint, Tone};
use super::table::{Cell, Table};
use crate::admin_socket::protocol::{Answer, Command, Request};
use crate::cli::TopArgs;

/// Goes to the first place of the terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Workloads that are shown; a terminal has no more lines.
const MAX_ROWS: usize = 40;
/// How much later than announced the next look may be.
const LATE: Duration = Duration::from_secs(30);

/// Shows rates until somebody ends it.
pub(crate) fn top(args: &TopArgs) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() {
        bail!(
            "top shows a live view and needs a terminal; ask for `culvert connections -o json`, or scrape the metrics"
        );
    }
    let period = Duration::from_secs(args.every.into());
    let agent = Agent::of(&args.target)?;
    let mut before = (look(&agent)?, times(&agent, args)?);
    let mut since = Instant::now();
    loop {
        std::thread::sleep(period);
        let now = (look(&agent)?, times(&agent, args)?);
        let rates = Rates::between(&before.0, &now.0, since.elapsed());
        let text = frame(&rates, (&before.1, &now.1), period, Paint::of_stdout());
        (before, since) = (now, Instant::now());
        if !output::print(&format!("{CLEAR}{text}"))? {
            return Ok(code(true));
        }
    }
}

fn look(agent: &Agent) -> anyhow::Result<Sample> {
    let answers = agent.ask(&Request::new(Command::Metrics, None))?;
    let mut text = String::new();
    for answer in &answers {
        if let Answer::Piece { text: piece } = answer {
            text.push_str(piece);
        }
    }
    Ok(Sample::read(&text))
}

/// How long connections took since somebody looks; the agent goes on counting until the next look.
fn times(agent: &Agent, args: &TopArgs) -> anyhow::Result<Times> {
    let seconds = u64::from(args.every) + LATE.as_secs();
    let answers = agent.ask(&Request::new(Command::ConnectTimes { seconds }, None))?;
    let rows = answers.into_iter().filter_map(|answer| match answer {
        Answer::ConnectTimes(row) => Some(row),
        _ => None,
    });
    Ok(Times::of(rows))
}

fn frame(rates: &Rates, (before, now): (&Times, &Times), period: Duration, paint: Paint) -> String {
    let columns = ["WORKLOAD", "WAY", "OPENED/S", "FAILED/S", "P99 CONNECT", "SENT/S", "RECEIVED/S", "OPEN"];
    let mut table = Table::new(columns);
    for (key, rate) in rates.busiest().take(MAX_ROWS) {
        let failed = if rate.failed > 0.0 { Tone::Bad } else { Tone::Plain };
        table.push([
            Cell::from(&key.workload),
            Cell::from(key.way),
            Cell::from(format!("{:.1}", rate.opened)),
            Cell::toned(&format!("{:.1}", rate.failed), failed),
            Cell::from(now.since(before, key).map(milliseconds).unwrap_or_default()),
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

/// A time as people compare it.
fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
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
    use crate::admin_socket::protocol::ConnectTimesRow;

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
        let row = |way: &str, workload: &str, counts: &[(u64, u32)]| ConnectTimesRow {
            namespace: "demo".into(),
            workload: workload.into(),
            direction: way.into(),
            counts: counts.to_vec(),
        };
        let earlier = Times::of([row("outbound", "sleep", &[(640, 10)])]);
        let later = Times::of([
            row("outbound", "sleep", &[(640, 29), (2560, 1)]),
            row("inbound", "none", &[(40, 1)]),
        ]);
        let times = (&earlier, &later);
        let expected = "\
culvert top, every 2s: 10.0 connections/s, 2.0 failed/s, 5 open

WORKLOAD    WAY  OPENED/S  FAILED/S  P99 CONNECT  SENT/S   RECEIVED/S  OPEN
demo/sleep  out  10.0      0.0       2.56 ms      4.0 KiB  0.0 B       5
demo/web    in   0.0       2.0       -            0.0 B    0.0 B       0
";
        assert_eq!(frame(&rates, times, Duration::from_secs(2), Paint::default()), expected);
        assert!(frame(&rates, times, Duration::from_secs(2), Paint::always()).contains("\x1b[31m2.0\x1b[0m"));
        // An agent that was started anew counts from nothing: no rate is negative.
        let anew = Rates::between(&now, &before, Duration::from_secs(1));
        assert!(anew.busiest().all(|(_, rate)| rate.opened >= 0.0 && rate.sent >= 0.0));
    }
}
