//! The tab-separated line.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::Head;

/// Formats an event as one line.
pub(super) struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
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
        write!(writer, "{time}\t{level}\t{scope}\t{}", line.message)?;
        if !line.fields.is_empty() {
            write!(writer, "\t{}", line.fields)?;
        }
        writeln!(writer)
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn pair(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            // The last one counts, and writing to a String does not fail.
            self.message.clear();
            let _ = OneLine(&mut self.message).write_fmt(value);
            return;
        }
        let blank = if self.fields.is_empty() { "" } else { " " };
        // Writing to a String does not fail.
        let _ = write!(self.fields, "{blank}{}=", field.name());
        let _ = OneLine(&mut self.fields).write_fmt(value);
    }
}

/// Writes text that cannot forge another line or another column.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((clean, breaking)) = rest.find(['\n', '\t']).and_then(|at| rest.split_at_checked(at)) {
            self.0.push_str(clean);
            self.0.push_str(if breaking.starts_with('\n') { "\\n" } else { "\\t" });
            rest = breaking.get(1..).unwrap_or_default();
        }
        self.0.push_str(rest);
        Ok(())
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pair(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.pair(field, format_args!("{value}"));
        } else {
            self.pair(field, format_args!("{value:?}"));
        }
    }
}
