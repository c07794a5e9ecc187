//! The `resolv.conf` of a pod.

use tunnel::fuzzing::{self, Resolver};

/// What is read is bounded, and read again as what it is written.
///
/// # Panics
/// When something does not hold.
pub fn resolv_conf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = fuzzing::resolv_conf(text);
    let Resolver { search, ndots, nameservers } = &read;
    assert!(search.len() <= 32 && *ndots <= 15 && nameservers.len() <= 3);
    for domain in search {
        assert!(
            !domain.is_empty() && domain.len() <= 253 && !domain.contains(|c: char| c.is_ascii_uppercase())
        );
        assert!(domain.split('.').all(|label| !label.is_empty()));
    }
    let servers: String = nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let written = format!("# a remark\nsearch {}\n{servers}options ndots:{ndots}\n", search.join(" "));
    assert_eq!(fuzzing::resolv_conf(&written), read, "{written}");
}
