//! The check of what an authority gave back.
//!
//! Invariant: what passes is a certificate of the key and the identity that were asked for, in its time, whose chain leads
//! to one of the roots that came with it, for clients and for servers; and no root is among what peers will be sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::Identity;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Issued;

/// Certificates of each kind that one answer may hold.
const MOST: usize = 64;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it holds no certificate")]
    NoCertificate,
    #[error("it holds no root")]
    NoRoot,
    #[error("it holds more than {MOST} certificates or roots")]
    TooMany,
    #[error("{what} cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    #[error("it is for another key than was asked for")]
    OtherKey,
    #[error("it is for another identity: {presented}")]
    OtherIdentity { presented: String },
    #[error("it expired {} s ago; check the clocks of this node and of the authority", ago.as_secs())]
    Expired { ago: Duration },
    #[error("its validity is out of range")]
    Validity,
    #[error("its chain does not lead to a root that came with it: {0}")]
    Chain(String),
}

/// A certificate that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// What peers are sent: the leaf and intermediate ones.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The roots that came with it.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// When the last of the chain begins to be valid; it may be later than now, if clocks differ.
    pub(crate) not_before: SystemTime,
    /// When the first of the chain ends.
    pub(crate) not_after: SystemTime,
}

/// Checks an answer for `identity` and a key, given as SubjectPublicKeyInfo (DER), as of `now`.
pub(crate) fn check(
    identity: &Identity,
    public_key: &[u8],
    issued: Issued,
    now: SystemTime,
) -> Result<Checked, Fault> {
    let Issued { mut chain, roots } = issued;
    if chain.len() > MOST || roots.len() > MOST {
        return Err(Fault::TooMany);
    }
    if roots.is_empty() {
        return Err(Fault::NoRoot);
    }
    let leaf_der = chain.first().ok_or(Fault::NoCertificate)?;
    let leaf = parse("the certificate", leaf_der)?;
    if leaf.public_key().raw != public_key {
        return Err(Fault::OtherKey);
    }
    let names = leaf.subject_alternative_name().map_err(|error| unreadable("its name", &error))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let expected = identity.to_string();
    if !matches!(names, [GeneralName::URI(name)] if *name == expected) {
        return Err(Fault::OtherIdentity { presented: list(names) });
    }
    let (mut not_before, mut not_after) = validity(&leaf)?;
    let mut keep = Vec::with_capacity(chain.len());
    for (n, der) in chain.iter().enumerate() {
        let parsed = parse("a certificate of the chain", der)?;
        let is_root = parsed.subject() == parsed.issuer() || roots.contains(der);
        keep.push(n == 0 || !is_root);
        if n > 0 && !is_root {
            let (begin, end) = validity(&parsed)?;
            (not_before, not_after) = (not_before.max(begin), not_after.min(end));
        }
    }
    if let Ok(ago) = now.duration_since(not_after) {
        return Err(Fault::Expired { ago });
    }
    let mut keep = keep.into_iter();
    chain.retain(|_| keep.next().unwrap_or_default());
    // Where the authority's clock is ahead, the certificate is good all the same once peers' clocks are.
    leads_to(&chain, &roots, now.max(not_before)).map_err(Fault::Chain)?;
    Ok(Checked { chain, roots, not_before, not_after })
}

/// Whether a chain leads to one of `roots` as of `now`, or why not; as a client's and as a server's.
pub(crate) fn leads_to(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), String> {
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .map(webpki::anchor_from_trusted_cert)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a root cannot be read: {error}"))?;
    let (leaf, others) = chain.split_first().ok_or("there is none")?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    for (usage, side) in [(KeyUsage::client_auth(), "client"), (KeyUsage::server_auth(), "server")] {
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, others, now, usage, None, None)
            .map_err(|error| format!("{error} (as a {side}'s)"))?;
    }
    Ok(())
}

/// When a certificate (DER) ends.
pub(super) fn end_of(der: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    validity(&parsed).ok().map(|(_, end)| end)
}

fn parse<'a>(what: &'static str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Fault> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(Fault::Unreadable { what, reason: "bytes follow it".to_owned() }),
        Err(error) => Err(unreadable(what, &error)),
    }
}

fn unreadable(what: &'static str, error: &dyn std::fmt::Display) -> Fault {
    Fault::Unreadable { what, reason: error.to_string() }
}

fn validity(certificate: &X509Certificate<'_>) -> Result<(SystemTime, SystemTime), Fault> {
    let validity = certificate.validity();
    let instant = |timestamp: i64| {
        let seconds = u64::try_from(timestamp).map_err(|_| Fault::Validity)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(Fault::Validity)
    };
    Ok((instant(validity.not_before.timestamp())?, instant(validity.not_after.timestamp())?))
}

/// The names, for an error: few and short, for they are the authority's words.
fn list(names: &[GeneralName<'_>]) -> String {
    if names.is_empty() {
        return "it has no name".to_owned();
    }
    let names: Vec<String> = names
        .iter()
        .take(4)
        .map(|name| match name {
            GeneralName::URI(name) | GeneralName::DNSName(name) => name.chars().take(200).collect(),
            _ => "a name of another kind".to_owned(),
        })
        .collect();
    names.join(" and ")
}
