//! SPIFFE names in certificates: reading them and the two judgements made upon them.

use std::sync::Arc;

use mesh::Identity;
use rustls::OtherError;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The chain was fine, but the name was not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityFault {
    #[error("unreadable certificate: {0}")]
    Unreadable(String),
    #[error("identity {presented} is not one of {expected}")]
    NotAccepted { presented: String, expected: String },
    #[error("identity {presented} is not of trust domain {trust_domain}")]
    ForeignTrustDomain { presented: String, trust_domain: String },
}

impl From<IdentityFault> for rustls::Error {
    fn from(fault: IdentityFault) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// Every URI name of the certificate, in order.
fn uris(certificate: &CertificateDer<'_>) -> Result<Vec<String>, IdentityFault> {
    let unreadable = |error: &dyn std::fmt::Display| IdentityFault::Unreadable(error.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| unreadable(&e))?;
    let names = parsed.subject_alternative_name().map_err(|e| unreadable(&e))?;
    let Some(names) = names else {
        return Err(IdentityFault::Unreadable("it has no subject alternative name".into()));
    };
    Ok(names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect())
}

/// Succeeds if one URI name of the certificate is exactly one of `accepted`.
pub(super) fn accepts(certificate: &CertificateDer<'_>, accepted: &[String]) -> Result<(), IdentityFault> {
    let presented = uris(certificate)?;
    if presented.iter().any(|name| accepted.contains(name)) {
        return Ok(());
    }
    Err(IdentityFault::NotAccepted { presented: list(&presented), expected: list(accepted) })
}

/// The first SPIFFE identity of the certificate that belongs to `trust_domain`.
pub(super) fn member(
    certificate: &CertificateDer<'_>,
    trust_domain: &str,
) -> Result<Identity, IdentityFault> {
    let presented = uris(certificate)?;
    presented
        .iter()
        .filter_map(|name| name.parse::<Identity>().ok())
        .find(|identity| &**identity.trust_domain() == trust_domain)
        .ok_or_else(|| IdentityFault::ForeignTrustDomain {
            presented: list(&presented),
            trust_domain: trust_domain.to_owned(),
        })
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" or ") }
}

/// Who a certificate is, of this trust domain, and whether it is one of those that are accepted.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzing(der: &[u8], trust_domain: &str, accepted: &[String]) -> (Option<Identity>, bool) {
    let certificate = CertificateDer::from(der);
    (member(&certificate, trust_domain).ok(), accepts(&certificate, accepted).is_ok())
}
