//! What an Envoy shows and whom it believes: PEM files of a workload certificate, its key, and the mesh's root.
//!
//! The certificate has the shape of the agents' own: P-256, an empty subject, one critical SPIFFE name, both key usages.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Longer than any test.
const LIFETIME: Duration = Duration::from_secs(3600);
/// For clocks that differ: those of the two libraries do not round alike.
const BACKDATE: Duration = Duration::from_secs(120);

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The mesh's authority.
    Mesh,
    /// An authority that nobody knows.
    Stranger,
}

/// Files for a TLS context.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The mesh's root.
    pub roots: PathBuf,
}

impl Credentials {
    /// Makes `NAME.pem` and `NAME.key` in `dir` for an identity. `ca` is the directory of the agents' authority, which must
    /// have been made.
    pub fn issue(dir: &Path, name: &str, ca: &Path, signer: Signer, identity: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params(identity)?.signed_by(&key, &issuer(ca, signer)?)?;
        let made = Self {
            chain: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
            roots: ca.join("root-cert.pem"),
        };
        fs::write(&made.chain, certificate.pem())?;
        fs::write(&made.key, key.serialize_pem())?;
        Ok(made)
    }
}

fn params(identity: &str) -> Result<CertificateParams> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity)?)];
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + LIFETIME).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn issuer(ca: &Path, signer: Signer) -> Result<Issuer<'static, KeyPair>> {
    match signer {
        Signer::Mesh => {
            let read = |name: &str| {
                let path = ca.join(name);
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
            };
            let key = KeyPair::from_pem(&read("root-key.pem")?)?;
            Ok(Issuer::from_ca_cert_pem(&read("root-cert.pem")?, key)?)
        }
        Signer::Stranger => {
            let mut root = CertificateParams::default();
            root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Ok(Issuer::new(root, KeyPair::generate()?))
        }
    }
}
