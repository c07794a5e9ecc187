//! What is logged, and how that is changed while the agent runs.
//!
//! Invariants: a change that cannot be read changes nothing. What a library would write down that is nobody's business is written only
//! if its scope is named ([`protocols::levels::SILENT`]), at whatever level everything else is. While nobody changes levels,
//! asking whether a line is logged costs what it cost without this.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use protocols::levels::{Directives, LevelError};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The levels in force. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Levels {
    filter: reload::Handle<EnvFilter, Registry>,
    started: Directives,
    current: Arc<Mutex<Directives>>,
}

impl Levels {
    /// The filter of a log that begins with these words of `RUST_LOG`.
    pub(crate) fn filter(words: &str) -> Result<EnvFilter, ParseError> {
        read(&Directives::started(words).filter())
    }

    /// Of a log that began with [`Levels::filter`] of `filter`, which `handle` replaces.
    pub(crate) fn new(filter: &str, handle: reload::Handle<EnvFilter, Registry>) -> Self {
        let started = Directives::started(filter);
        Self { filter: handle, current: Arc::new(Mutex::new(started.clone())), started }
    }

    /// Goes back to the beginning if `reset`, then applies `change`, which is `LEVEL` or `SCOPE=LEVEL`, or several with commas.
    /// Returns what is in force then.
    ///
    /// # Errors
    /// If `change` cannot be read; nothing was changed then.
    pub(crate) fn change(&self, reset: bool, change: &str) -> Result<String, LevelError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = if reset { self.started.clone() } else { current.clone() };
        next.apply(change)?;
        if next != *current {
            let refused = |error: &dyn fmt::Display| LevelError::Refused(error.to_string());
            let filter = read(&next.filter()).map_err(|error| refused(&error))?;
            self.filter.reload(filter).map_err(|error| refused(&error))?;
            tracing::info!(levels = %next, "log levels changed");
            *current = next;
        }
        Ok(current.to_string())
    }
}

/// Reads the words of a filter. A span's field has to be what is written there to the letter: as a regular expression, of which a hundred
/// dots are one, it could keep the agent from starting.
fn read(words: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(words)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn levels(filter: &str) -> (Levels, tracing::subscriber::DefaultGuard) {
        let (layer, handle) = reload::Layer::new(Levels::filter(filter).unwrap());
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        (Levels::new(filter, handle), guard)
    }

    #[test]
    fn levels_are_changed_shown_and_taken_back() {
        let (levels, _guard) = levels("h2=off,info");
        let change = |text: &str| levels.change(false, text);
        assert_eq!(change("").as_deref(), Ok("h2=off,info"));
        assert!(!tracing::enabled!(target: "tunnel::hbone::pool", tracing::Level::DEBUG));
        assert_eq!(change("tunnel:hbone=debug").as_deref(), Ok("h2=off,tunnel::hbone=debug,info"));
        assert!(tracing::enabled!(target: "tunnel::hbone::pool", tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "tunnel::dns", tracing::Level::DEBUG));
        assert_eq!(change("tunnel:hbone:warn,WARN").as_deref(), Ok("h2=off,tunnel::hbone=warn,warn"));
        assert!(!tracing::enabled!(target: "culvert::enrollment::watch", tracing::Level::INFO));
        assert_eq!(
            levels.change(true, "enrollment:debug,access=off").as_deref(),
            Ok("h2=off,enrollment=debug,access=off,info")
        );
        assert!(tracing::enabled!(target: "culvert::enrollment::watch", tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "access", tracing::Level::ERROR));
        assert_eq!(levels.change(true, "").as_deref(), Ok("h2=off,info"));
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let (levels, _guard) = levels("info,[span{a=1}]=debug");
        for (bad, told) in [
            ("nonsense", "not a level"),
            ("xds:nonsense", "not a level"),
            ("tunnel:hbone", "not a level"),
            ("debug,access=", "not a level"),
            ("3", "not a level"),
            ("=debug", "not a scope"),
            ("a b=debug", "not a scope"),
        ] {
            assert!(levels.change(true, bad).unwrap_err().to_string().contains(told), "{bad}");
        }
        assert_eq!(levels.change(false, "").as_deref(), Ok("[span{a=1}]=debug,info"));
    }

    #[test]
    fn a_library_that_writes_down_secrets_is_silent_until_it_is_named() {
        let is_written = || tracing::enabled!(target: "kube_client::client", tracing::Level::WARN);
        let (levels, _guard) = levels("kube_client=trace,trace");
        assert!(!is_written());
        assert!(tracing::enabled!(target: "kube_client::config", tracing::Level::TRACE));
        assert_eq!(levels.change(false, "debug").as_deref(), Ok("kube_client=trace,debug"));
        assert!(!is_written());
        levels.change(false, "kube_client:client=warn").unwrap();
        assert!(is_written());
        levels.change(true, "").unwrap();
        assert!(!is_written());
        levels.change(false, "kube_client:client:builder=trace").unwrap();
        assert!(
            !is_written() && tracing::enabled!(target: "kube_client::client::builder", tracing::Level::TRACE)
        );
    }

    #[test]
    fn whoever_names_it_at_the_start_has_it() {
        for (filter, expected) in [
            ("info", false),
            ("info,kube=trace", false),
            ("info,kube_client::client=debug", true),
            ("kube_client::client", true),
            ("kube_client:client=error", false),
        ] {
            let (_levels, _guard) = levels(filter);
            let is_written = tracing::enabled!(target: "kube_client::client", tracing::Level::WARN);
            assert_eq!(is_written, expected, "{filter}");
        }
    }

    #[test]
    fn a_field_of_a_span_is_no_regular_expression() {
        assert!(Levels::filter("[request{path=(}]=debug").is_ok());
        assert!(Levels::filter(&format!("[request{{path=1{}}}]=debug", ".".repeat(200))).is_ok());
    }
}
