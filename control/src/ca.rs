//! A certificate authority of one machine, for a mesh without a control plane.
//!
//! Its root lives in a directory: `root-cert.pem`, which every peer trusts, and `root-key.pem` (0600). Agents
//! that share the directory share the mesh. Invariants: a key that others may read is refused; two processes
//! that create the root at once end up with the same one; no more than the key's public half is ever printed.

mod root;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::certificates::{Authority, AuthorityError, BoxFuture, Issued};
use crate::clock::Clock;

/// How far before now a certificate's validity begins, for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(120);

/// Why a local authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file or directory could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The key may be read by others.
    #[error("the key {} may be read by others (mode {mode:04o}): run chmod 600 on it, and make a new root if it may have leaked", path.display())]
    OpenKey {
        /// The key's file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{} is no good: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate is not of the key.
    #[error("the certificate and the key in {} do not belong together: remove both for a new root", dir.display())]
    Mismatch {
        /// The directory.
        dir: PathBuf,
    },
    /// The root's time is over.
    #[error("the root certificate {} has expired: remove it for a new one of the same key", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The cryptographic library failed.
    #[error("cannot {operation}: {source}")]
    Crypto {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },
}

/// A local certificate authority.
pub struct LocalCa {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_expires: SystemTime,
    trust_domain: Arc<str>,
    clock: Clock,
}

impl LocalCa {
    /// Opens the authority of a directory, and makes what it lacks: the directory, the key, the certificate.
    ///
    /// # Errors
    /// A [`CaError`] if something is missing and cannot be made, or is there and is not good.
    pub fn open_or_create(dir: &Path, trust_domain: &str) -> Result<Self, CaError> {
        let root::Root { key, certificate, expires } = root::open_or_create(dir, trust_domain)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| CaError::Crypto { operation: "use the root certificate", source })?;
        let (trust_domain, clock) = (trust_domain.into(), Clock::default());
        Ok(Self { issuer, root: certificate, root_expires: expires, trust_domain, clock })
    }

    /// The same by another clock.
    #[cfg(test)]
    pub(crate) fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The root certificate, DER.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Signs a request (DER) for an identity. Only the key is taken from the request, not what it asks for.
    ///
    /// # Errors
    /// An [`AuthorityError::Refused`] if the request is not good or the identity of another trust domain.
    pub fn sign_request(
        &self,
        identity: &Identity,
        request: &[u8],
        ttl: Duration,
    ) -> Result<Issued, AuthorityError> {
        let refuse = |reason: String| AuthorityError::Refused { identity: identity.clone(), reason };
        if *identity.trust_domain() != self.trust_domain {
            return Err(refuse(format!("the authority is of trust domain {}", self.trust_domain)));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| refuse(format!("the request is no good: {error}")))?;
        let params = self.leaf(identity, ttl).map_err(|error| refuse(error.to_string()))?;
        let signed = CertificateSigningRequestParams { params, public_key: request.public_key }
            .signed_by(&self.issuer)
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Issued { chain: vec![signed.der().clone()], roots: vec![self.root.clone()] })
    }

    fn leaf(&self, identity: &Identity, ttl: Duration) -> Result<CertificateParams, rcgen::Error> {
        let now = self.clock.now();
        let expires = now.checked_add(ttl).unwrap_or(self.root_expires).min(self.root_expires);
        let mut params = CertificateParams::default();
        // With an empty subject the name in the extension is the only one, which makes it critical.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
        params.not_before = (now - BACKDATE).into();
        params.not_after = expires.into();
        params.serial_number = Some(serial());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl Authority for LocalCa {
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Issued, AuthorityError>> {
        Box::pin(async move { self.sign_request(identity, request, ttl) })
    }
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCa").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// A random serial number, positive and of at most 20 bytes as RFC 5280 section 4.1.2.2 wants it.
fn serial() -> SerialNumber {
    let number: u128 = rand::random::<u128>() >> 1;
    SerialNumber::from_slice(&number.to_be_bytes())
}
