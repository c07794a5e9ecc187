//! Who may ask the admin port: programs of this host, not web pages that a browser of this host happens to show.
//!
//! A page can have a browser send requests to loopback, by a name of its own that resolves to it, or straight. So the
//! host that is asked for must be `localhost` or an address, and a request that names where it comes from must come from
//! the same place. Nothing there takes a body worth mentioning, but for a question. A header that is no text is taken for an empty one.

use std::net::IpAddr;

/// Bytes that a request may bring along.
pub const MAX_BODY: usize = 4096;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It asks for a host of another name.
    Name,
    /// It comes from a web page of another origin.
    Page,
    /// It brings a body, or does not say how long a one.
    Body,
}

impl Refusal {
    /// For the one who asked.
    pub fn why(self) -> &'static str {
        match self {
            Self::Name => "ask for localhost or an IP address, not for another name\n",
            Self::Page => "this interface is not for other web pages\n",
            Self::Body => "requests need no body here, and questions no longer one\n",
        }
    }
}

/// Judges a request by its headers `host`, `origin` and `content-length`.
pub fn refusal(host: Option<&str>, origin: Option<&str>, length: Option<&str>) -> Option<Refusal> {
    if host.is_some_and(|host| !is_local(host)) {
        return Some(Refusal::Name);
    }
    let same_origin = |origin: &str| host.is_some_and(|host| origin.strip_prefix("http://") == Some(host));
    if origin.is_some_and(|origin| !same_origin(origin)) {
        return Some(Refusal::Page);
    }
    let length = length.map(str::parse::<usize>);
    length.is_some_and(|length| !matches!(length, Ok(0..=MAX_BODY))).then_some(Refusal::Body)
}

/// Whether a host, with or without a port, is `localhost` or an address.
fn is_local(host: &str) -> bool {
    let (name, behind) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((host, "")),
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    is_name && (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_an_address_but_a_port() {
        for host in ["[::1]", "[::1]:15000", "127.0.0.1:", "localhost:1"] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["[::1].evil.example", "[::1]evil.example:1", "127.0.0.1:evil.example", "localhost:1:2", "::1"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
