//! The kinds of values that settings of many nouns take, and how they are read.
//!
//! Invariant: nothing is guessed. What could mean two things is refused with what is allowed.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::setting::Kind;

/// Yes or no.
pub(crate) const SWITCH: Kind<bool> =
    Kind { value: "true|false", allowed: "true or false, 1 or 0, yes or no, on or off", parse: switch };
/// A wait that needs a limit.
pub(crate) const DURATION: Kind<Duration> = Kind {
    value: "DURATION",
    allowed: "a duration greater than 0 such as 500ms, 30s, 5m or 24h; a number alone is seconds",
    parse: duration,
};
/// A wait that may be none at all.
pub(crate) const GRACE: Kind<Duration> = Kind {
    value: "DURATION",
    allowed: "a duration such as 0, 500ms, 30s, 5m or 24h; a number alone is seconds",
    parse: grace,
};
/// A limit that may be off.
pub(crate) const LIMIT: Kind<Option<Duration>> = Kind {
    value: "DURATION|off",
    allowed: "a duration such as 500ms, 30s, 5m or 24h, a number alone being seconds; or off",
    parse: limit,
};
/// An amount of something that is needed.
pub(crate) const COUNT: Kind<NonZeroUsize> =
    Kind { value: "NUMBER", allowed: "a whole number from 1", parse: count };
/// A port of the agent.
pub(crate) const LISTEN: Kind<SocketAddr> = Kind {
    value: "ADDRESS:PORT",
    allowed: "an IP address with a port, such as 127.0.0.1:15020 or [::]:15020",
    parse: listen,
};
/// A file or directory.
pub(crate) const PATH: Kind<PathBuf> = Kind { value: "PATH", allowed: "a path", parse: path };
/// A file that may be none.
pub(crate) const OPTIONAL_PATH: Kind<Option<PathBuf>> =
    Kind { value: "PATH", allowed: "a path; empty for none", parse: optional_path };
/// The name of something in Kubernetes or Istio.
pub(crate) const NAME: Kind<String> =
    Kind { value: "NAME", allowed: "a name without blanks and slashes; may be empty", parse: name };
/// A DNS name that has to be there.
pub(crate) const DOMAIN: Kind<String> =
    Kind { value: "DOMAIN", allowed: "a DNS name such as cluster.local", parse: domain };

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err("neither yes nor no".to_owned()),
    }
}

fn grace(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) if text.is_empty() => Err("a duration is missing".to_owned()),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("no duration: {error}")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match grace(text)? {
        none if none.is_zero() => Err("this wait needs a limit".to_owned()),
        some => Ok(some),
    }
}

fn limit(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" | "0" => Ok(None),
        text => duration(text).map(Some),
    }
}

/// A whole number, of any type of it.
pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "no such number".to_owned())
}

fn count(text: &str) -> Result<NonZeroUsize, String> {
    number(text)
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "no address with a port".to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    optional_path(text)?.ok_or_else(|| "a path is missing".to_owned())
}

fn optional_path(text: &str) -> Result<Option<PathBuf>, String> {
    if text.contains('\0') {
        return Err("no path has a zero byte in it".to_owned());
    }
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

fn name(text: &str) -> Result<String, String> {
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '/') {
        Some(odd) => Err(format!("{odd:?} may not be in it")),
        None => Ok(text.to_owned()),
    }
}

fn domain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("no DNS name".to_owned())
    }
}
