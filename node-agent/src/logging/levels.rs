//! What is logged, and how that is changed while the agent runs.
//!
//! Invariants: a change that cannot be read changes nothing. What a library would write down that is nobody's business is written only
//! if its scope is named ([`SILENT`]), at whatever level everything else is. While nobody changes levels, asking whether a line is logged
//! costs what it cost without this.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Scopes that are silent unless they are named. The client of Kubernetes writes down answers that it cannot read, whole, and in them the
/// environment of pods; what has gone wrong is told by whoever asked.
const SILENT: [&str; 1] = ["kube_client::client"];

/// A level that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LevelError {
    /// Not a level.
    #[error("`{0}` is not a level: write error, warn, info, debug, trace or off")]
    Level(String),
    /// Not a scope.
    #[error("`{0}` is not a scope: write it as log lines have it, such as access or tunnel:hbone")]
    Scope(String),
    /// The log does not take it.
    #[error("the log cannot be changed: {0}")]
    Refused(String),
}

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
        EnvFilter::try_new(Directives::started(words).filter())
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
            let filter = EnvFilter::try_new(next.filter()).map_err(|error| refused(&error))?;
            self.filter.reload(filter).map_err(|error| refused(&error))?;
            tracing::info!(levels = %next, "log levels changed");
            *current = next;
        }
        Ok(current.to_string())
    }
}

/// Words of `RUST_LOG`, each scope once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Directives(Vec<Directive>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Directive {
    /// Of one scope, with `::` between its parts.
    Scope(String, LevelFilter),
    /// Of everything else.
    Rest(LevelFilter),
    /// What the agent was started with and only the log itself understands, such as a filter by span.
    Other(String),
}

impl Directives {
    fn started(filter: &str) -> Self {
        let words = filter.split(',').map(str::trim).filter(|word| !word.is_empty());
        let read = |word: &str| Directive::read(word).unwrap_or_else(|_| Directive::Other(word.to_owned()));
        Self(words.map(read).collect())
    }

    fn apply(&mut self, change: &str) -> Result<(), LevelError> {
        let words = change.split(',').map(str::trim).filter(|word| !word.is_empty());
        for directive in words.map(Directive::read).collect::<Result<Vec<_>, _>>()? {
            self.0.retain(|before| !before.is_replaced_by(&directive));
            self.0.push(directive);
        }
        // What is said of everything else comes last, as it is read.
        self.0.sort_by_key(|directive| matches!(directive, Directive::Rest(_)));
        Ok(())
    }

    /// In the words of the log. A scope of this program stands in log lines without the program's name.
    fn filter(&self) -> String {
        let is_named = |scope: &&str| self.0.iter().any(|directive| directive.names(scope));
        let silent = SILENT.into_iter().filter(|scope| !is_named(scope)).map(|scope| format!("{scope}=off"));
        let words: Vec<String> = silent.chain(self.0.iter().map(Directive::filter)).collect();
        words.join(",")
    }
}

impl Directive {
    fn read(word: &str) -> Result<Self, LevelError> {
        let parts = word.rsplit_once('=').or_else(|| word.rsplit_once(':'));
        let Some((scope, level)) = parts else { return Ok(Self::Rest(read_level(word)?)) };
        let level = read_level(level)?;
        let parts: Vec<&str> = scope.split(':').filter(|part| !part.is_empty()).collect();
        let is_name =
            |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if parts.is_empty() || !parts.iter().all(is_name) {
            return Err(LevelError::Scope(scope.to_owned()));
        }
        Ok(Self::Scope(parts.join("::"), level))
    }

    fn is_replaced_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scope(one, _), Self::Scope(other, _)) => one == other,
            (Self::Rest(_), Self::Rest(_)) => true,
            _ => false,
        }
    }

    /// Whether it is about this scope, or one below it, and not about one that has it in it.
    fn names(&self, scope: &str) -> bool {
        match self {
            Self::Scope(name, _) => {
                name.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            }
            Self::Rest(_) => false,
            Self::Other(word) => word.contains(scope),
        }
    }

    fn filter(&self) -> String {
        match self {
            Self::Scope(scope, level) if scope.starts_with("culvert") => format!("{scope}={level}"),
            Self::Scope(scope, level) => format!("{scope}={level},culvert::{scope}={level}"),
            Self::Rest(level) => level.to_string(),
            Self::Other(word) => word.clone(),
        }
    }
}

fn read_level(text: &str) -> Result<LevelFilter, LevelError> {
    // Numbers would be taken, too, which nobody means.
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic()) && !text.is_empty();
    text.parse().ok().filter(|_| is_word).ok_or_else(|| LevelError::Level(text.to_owned()))
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, directive) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match directive {
                Directive::Scope(scope, level) => write!(f, "{comma}{scope}={level}")?,
                Directive::Rest(level) => write!(f, "{comma}{level}")?,
                Directive::Other(word) => write!(f, "{comma}{word}")?,
            }
        }
        Ok(())
    }
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
}
