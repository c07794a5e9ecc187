//! The messages of the authority: what is asked, and what is made of an answer.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh::Identity;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificates::{AuthorityError, Issued};
use crate::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};

/// Under which name of the metadata one says for whom a certificate is.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// Characters of a line of PEM (RFC 7468 section 2).
const LINE: usize = 64;

/// Asks for a certificate of `identity` with a request (PKCS #10, DER).
pub(super) fn request(identity: &Identity, csr: &[u8], ttl: Duration) -> IstioCertificateRequest {
    let name = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    IstioCertificateRequest {
        csr: pem(csr),
        validity_duration: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: Some(Struct { fields: [(IMPERSONATED.to_owned(), name)].into() }),
    }
}

fn pem(csr: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for (n, character) in STANDARD.encode(csr).chars().enumerate() {
        if n > 0 && n % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE REQUEST-----\n");
    text
}

/// The chain, and the roots, which are the last entry together.
pub(crate) fn decode(answer: &IstioCertificateResponse) -> Result<Issued, AuthorityError> {
    let garbled = |reason: String| AuthorityError::Garbled { reason };
    let (roots, chain) = match answer.cert_chain.split_last() {
        Some((roots, chain)) if !chain.is_empty() => (roots, chain),
        _ => {
            let count = answer.cert_chain.len();
            return Err(garbled(format!(
                "it has {count} entries; the certificate and the roots were expected at least"
            )));
        }
    };
    let read = |n: usize, entry: &str| {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(entry.as_bytes()).collect();
        let read = read.map_err(|error| garbled(format!("entry {n} is not PEM: {error}")))?;
        if read.is_empty() {
            return Err(garbled(format!("entry {n} holds no certificate")));
        }
        Ok(read)
    };
    let mut certificates = Vec::with_capacity(chain.len());
    for (n, entry) in chain.iter().enumerate() {
        certificates.extend(read(n + 1, entry)?);
    }
    Ok(Issued { chain: certificates, roots: read(chain.len() + 1, roots)? })
}
