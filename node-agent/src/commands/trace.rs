//! `culvert trace`: why a connection would go where it goes, without making it.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::output::{self, Paint, Tone, harmless};
use super::{DENIED, ask, code, policy};
use crate::admin_socket::protocol::{Answer, Command, Request, SourceView, TraceQuestion, WayView};
use crate::cli::TraceArgs;

/// A source, and the ways from it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    source: SourceView,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<std::net::SocketAddr>,
    ways: Vec<WayView>,
}

impl Trace {
    fn of(answers: Vec<Answer>, destination: Option<std::net::SocketAddr>) -> anyhow::Result<Self> {
        let (mut source, mut ways) = (None, Vec::new());
        for answer in answers {
            match answer {
                Answer::Source(view) => source = Some(view),
                Answer::Way(way) => ways.push(*way),
                _ => {}
            }
        }
        let source = source.context("the agent's answer names no source")?;
        Ok(Self { source, destination, ways })
    }
}

/// Prints every way that a connection may go; ends as denied if one of them does not arrive.
pub(crate) fn trace(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let question = TraceQuestion { from: args.from.clone(), to: args.to };
    let answers = ask::ask(&args.asked.target, &Request::new(Command::Trace(question), None))?;
    let trace = Trace::of(answers, args.to)?;
    output::show(args.asked.output, &trace, text)?;
    let carried = trace.ways.iter().all(|way| way.carried);
    Ok(if carried { code(true) } else { ExitCode::from(DENIED) })
}

fn text(trace: &Trace, paint: Paint) -> String {
    let mut text = String::new();
    let SourceView { from, address, about } = &trace.source;
    // Writing to a String does not fail.
    let _ = match address {
        Some(address) => writeln!(text, "from {} ({address})", harmless(from)),
        None => writeln!(text, "from {}", harmless(from)),
    };
    for line in about {
        let _ = writeln!(text, "  {}", harmless(line));
    }
    let Some(destination) = trace.destination else { return text };
    let count = trace.ways.len();
    for (number, way) in trace.ways.iter().enumerate() {
        let which = if count > 1 { format!(", way {} of {count}", number + 1) } else { String::new() };
        let _ = writeln!(text, "to {destination}{which}");
        push_way(&mut text, way, paint);
    }
    text
}

fn push_way(text: &mut String, way: &WayView, paint: Paint) {
    for step in &way.steps {
        let _ = writeln!(text, "  {}", harmless(step));
    }
    if let Some(verdict) = &way.verdict {
        let who = verdict.identity.as_deref().unwrap_or("a client without an identity");
        let _ = writeln!(
            text,
            "  arrives at {} {} as {}",
            harmless(&verdict.to),
            verdict.destination,
            harmless(who)
        );
        policy::push_lines(text, verdict, "    ");
    }
    let next_hop = way.next_hop.map(|hop| format!(" by {hop}")).unwrap_or_default();
    let to = way.to.as_deref().map(|to| format!(" to {to}")).unwrap_or_default();
    let how = match way.outcome.as_str() {
        "doubleTunnel" => "a tunnel inside a tunnel",
        "tunnel" => "a tunnel",
        "direct" | "plaintext" => "plaintext",
        "passthrough" => "passed through as it is",
        "local" => "left alone",
        "byName" => "where its name leads",
        other => other,
    };
    let outcome = match &way.why {
        Some(why) => {
            let refused = paint.text("REFUSED", Tone::Bad);
            format!("{refused}: {}", harmless(why))
        }
        None => {
            let carried = paint.text("CARRIED", Tone::Good);
            format!("{carried}: {how}{}{next_hop}", harmless(&to))
        }
    };
    let _ = writeln!(text, "  => {outcome}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    fn traced(from: &str, to: &str) -> String {
        let to = (!to.is_empty()).then(|| to.parse().unwrap());
        let question = TraceQuestion { from: from.into(), to };
        let answers = World::new().ask(&Request::new(Command::Trace(question), None));
        text(&Trace::of(answers, to).unwrap(), Paint::default())
    }

    #[test]
    fn a_trace_tells_every_turn() {
        let about = "\
from bookinfo/sleep (10.1.0.30)
  workload sleep
  identity spiffe://cluster.local/ns/bookinfo/sa/sleep
  captured by this agent: enrolled
  policies bookinfo/only-sleep
";
        assert_eq!(traced("sleep", ""), about);
        let rows = [
            (
                "9.9.9.9:80",
                "  nobody in the mesh has the address\n  => CARRIED: passed through as it is by 9.9.9.9:80\n",
            ),
            (
                "10.1.0.33:80",
                "  the address is one of workload ratings
  ratings takes tunnels (HBONE)
  the tunnel is asked for 10.1.0.33:80
  arrives at bookinfo/ratings 10.1.0.33:80 as spiffe://cluster.local/ns/bookinfo/sa/sleep
    rule 0 of ALLOW policy bookinfo/only-sleep matches
  => CARRIED: a tunnel to bookinfo/ratings by 10.1.0.33:15008
",
            ),
            (
                "10.1.0.31:9080",
                "  the address is one of workload reviews
  waypoint bookinfo/waypoint.bookinfo.example is in front of it
  => REFUSED: no healthy waypoint bookinfo/waypoint.bookinfo.example for 10.1.0.31:9080
",
            ),
            (
                "127.0.0.1:80",
                "  loopback is left alone: it stays in the pod\n  => CARRIED: left alone by 127.0.0.1:80\n",
            ),
        ];
        for (to, expected) in rows {
            assert_eq!(traced("10.1.0.30", to), format!("{about}to {to}\n{expected}"));
        }
    }

    #[test]
    fn who_is_not_captured_comes_in_plaintext() {
        let expected = "\
from 10.9.9.9 (10.9.9.9)
  nobody in the mesh has this address: it connects in plaintext
to 10.1.0.33:80
  the source is not captured: it connects by itself
  ratings is captured: what arrives in plaintext is judged there
  arrives at bookinfo/ratings 10.1.0.33:80 as a client without an identity
    no rule of ALLOW policy bookinfo/only-sleep matches
  => REFUSED: allow policies exist, but none allowed
";
        assert_eq!(traced("10.9.9.9", "10.1.0.33:80"), expected);
    }

    #[test]
    fn of_several_endpoints_every_way_is_told() {
        let shown = traced("sleep", "10.96.0.20:80");
        assert!(shown.contains("way 1 of 2") && shown.contains("way 2 of 2"), "{shown}");
        for pod in ["bookinfo/ratings", "bookinfo/ratings-2"] {
            assert!(shown.contains(&format!("CARRIED: a tunnel to {pod} by ")), "{shown}");
        }
    }

    #[test]
    fn a_source_that_nobody_knows_is_an_error() {
        let question = TraceQuestion { from: "nobody".into(), to: None };
        let answers = World::new().ask(&Request::new(Command::Trace(question), None));
        let why = "the mesh knows no pod nobody; name it NAMESPACE/POD, or by its address";
        assert_eq!(answers, [Answer::Refused { why: why.into() }]);
    }
}
