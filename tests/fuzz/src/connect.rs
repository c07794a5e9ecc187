//! CONNECT requests: the authority, which decides where a connection goes, and the headers, which only tell.

use std::net::SocketAddr;

use mesh::Authority;
use tunnel::fuzzing;

/// An authority is read as what it prints, or not at all.
///
/// # Panics
/// When something does not hold.
pub fn connect_authority(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let direct = text.parse::<Authority>().ok();
    if let Some(authority) = &direct {
        assert_ne!(authority.port(), 0);
        let printed = authority.to_string();
        assert_eq!(printed.parse().as_ref(), Ok(authority), "{printed}");
        match authority {
            Authority::Host { host, .. } => {
                assert!(host.len() <= 253 && !host.bytes().any(|byte| byte.is_ascii_uppercase()));
                assert!(!host.contains([':', '/', '@', ' ', '[', ']']));
            }
            Authority::Address(address) => assert_eq!(address.ip(), address.ip().to_canonical()),
        }
    }
    // As it comes out of HTTP/2.
    if let Ok(uri) = http::uri::Authority::try_from(data) {
        let through = uri.as_str().parse::<Authority>().ok();
        if uri.as_str() == text {
            assert_eq!(through, direct);
        }
    }
}

/// Headers are three lines: `baggage`, `forwarded`, `traceparent`.
///
/// # Panics
/// When something does not hold.
pub fn connect_headers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (baggage, forwarded, traceparent) = (line(), line(), line());
    let headers = fuzzing::connect_headers(baggage, forwarded, traceparent);
    for value in &headers.baggage {
        // They become labels and words of the log.
        assert!(value.len() <= 253 && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
    }
    if let Some(client) = headers.client {
        let again = fuzzing::connect_headers("", &format!("for=\"{client}\""), "");
        // A scope is not printed where it is 0.
        assert_eq!(again.client.map(|address| (address.ip(), address.port())), Some(ends(client)));
    }
    if let Some(host) = &headers.host {
        assert!(!host.is_empty() && !host.contains([';', ',']));
    }
    if let Some(written) = &headers.traceparent {
        assert_eq!(written.len(), 55);
        assert_eq!(fuzzing::connect_headers("", "", written).traceparent.as_ref(), Some(written));
    }
}

fn ends(address: SocketAddr) -> (std::net::IpAddr, u16) {
    (address.ip(), address.port())
}
