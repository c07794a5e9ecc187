//! One request for a certificate, and the check of the answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroize;

use super::{Authority, CertificateError, Issued, PrivateKey, WorkloadCertificate};

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
) -> Result<Arc<WorkloadCertificate>, CertificateError> {
    let (key, request) = prepare(identity).map_err(|error| CertificateError::Request {
        identity: identity.clone(),
        reason: error.to_string(),
    })?;
    let issued = authority.sign(identity, &request, ttl).await?;
    let (not_before, not_after) = check(identity, &key, &issued)
        .map_err(|reason| CertificateError::BadAnswer { identity: identity.clone(), reason })?;
    Ok(Arc::new(WorkloadCertificate {
        identity: identity.clone(),
        chain: issued.chain,
        key: PrivateKey::new(key.0.serialize_der()),
        roots: issued.roots,
        not_before,
        not_after,
    }))
}

/// A new P-256 key and a request of it (DER): no subject, the identity as its only name.
fn prepare(identity: &Identity) -> Result<(Key, Vec<u8>), rcgen::Error> {
    let key = Key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    let request = params.serialize_request(&key.0)?;
    let der = request.der().to_vec();
    Ok((key, der))
}

/// The validity of what was issued, if it is for that identity and that key, and there is a root.
fn check(identity: &Identity, key: &Key, issued: &Issued) -> Result<(SystemTime, SystemTime), String> {
    let leaf = issued.chain.first().ok_or("it holds no certificate")?;
    if issued.roots.is_empty() {
        return Err("it holds no root".to_owned());
    }
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| format!("it cannot be read: {error}"))?;
    if leaf.public_key().raw != key.0.subject_public_key_info() {
        return Err("it is for another key".to_owned());
    }
    let names = leaf.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let expected = identity.to_string();
    if !matches!(names, [GeneralName::URI(name)] if *name == expected) {
        return Err("it is for another identity".to_owned());
    }
    let validity = leaf.validity();
    let (from, to) = (instant(validity.not_before.timestamp())?, instant(validity.not_after.timestamp())?);
    if to <= SystemTime::now() {
        return Err("it has expired".to_owned());
    }
    Ok((from, to))
}

fn instant(timestamp: i64) -> Result<SystemTime, String> {
    u64::try_from(timestamp)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| "its validity is out of range".to_owned())
}
