//! One request for a certificate: a new key, what is asked of the authority, the check of its answer.

use std::sync::Arc;
use std::time::Duration;

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use zeroize::Zeroize;

use super::{Authority, CertificateError, PrivateKey, WorkloadCertificate, answer};
use crate::clock::Clock;

/// A key that is erased when dropped.
struct Key(KeyPair);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Asks for a certificate of a new key.
pub(super) async fn fetch(
    authority: &dyn Authority,
    identity: &Identity,
    ttl: Duration,
    clock: &Clock,
) -> Result<WorkloadCertificate, CertificateError> {
    let (key, request) = prepare(identity).map_err(|error| CertificateError::Request {
        identity: identity.clone(),
        reason: error.to_string(),
    })?;
    let issued = authority.sign(identity, &request, ttl).await?;
    let now = clock.now();
    let checked =
        answer::check(identity, &key.0.subject_public_key_info(), issued, now).map_err(|fault| {
            CertificateError::BadAnswer { identity: identity.clone(), reason: fault.to_string() }
        })?;
    if let Ok(ahead) = checked.not_before.duration_since(now) {
        tracing::warn!(
            %identity,
            ahead_secs = ahead.as_secs(),
            "the certificate is not valid yet; check the clocks of this node and of the authority"
        );
    }
    Ok(WorkloadCertificate {
        identity: identity.clone(),
        chain: checked.chain,
        key: PrivateKey::new(key.0.serialize_der()),
        roots: checked.roots,
        not_before: checked.not_before,
        not_after: checked.not_after,
    })
}

/// A new P-256 key and a request of it (DER): no subject, the identity as its only name, which makes the name critical.
fn prepare(identity: &Identity) -> Result<(Key, Vec<u8>), rcgen::Error> {
    let key = Key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    let request = params.serialize_request(&key.0)?;
    let der = request.der().to_vec();
    Ok((key, der))
}

/// What two owners of the same certificate share, with other roots.
pub(super) fn with_roots(
    certificate: &WorkloadCertificate,
    roots: &super::trust::Roots,
) -> Arc<WorkloadCertificate> {
    Arc::new(WorkloadCertificate { roots: roots.clone(), ..certificate.clone() })
}
