//! What the agent writes to stdout: the line format that tools of this field already read, plain or JSON.
//!
//! Plain: time, level, scope, message, separated by tabs, then `key=value` pairs separated by blanks; text is quoted,
//! numbers and addresses are not. JSON: the same as one object. A thread of its own writes; when it cannot
//! keep up, lines are dropped and counted rather than a connection being held up.

mod json;
mod levels;
mod plain;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use anyhow::Context as _;
use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use self::levels::Levels;
pub(crate) use self::writer::Lost;
use self::writer::Writer;
use crate::events::{Events, Recorder};

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Tab-separated, for people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

/// Keeps the writer alive; dropping it writes what is left.
pub(crate) struct Logging {
    /// Lines dropped because the writer could not keep up.
    pub(crate) dropped: Lost,
    /// What is logged.
    pub(crate) levels: Levels,
    /// What of it is kept.
    pub(crate) events: Events,
    _writer: Writer,
}

/// Starts logging to stdout; `words` are those of `RUST_LOG`.
pub(crate) fn start(format: LogFormat, words: &str) -> anyhow::Result<Logging> {
    let filter = Levels::filter(words).context("the filter of the log")?;
    let writer = Writer::start(std::io::stdout()).context("the thread that writes the log")?;
    let dropped = writer.lost();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer.lines());
    let (filter, handle) = reload::Layer::new(filter);
    let levels = Levels::new(words, handle);
    let events = Events::default();
    let registry = tracing_subscriber::registry().with(filter).with(Recorder(events.clone()));
    match format {
        LogFormat::Plain => registry.with(layer.event_format(plain::Plain)).try_init()?,
        LogFormat::Json => registry.with(layer.event_format(json::Json)).try_init()?,
    }
    Ok(Logging { dropped, levels, events, _writer: writer })
}

/// What every line begins with, in whichever form.
struct Head {
    time: String,
    level: &'static str,
    scope: String,
}

impl Head {
    fn now(metadata: &Metadata<'_>) -> Self {
        Self { time: timestamp(), level: level_name(*metadata.level()), scope: scope(metadata.target()) }
    }
}

/// Level names are lower case here.
pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The module that speaks, without the name of the binary: `enrollment`, `tunnel:hbone`.
pub(crate) fn scope(target: &str) -> String {
    target.strip_prefix("culvert::").unwrap_or(target).replace("::", ":")
}

/// RFC 3339 with microseconds, UTC.
pub(crate) fn timestamp() -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time::OffsetDateTime::now_utc().format(FORMAT).unwrap_or_default()
}
