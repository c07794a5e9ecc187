//! Keys, and what they sign.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKey, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

/// How far before now validity begins.
const BACKDATE: Duration = Duration::from_secs(120);
/// How long authorities and the server are valid.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// A workload's certificate that is to be made.
pub(super) struct Leaf {
    pub(super) identity: String,
    pub(super) public_key: PublicKey,
    pub(super) ttl: Duration,
    pub(super) expired: bool,
}

/// Who signs: a root or an intermediate.
pub(super) struct Issuing {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Issuing {
    pub(super) fn root(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority(name, BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// One that was made before, of the first certificate in the text.
    pub(super) fn load(certificate: &str, key: &str) -> Result<Self> {
        let end = "-----END CERTIFICATE-----\n";
        let length = certificate.find(end).context("no certificate")? + end.len();
        let pem = certificate.get(..length).context("no certificate")?.to_owned();
        let key = KeyPair::from_pem(key).context("read the root's key")?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key).context("read the root")?, pem })
    }

    pub(super) fn intermediate(&self) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority("Test intermediate", BasicConstraints::Constrained(0));
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate.
    pub(super) fn pem(&self) -> String {
        // Some encoders end lines with a carriage return; one form is enough in a bundle.
        self.pem.replace('\r', "")
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A workload's certificate, PEM.
    pub(super) fn leaf(&self, leaf: Leaf) -> Result<String> {
        let mut params = params(leaf.ttl);
        if leaf.expired {
            let now = SystemTime::now();
            params.not_before = (now - BACKDATE).into();
            params.not_after = (now - BACKDATE / 2).into();
        }
        // With an empty subject the name in the extension is critical.
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(leaf.identity)?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = CertificateSigningRequestParams { params, public_key: leaf.public_key }
            .signed_by(&self.issuer)?;
        Ok(signed.pem().replace('\r', ""))
    }

    /// A server's certificate for names and addresses, with its key.
    pub(super) fn server(&self, names: &[String]) -> Result<(CertificateDer<'static>, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = params(LONG);
        let names = names.iter().map(String::as_str).chain(["localhost", "127.0.0.1", "::1"]);
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(name)?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.der().clone(), key))
    }
}

/// A key's public half, in the form that is signed.
pub(super) fn public_key(key: &KeyPair) -> Result<PublicKey> {
    let request = CertificateParams::default().serialize_request(key)?;
    Ok(CertificateSigningRequestParams::from_der(request.der())?.public_key)
}

fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = params(LONG);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    params
}

fn params(ttl: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ttl).into();
    params.serial_number = Some(SerialNumber::from_slice(&(rand::random::<u128>() >> 1).to_be_bytes()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    params
}
