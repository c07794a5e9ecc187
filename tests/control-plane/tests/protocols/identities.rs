//! Identities, and what is asked of certificates for them.

use anyhow::{Context as _, Result};
use control::certificates::WorkloadCertificate;
use mesh::Identity;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The identity of an account of namespace `demo`.
pub(crate) fn of(account: &str) -> Identity {
    Identity::new("cluster.local", "demo", account)
}

/// The common names of the issuers of the roots that a certificate came with.
pub(crate) fn roots(certificate: &WorkloadCertificate) -> Result<Vec<String>> {
    let name = |der: &rustls_pki_types::CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(der)?;
        let subject = parsed.subject().iter_common_name().next().context("a root without a name")?;
        Ok(subject.as_str()?.to_owned())
    };
    certificate.roots.iter().map(name).collect()
}
