//! `culvert events`: what has happened lately on this node, and with `--watch` what happens.
//!
//! Watching is asking again for what came after the last event that was seen; what the agent has forgotten meanwhile is counted.

use std::process::ExitCode;
use std::time::Duration;

use super::ask::{self, Agent};
use super::code;
use super::output::{self, Paint, Tone, harmless};
use crate::admin_socket::protocol::{Answer, Command, Event, Request};
use crate::cli::{Output, WatchEventsArgs};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Prints them, once or for ever.
pub(crate) fn events(args: &WatchEventsArgs) -> anyhow::Result<ExitCode> {
    let agent = Agent::of(&args.asked.target)?;
    let mut last = 0;
    loop {
        let answers = agent.ask(&Request::new(Command::Events { after: last }, None))?;
        if last > 0 {
            ask::mention_left_out(&answers, "events");
        }
        let events = answers.into_iter().filter_map(|answer| match answer {
            Answer::Event(event) => Some(event),
            _ => None,
        });
        let events: Vec<Event> = events.collect();
        last = events.last().map_or(last, |event| event.number);
        if !args.watch {
            output::show(args.asked.output, &events, |events, paint| lines(events, paint))?;
            return Ok(code(true));
        }
        if !output::print(&stream(args.asked.output, &events)?)? {
            return Ok(code(true));
        }
        std::thread::sleep(PERIOD);
    }
}

/// One line an event; for programs one JSON object a line, or one YAML document an event.
fn stream(output: Output, events: &[Event]) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => lines(events, Paint::of_stdout()),
        Output::Json => events
            .iter()
            .map(|event| Ok(serde_json::to_string(event)? + "\n"))
            .collect::<serde_json::Result<String>>()?,
        Output::Yaml => {
            let documents =
                events.iter().map(|event| Ok(format!("---\n{}", serde_saphyr::to_string(event)?)));
            documents.collect::<anyhow::Result<String>>()?
        }
    })
}

fn lines(events: &[Event], paint: Paint) -> String {
    let line = |event: &Event| {
        let tone = match event.level.as_str() {
            "error" => Tone::Bad,
            "warn" => Tone::Doubtful,
            _ => Tone::Plain,
        };
        let level = paint.text(&format!("{:5}", event.level), tone);
        format!("{}  {level}  {}  {}\n", event.time, harmless(&event.scope), harmless(&event.text))
    };
    events.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    #[test]
    fn events_are_shown_in_the_order_in_which_they_happened() {
        let events = World::new().rows(Command::Events { after: 0 }, |answer| match answer {
            Answer::Event(event) => Some(Event { time: "2026-11-26T16:00:00.000000Z".into(), ..event }),
            _ => None,
        });
        let expected = "\
2026-11-26T16:00:00.000000Z  info   enrollment  pod enrolled pod=\"bookinfo/sleep\"
2026-11-26T16:00:00.000000Z  warn   enrollment:watch  capture lost pod=\"bookinfo/reviews\"
2026-11-26T16:00:00.000000Z  error  access  connection failed error=\"refused\"
";
        assert_eq!(lines(&events, Paint::default()), expected);
        assert!(lines(&events, Paint::always()).contains("\x1b[31merror\x1b[0m"));
        let json = stream(Output::Json, &events[..1]).unwrap();
        let expected = r#"{"number":1,"time":"2026-11-26T16:00:00.000000Z","level":"info","scope":"enrollment","text":"pod enrolled pod=\"bookinfo/sleep\""}"#;
        assert_eq!(json, format!("{expected}\n"));
        assert!(stream(Output::Yaml, &events[..1]).unwrap().starts_with("---\nnumber: 1\n"));
    }

    #[test]
    fn who_has_seen_all_is_told_nothing() {
        let after = |after| World::new().rows(Command::Events { after }, Some).len();
        assert_eq!((after(2), after(3)), (1, 0));
    }
}
