//! `culvert pods`: the pods of this node that are to be in the mesh, and how each of them is.

use std::process::ExitCode;

use anyhow::bail;

use super::output::{self, Paint, Tone};
use super::table::{Cell, Table};
use super::{ask, code};
use crate::admin_socket::protocol::{Answer, Command, PodRow, Request};
use crate::cli::PodsArgs;

/// Prints them; ends well if each of them is enrolled.
pub(crate) fn pods(args: &PodsArgs) -> anyhow::Result<ExitCode> {
    let answers = ask::ask(&args.asked.target, &Request::new(Command::Pods, args.pod.clone()))?;
    let rows = answers.into_iter().filter_map(|answer| match answer {
        Answer::PodRow(row) => Some(row),
        _ => None,
    });
    let rows: Vec<PodRow> = rows.collect();
    if let Some(pod) = args.pod.as_ref().filter(|_| rows.is_empty()) {
        bail!("the agent of this node knows no pod {pod}; `culvert pods` shows those that it knows");
    }
    output::show(args.asked.output, &rows, |rows, paint| table(rows, paint))?;
    Ok(code(rows.iter().all(|row| row.state == "enrolled")))
}

/// The tone of a pod's state.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "enrolled" => Tone::Good,
        "pending" => Tone::Doubtful,
        _ => Tone::Bad,
    }
}

fn table(rows: &[PodRow], paint: Paint) -> String {
    let mut table = Table::new(["POD", "STATE", "IN", "OUT", "ADDRESSES", "IDENTITY", "WAYPOINT", "WHY"]);
    for row in rows {
        table.push([
            Cell::from(&row.pod),
            Cell::toned(&row.state, tone(&row.state)),
            Cell::from(row.inbound.to_string()),
            Cell::from(row.outbound.to_string()),
            Cell::from(row.addresses.join(",")),
            Cell::from(row.identity.as_deref().unwrap_or_default()),
            Cell::from(row.waypoint.as_deref().unwrap_or_default()),
            Cell::from(row.why.as_deref().unwrap_or_default()),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin_socket::tests::World;
    use crate::cli::Output;

    #[test]
    fn pods_are_shown_as_they_are() {
        let rows: Vec<PodRow> = World::new().rows(Command::Pods, |answer| match answer {
            Answer::PodRow(row) => Some(row),
            _ => None,
        });
        let expected = "\
POD                STATE     IN  OUT  ADDRESSES             IDENTITY                                       WAYPOINT                             WHY
bookinfo/reviews   degraded  0   0    10.1.0.31             spiffe://cluster.local/ns/bookinfo/sa/reviews  bookinfo/waypoint.bookinfo.example   the route is gone
bookinfo/sleep     enrolled  1   1    10.1.0.30,fd00:1::30  spiffe://cluster.local/ns/bookinfo/sa/sleep    -                                    -
bookinfo/unknown   pending   0   0    -                     -                                              -                                    it is to be enrolled
";
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&table(&rows, Paint::default())), squeeze(expected));
        let coloured = table(&rows, Paint::always());
        assert!(coloured.contains("\x1b[31mdegraded\x1b[0m") && coloured.contains("\x1b[33mpending\x1b[0m"));
        let json =
            output::render(Output::Json, &rows[2..].to_vec(), |_, _| String::new(), Paint::always()).unwrap();
        let expected = r#"[
  {
    "pod": "bookinfo/unknown",
    "state": "pending",
    "why": "it is to be enrolled",
    "addresses": [],
    "inbound": 0,
    "outbound": 0
  }
]
"#;
        assert_eq!(json, expected);
        let yaml =
            output::render(Output::Yaml, &rows[2..].to_vec(), |_, _| String::new(), Paint::always()).unwrap();
        assert!(yaml.contains("pod: bookinfo/unknown\n") && yaml.contains("state: pending\n"), "{yaml}");
    }
}
