//! A peer's certificate, once its chain was found good: who it is.

use mesh::Identity;
use tunnel::fuzzing;

const TRUST_DOMAIN: &str = "cluster.local";

/// An identity is one that stands in the certificate, of the trust domain that was asked for, and of no other.
///
/// # Panics
/// When something does not hold.
pub fn peer_certificate(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(identity) = text.parse::<Identity>()
    {
        assert_eq!(identity.to_string(), text, "an identity is written in one way");
    }
    let (member, accepted) = fuzzing::peer_names(data, TRUST_DOMAIN, &[]);
    assert!(!accepted, "nobody is accepted where nobody is to be");
    let Some(member) = member else { return };
    assert_eq!(&**member.trust_domain(), TRUST_DOMAIN);
    let name = member.to_string();
    let shows = |name: &str| data.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(shows(&name), "{name} is not in it");
    assert!(fuzzing::peer_names(data, TRUST_DOMAIN, std::slice::from_ref(&name)).1);
    // It may have more names than one.
    let others: Vec<String> =
        [format!("{name}x"), name.to_uppercase()].into_iter().filter(|other| !shows(other)).collect();
    assert!(!fuzzing::peer_names(data, TRUST_DOMAIN, &others).1);
    assert_ne!(fuzzing::peer_names(data, "other.example", &[]).0, Some(member));
}
