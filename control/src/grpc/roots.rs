//! Who may have signed the certificate of an endpoint.
//!
//! Invariant: roots that were applied hold at least one certificate, and each one could be read. A file with one that
//! cannot be read is not taken at all: which one was meant to be trusted is not for us to guess.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tonic::transport::{Certificate, ClientTlsConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::file::{self, FileError};

/// The largest file of roots, in bytes.
const LARGEST: u64 = 4 << 20;

/// Where the roots of trust are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootsOfTrust {
    /// In a PEM file, which may change.
    File(PathBuf),
    /// In the configuration itself, PEM.
    Pem(Arc<str>),
    /// Those of the operating system.
    System,
}

/// Why the roots of trust cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// Their file cannot be read.
    #[error(
        "the roots of trust: {0}; check that the file is there; for istiod it is the ConfigMap `istio-ca-root-cert`, mounted"
    )]
    Read(#[from] FileError),
    /// They are no certificates.
    #[error("the roots of trust in {place} are no good: {reason}")]
    Malformed {
        /// The file, or `the configuration`.
        place: String,
        /// Why.
        reason: String,
    },
}

impl RootsOfTrust {
    /// The certificates as they are now, PEM as it was written; none for those of the operating system.
    ///
    /// # Errors
    /// A [`RootsError`] if they cannot be read, or one of them is no certificate.
    pub async fn read(&self) -> Result<Option<Vec<u8>>, RootsError> {
        let (pem, place) = match self {
            Self::System => return Ok(None),
            Self::Pem(pem) => (pem.as_bytes().to_vec(), "the configuration".to_owned()),
            Self::File(path) => (file::read(path, LARGEST).await?, path.display().to_string()),
        };
        match check(&pem) {
            Ok(()) => Ok(Some(pem)),
            Err(reason) => Err(RootsError::Malformed { place, reason }),
        }
    }

    pub(super) async fn apply(&self, tls: ClientTlsConfig) -> Result<ClientTlsConfig, RootsError> {
        Ok(match self.read().await? {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        })
    }
}

/// `SYSTEM`, PEM itself, or a path.
impl FromStr for RootsOfTrust {
    type Err = RootsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed =
            |reason: String| RootsError::Malformed { place: "the configuration".to_owned(), reason };
        if text == "SYSTEM" {
            Ok(Self::System)
        } else if text.contains("-----BEGIN") {
            check(text.as_bytes()).map_err(malformed)?;
            Ok(Self::Pem(text.into()))
        } else if text.is_empty() {
            Err(malformed("write a path, certificates in PEM, or SYSTEM".to_owned()))
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

fn check(pem: &[u8]) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        count += 1;
        let certificate = certificate.map_err(|error| format!("certificate {count} is not PEM: {error}"))?;
        X509Certificate::from_der(&certificate)
            .map_err(|error| format!("certificate {count} cannot be read: {error}"))?;
    }
    if count == 0 {
        return Err("there is no certificate in PEM (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_path_or_pem_or_system() {
        assert_eq!("SYSTEM".parse::<RootsOfTrust>().unwrap(), RootsOfTrust::System);
        let path = "./var/run/root-cert.pem";
        assert_eq!(path.parse::<RootsOfTrust>().unwrap(), RootsOfTrust::File(path.into()));
        let pem = root();
        assert_eq!(pem.parse::<RootsOfTrust>().unwrap(), RootsOfTrust::Pem(pem.as_str().into()));
        for (text, reason) in [
            ("", "write a path"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1 cannot be read",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "certificate 1 is not PEM"),
        ] {
            let error = text.parse::<RootsOfTrust>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_anew_and_its_faults_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root-cert.pem");
        let roots = RootsOfTrust::File(path.clone());
        let error = roots.read().await.unwrap_err().to_string();
        assert!(error.contains("root-cert.pem") && error.contains("istio-ca-root-cert"), "{error}");
        for content in [b"".as_slice(), b"\xff\xfe", b"hello"] {
            std::fs::write(&path, content).unwrap();
            let error = roots.read().await.unwrap_err().to_string();
            assert!(error.contains("root-cert.pem") && error.contains("no certificate"), "{error}");
        }
        let both = format!("{}{}", root(), root());
        std::fs::write(&path, &both).unwrap();
        assert_eq!(roots.read().await.unwrap().unwrap(), both.as_bytes());
    }
}
