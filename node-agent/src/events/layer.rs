//! Listens to what is logged, and keeps what is an event.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::ring::{Event, Events, MAX_TEXT};
use crate::logging::{level_name, scope, timestamp};

/// The scope of the access log.
const ACCESS: &str = "access";

/// Part of the log that keeps events.
pub(crate) struct Recorder(pub(crate) Events);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let (level, is_connection) = (*metadata.level(), metadata.target() == ACCESS);
        // One line for each connection that went well is no event.
        let least = if is_connection { Level::WARN } else { Level::INFO };
        if level > least {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let kept = Event {
            number: 0,
            time: timestamp(),
            level: level_name(level).to_owned(),
            scope: scope(metadata.target()),
            text: text.finish(),
        };
        self.0.keep(kept, is_connection);
    }
}

/// The message, then why, then the other fields, in one line of bounded length.
#[derive(Default)]
struct Text {
    message: Bounded,
    error: Bounded,
    fields: Bounded,
}

impl Text {
    fn finish(mut self) -> String {
        // Neither the message nor the reason is ever cut for the names' sake.
        let _ = self.message.write_str(&self.error.0);
        let _ = self.message.write_str(&self.fields.0);
        self.message.0
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What does not fit is left out, and formatting it ends there.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "error" => write!(self.error, " error={value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// A text of at most [`MAX_TEXT`] bytes, in one line.
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() + c.len_utf8() > MAX_TEXT {
                return Err(fmt::Error);
            }
            self.0.push(if c.is_control() { ' ' } else { c });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn what_is_logged_is_kept_but_not_connections_that_went_well() {
        let events = Events::default();
        let log = tracing_subscriber::registry().with(Recorder(events.clone()));
        tracing::subscriber::with_default(log, || {
            tracing::info!(target: "culvert::enrollment", pod = "a/b", "pod enrolled");
            tracing::info!(target: "access", "connection complete");
            tracing::debug!(target: "culvert::enrollment", "of no interest");
            tracing::warn!(target: "access", error = "refused\nby policy", "connection failed");
            tracing::warn!(target: "tunnel::gate", error = "x".repeat(2000), "long");
            tracing::error!(target: "access", { dst.workload = "y".repeat(500), error = "why" }, "complete");
        });
        let (kept, missed) = events.after(0);
        let told: Vec<_> = kept.iter().map(|event| (&*event.level, &*event.scope, &*event.text)).collect();
        assert_eq!(told[0], ("info", "enrollment", "pod enrolled pod=\"a/b\""));
        assert_eq!(told[1], ("warn", "access", "connection failed error=\"refused\\nby policy\""));
        assert!(told[2].2.starts_with("long error=\"xxx") && told[2].2.len() <= MAX_TEXT);
        assert!(told[3].2.starts_with("complete error=\"why\" dst.workload=\"yyy"), "{}", told[3].2);
        assert_eq!((told.len(), missed), (4, 0));
    }
}
