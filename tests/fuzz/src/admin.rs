//! What operators, and whoever passes for one, ask on the admin socket and the admin port.

use std::net::IpAddr;

use protocols::admin::{MAX_MESSAGE, Request, VERSION};
use protocols::levels::{Directives, LevelChange, SILENT};
use protocols::origin;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// A request of the command line is of this release, and is written as it was read.
///
/// # Panics
/// When something does not hold.
pub fn admin_request(data: &[u8]) {
    let request = match Request::decode(data) {
        Ok(request) => request,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(request.version, VERSION);
    let written = request.encode().unwrap_or_else(|error| panic!("{error}: {request:?}"));
    assert_eq!(Request::decode(&written).ok().as_ref(), Some(&request));
    assert!(data.len() > MAX_MESSAGE || written.len() <= 6 * data.len().max(64));
}

/// Headers are three lines: `host`, `origin`, `content-length`; an empty one is not there. The rest is a query.
///
/// # Panics
/// When something does not hold.
pub fn admin_port(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let (host, from, length, query) = (line(), line(), line(), line());
    if origin::refusal(host, from, length).is_none() {
        // As another reader of such names has it.
        if let Some(host) = host {
            let authority = host.parse::<http::uri::Authority>();
            let authority = authority.unwrap_or_else(|error| panic!("{error}: {host:?}"));
            let name = authority.host().trim_start_matches('[').trim_end_matches(']');
            let is_ours = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
            assert!(is_ours, "{host:?} is no name of this host");
        }
        assert!(from.is_none_or(|from| host.is_some_and(|host| from == format!("http://{host}"))));
        assert!(length.is_none_or(|length| length.parse::<u64>().is_ok_and(|length| length <= 4096)));
    }
    let query = query.unwrap_or_default();
    let change = LevelChange::of_query(query);
    // Nothing is made up: what is asked for is there.
    assert!(!change.reset || query.contains("reset"));
    assert!(change.level.is_empty() || query.contains("level="));
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let again = LevelChange::of_query(&format!("level={}", escape(&change.level)));
    assert_eq!(again.level, change.level);
}

/// As the agent has the log read a filter.
fn taken(directives: &Directives) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(directives.filter())
}

/// The first line is what the log began with, each further one a change.
///
/// # Panics
/// When something does not hold.
pub fn log_levels(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n').take(8);
    let start = lines.next().unwrap_or_default();
    // Where two fields are alike, tracing-subscriber 0.3.23 does not take what it has to the letter for equal, and asserts so: in builds
    // like this one alone, and in others the later one counts, as it should.
    if start.matches('{').count() > 1 {
        return;
    }
    let mut directives = Directives::started(start);
    let log_takes_start = taken(&directives).is_ok();
    // However many colons there are between the parts of a scope. What names a scope below it is about that alone. What only the log can
    // read has its scope before the first sign that is of no scope.
    let plain = |text: &str| text.split(':').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
    let names = |word: &str, scope: &str| {
        let word = plain(word.trim());
        let of_rest = |rest: &str| {
            let below = rest.split_once(['[', '=']).or_else(|| rest.rsplit_once(':'));
            below.map_or(rest, |(below, _)| below).trim_matches([':', ' ']).trim().is_empty()
        };
        word.strip_prefix(&plain(scope)).is_some_and(of_rest)
    };
    let is_named = |text: &str| SILENT.iter().any(|scope| text.split(',').any(|word| names(word, scope)));
    let mut named = is_named(start);
    for change in lines {
        let before = directives.clone();
        if let Err(error) = directives.apply(change) {
            assert_eq!(directives, before, "what cannot be read changes nothing");
            assert!(!error.to_string().is_empty());
            continue;
        }
        let mut again = directives.clone();
        assert!(again.apply(change).is_ok());
        assert_eq!(again, directives, "a change is what it is, however often");
        // What can be read is taken by the log, unless it did not take the beginning either.
        if log_takes_start {
            assert!(taken(&directives).is_ok(), "{directives} as {}", directives.filter());
        }
        named |= is_named(change);
    }
    for scope in SILENT {
        let words = directives.filter();
        assert!(named || words.split(',').any(|word| word == format!("{scope}=off")), "{words}");
    }
}
