//! `culvert connections`: what is open now, and with `--watch` what opens and closes.
//!
//! Watching is asking again and again: the agent remembers nothing of who watches, and holds nothing for who does not read. What opens and
//! closes between two looks is not seen; the access log has it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::ask::{self, Agent};
use super::code;
use super::output::{self, Paint, Tone};
use super::table::{Cell, Table};
use crate::admin_socket::protocol::{Answer, Command, ConnectionRow, Request};
use crate::cli::{Output, WatchArgs};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// What became of a connection between two looks.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change<'a> {
    change: &'static str,
    connection: &'a ConnectionRow,
}

/// Prints them, once or for ever.
pub(crate) fn connections(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let agent = Agent::of(&args.asked.target)?;
    let request = Request::new(Command::Connections, args.pod.clone());
    let look = || -> anyhow::Result<BTreeSet<ConnectionRow>> {
        let answers = agent.ask(&request)?;
        ask::mention_left_out(&answers, "connections");
        let rows = answers.into_iter().filter_map(|answer| match answer {
            Answer::Connection(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    };
    let mut before = look()?;
    output::show(args.asked.output, &before, |rows, paint| table(rows.iter(), paint))?;
    if !args.watch {
        return Ok(code(true));
    }
    loop {
        std::thread::sleep(PERIOD);
        let now = look()?;
        if !output::print(&changed(args.asked.output, &before, &now)?)? {
            return Ok(code(true));
        }
        before = now;
    }
}

/// A line for each change; for programs a JSON object, or a YAML document.
fn changed(
    output: Output,
    before: &BTreeSet<ConnectionRow>,
    now: &BTreeSet<ConnectionRow>,
) -> anyhow::Result<String> {
    let opened = now.difference(before).map(|connection| Change { change: "opened", connection });
    let closed = before.difference(now).map(|connection| Change { change: "closed", connection });
    let mut text = String::new();
    for change in closed.chain(opened) {
        match output {
            Output::Table => {
                let row = change.connection;
                let [pod, way, source, destination, transport, peer] = words(row);
                let line = [change.change, &pod, &way, &source, "->", &destination, &transport, &peer];
                text.push_str(&output::harmless(line.join("  ").trim_end()));
                text.push('\n');
            }
            Output::Json => text.push_str(&(serde_json::to_string(&change)? + "\n")),
            Output::Yaml => text.push_str(&format!("---\n{}", serde_saphyr::to_string(&change)?)),
        }
    }
    Ok(text)
}

fn words(row: &ConnectionRow) -> [String; 6] {
    let destination = match row.original_destination {
        Some(original) if original != row.destination => format!("{original} by {}", row.destination),
        _ => row.destination.to_string(),
    };
    let transport = if row.mutual_tls { "mTLS" } else { "plain" };
    let peer = row.identity.clone().or_else(|| row.peer.clone()).unwrap_or_default();
    [row.pod.clone(), row.direction.clone(), row.source.to_string(), destination, transport.to_owned(), peer]
}

fn table<'a>(rows: impl Iterator<Item = &'a ConnectionRow>, paint: Paint) -> String {
    let mut table = Table::new(["POD", "WAY", "SOURCE", "DESTINATION", "BY", "PEER"]);
    for row in rows {
        let [pod, way, source, destination, transport, peer] = words(row);
        let tone = if row.mutual_tls { Tone::Good } else { Tone::Plain };
        table.push([
            pod.into(),
            way.into(),
            source.into(),
            destination.into(),
            Cell::toned(&transport, tone),
            peer.into(),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    fn rows() -> BTreeSet<ConnectionRow> {
        let rows = World::new().rows(Command::Connections, |answer| match answer {
            Answer::Connection(row) => Some(row),
            _ => None,
        });
        rows.into_iter().collect()
    }

    #[test]
    fn connections_are_shown_with_both_ends() {
        let expected = "\
POD             WAY       SOURCE             DESTINATION                            BY    PEER
bookinfo/sleep  inbound   [fd00:1::9]:16328  [fd00:1::30]:8080                      mTLS  spiffe://cluster.local/ns/bookinfo/sa/gateway
bookinfo/sleep  outbound  10.1.0.30:47498    10.96.0.10:9080 by 10.1.0.31:15008     mTLS  bookinfo/reviews
";
        let shown = table(rows().iter(), Paint::default());
        let squeezed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(squeezed(&shown), squeezed(expected), "{shown}");
    }

    #[test]
    fn a_watch_tells_what_opened_and_what_closed() {
        let (all, none) = (rows(), BTreeSet::new());
        let outbound: BTreeSet<_> = all.iter().filter(|row| row.direction == "outbound").cloned().collect();
        let line = "bookinfo/sleep  outbound  10.1.0.30:47498  ->  10.96.0.10:9080 by 10.1.0.31:15008  mTLS  bookinfo/reviews\n";
        assert_eq!(changed(Output::Table, &none, &outbound).unwrap(), format!("opened  {line}"));
        assert_eq!(changed(Output::Table, &outbound, &none).unwrap(), format!("closed  {line}"));
        assert_eq!(changed(Output::Table, &all, &all).unwrap(), "");
        let json = r#"{"change":"opened","connection":{"pod":"bookinfo/sleep","direction":"outbound","source":"10.1.0.30:47498","originalDestination":"10.96.0.10:9080","destination":"10.1.0.31:15008","mutualTls":true,"peer":"bookinfo/reviews"}}"#;
        assert_eq!(changed(Output::Json, &none, &outbound).unwrap(), format!("{json}\n"));
        assert!(changed(Output::Yaml, &none, &outbound).unwrap().starts_with("---\nchange: opened\n"));
    }
}
