//! What is logged: the words of a filter, and how they are changed while the agent runs.
//!
//! Invariants: a change that cannot be read changes nothing. What a library would write down that is nobody's business is written only
//! if its scope is named ([`SILENT`]), or of it what is below one that is named, at whatever level everything else is.

use std::fmt;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;

/// Scopes that are silent unless they are named. The client of Kubernetes writes down answers that it cannot read, whole, and in them the
/// environment of pods; what has gone wrong is told by whoever asked.
pub const SILENT: [&str; 1] = ["kube_client::client"];

/// A level that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
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

/// A change of what is logged; an empty one changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelChange {
    /// Whether to go back to what the agent was started with, first.
    #[serde(default)]
    pub reset: bool,
    /// `LEVEL`, or `SCOPE=LEVEL`, or several with commas.
    #[serde(default)]
    pub level: String,
}

impl LevelChange {
    /// What the query of a URL asks for: `level=...`, `reset`. What is not known is let be: callers of other releases may say more.
    pub fn of_query(query: &str) -> Self {
        let mut change = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("level", value) => change.level = unescaped(value),
                ("reset", _) => change.reset = true,
                _ => {}
            }
        }
        change
    }
}

/// A value of a query with its `%xx` taken back; what is none stays as it is.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Words of the filter, each scope once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives(Vec<Directive>);

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
    /// Those of `RUST_LOG`, which only the log itself understands wholly.
    pub fn started(filter: &str) -> Self {
        let words = filter.split(',').map(str::trim).filter(|word| !word.is_empty());
        let read = |word: &str| Directive::read(word).unwrap_or_else(|_| Directive::Other(word.to_owned()));
        Self(words.map(read).collect())
    }

    /// Applies `LEVEL` or `SCOPE=LEVEL`, or several with commas. Nothing is changed if one of them cannot be read.
    ///
    /// # Errors
    /// When a word is no level, or a scope none.
    pub fn apply(&mut self, change: &str) -> Result<(), LevelError> {
        let words = change.split(',').map(str::trim).filter(|word| !word.is_empty());
        for directive in words.map(Directive::read).collect::<Result<Vec<_>, _>>()? {
            self.0.retain(|before| !before.is_replaced_by(&directive));
            self.0.push(directive);
        }
        // What is said of everything else comes last, as it is read.
        self.0.sort_by_key(|directive| matches!(directive, Directive::Rest(_)));
        Ok(())
    }

    /// In the words of the log, and what is silent. A scope of this program stands in log lines without the program's name.
    pub fn filter(&self) -> String {
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

    /// Whether it is about this very scope. One that is about a scope below it counts there by itself, for the more exact one of two
    /// decides, and leaves the rest silent.
    fn names(&self, scope: &str) -> bool {
        match self {
            Self::Scope(name, _) => name == scope,
            Self::Rest(_) => false,
            // The scope stands before spans and level.
            Self::Other(word) => word.split(['[', '=']).next().is_some_and(|name| name.trim() == scope),
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
    use super::*;

    #[test]
    fn escapes_are_taken_back() {
        for (value, text) in [
            ("tunnel%3Ahbone%3Ddebug", "tunnel:hbone=debug"),
            ("a%", "a%"),
            ("%zz%41", "%zzA"),
            // A number may have a sign, an escape has none.
            ("%+1", "%+1"),
            ("", ""),
        ] {
            assert_eq!(unescaped(value), text);
        }
    }

    #[test]
    fn what_is_silent_is_heard_where_it_is_named_and_below_and_nowhere_else() {
        const OFF: &str = "kube_client::client=off";
        for (started, is_silent) in [
            ("info", true),
            ("kube_client=trace", true),
            ("kube_client::client=warn", false),
            ("kube_client:client:debug", false),
            ("kube_client::client", false),
            ("kube_client::client[request]=debug", false),
            ("kube_client::client::builder=trace", true),
            ("kube_client::client::builder[request]=trace", true),
            ("kube_client::client::builder", true),
            ("kube_client::clients=trace", true),
        ] {
            let mut directives = Directives::started(started);
            let is_off = |directives: &Directives| directives.filter().split(',').any(|word| word == OFF);
            assert_eq!(is_off(&directives), is_silent, "{started}");
            directives.apply("kube_client:client=info").unwrap();
            assert!(!is_off(&directives), "{started}");
        }
    }

    #[test]
    fn a_query_says_what_is_to_change() {
        let change = |query: &str| {
            let LevelChange { reset, level } = LevelChange::of_query(query);
            (reset, level)
        };
        assert_eq!(change(""), (false, String::new()));
        assert_eq!(change("level=info&reset"), (true, "info".to_owned()));
        assert_eq!(change("reset=1&more=x&level=a%3Dwarn"), (true, "a=warn".to_owned()));
    }
}
