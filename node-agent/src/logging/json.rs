//! The line as a JSON object: level, time, scope, message, then the event's fields, in that order.

use std::fmt;

use serde::Serializer as _;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::Head;

/// Formats an event as one JSON object.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let Head { time, level, scope } = Head::now(event.metadata());
        let head = [("level", level.into()), ("time", time.into()), ("scope", scope.into())];
        let message = line.message.map(|message| ("message", message));
        let mut object = Vec::new();
        serde_json::Serializer::new(&mut object)
            .collect_map(head.into_iter().chain(message).chain(line.fields))
            .map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", std::str::from_utf8(&object).map_err(|_| fmt::Error)?)
    }
}

#[derive(Default)]
struct Line {
    message: Option<Value>,
    /// In the order they were given.
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        match field.name() {
            "message" => self.message = Some(value.into()),
            name => self.fields.push((name, value.into())),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}
