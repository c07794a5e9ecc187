//! The file of revoked certificates, which is opt-in: lists in PEM, one after the other, or one in DER.
//!
//! Invariants: at the start a file that cannot be read is an error, for who asks for lists means them; later it leaves the
//! lists that are in force, is told and counted. A list past its time goes on counting, for what was revoked stays so; it
//! is told, and a metric says when each file's first list ends.

use std::fmt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use tracing::{info, warn};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::grpc::FileError;
use crate::watched::Watched;

/// The largest file, in bytes.
const LARGEST: u64 = 64 << 20;

/// Lists of revoked certificates.
pub type Lists = Vec<CertificateRevocationListDer<'static>>;

/// Why lists cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The file cannot be read.
    #[error("the lists of revoked certificates: {0}; check CRL_PATH, or leave it out")]
    Read(#[from] FileError),
    /// It holds no lists, or a list is none.
    #[error("the lists of revoked certificates in {} are no good: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A file of lists that is followed.
#[derive(Debug)]
pub struct CrlFile {
    watched: Watched,
    metrics: Metrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Default)]
struct Metrics {
    loads: Family<Outcome, Counter>,
    next_update: Gauge,
}

impl CrlFile {
    /// Reads a file, and registers what is told of it.
    ///
    /// # Errors
    /// A [`CrlError`] if it cannot be read or holds anything that is no list.
    pub fn open(path: impl Into<PathBuf>, registry: &mut Registry) -> Result<(Self, Lists), CrlError> {
        let file = Self { watched: Watched::new(path, LARGEST), metrics: Metrics::register(registry) };
        let lists = file.read()?;
        file.metrics.loaded("applied");
        Ok((file, lists))
    }

    /// Hands every further version to `apply`, which tells how many tunnels it has ended, or what is wrong with it. Ends never.
    pub async fn follow<E: fmt::Display>(mut self, mut apply: impl FnMut(&Lists) -> Result<usize, E>) {
        loop {
            self.watched.changed().await;
            let path = self.watched.path().display().to_string();
            let applied = self.read().map_err(|error| error.to_string()).and_then(|lists| {
                apply(&lists).map_err(|error| error.to_string()).map(|ended| (lists.len(), ended))
            });
            match applied {
                Ok((lists, ended)) => {
                    self.metrics.loaded("applied");
                    info!(path, lists, ended, "lists of revoked certificates applied");
                }
                Err(error) => {
                    self.metrics.loaded("rejected");
                    warn!(path, error, "the lists of revoked certificates that are in force stay");
                }
            }
        }
    }

    fn read(&self) -> Result<Lists, CrlError> {
        let malformed = |reason| CrlError::Malformed { path: self.watched.path().to_owned(), reason };
        let (lists, first_end) = parse(self.watched.seen()?).map_err(malformed)?;
        self.metrics.next_update.set(first_end.unwrap_or_default());
        if first_end.is_some_and(|end| end < now()) {
            let path = self.watched.path().display();
            warn!(%path, "a list of revoked certificates is past its time; it goes on counting, and should be replaced");
        }
        Ok(lists)
    }
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for result in ["applied", "rejected"] {
            drop(metrics.loads.get_or_create(&Outcome { result }));
        }
        registry.register(
            "culvert_crl_loads",
            "Versions of the file of revoked certificates",
            metrics.loads.clone(),
        );
        registry.register(
            "culvert_crl_next_update_timestamp_seconds",
            "When the first list of revoked certificates is past its time; 0 if none says",
            metrics.next_update.clone(),
        );
        metrics
    }

    fn loaded(&self, result: &'static str) {
        self.loads.get_or_create(&Outcome { result }).inc();
    }
}

/// The lists, and when the first of them is past its time (Unix, in seconds).
pub(crate) fn parse(content: &[u8]) -> Result<(Lists, Option<i64>), String> {
    const PEM: &[u8] = b"-----BEGIN";
    let lists: Lists = if content.windows(PEM.len()).any(|window| window == PEM) {
        CertificateRevocationListDer::pem_slice_iter(content)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("it is not PEM: {error}"))?
    } else {
        vec![CertificateRevocationListDer::from(content.to_vec())]
    };
    if lists.is_empty() {
        return Err("it holds no list (`X509 CRL`)".to_owned());
    }
    let mut first_end: Option<i64> = None;
    for (n, list) in lists.iter().enumerate() {
        let parsed = match CertificateRevocationList::from_der(list) {
            Ok(([], parsed)) => parsed,
            Ok(_) => return Err(format!("bytes follow list {}", n + 1)),
            Err(error) => return Err(format!("list {} cannot be read: {error}", n + 1)),
        };
        if let Some(end) = parsed.next_update().map(|end| end.timestamp()) {
            first_end = Some(first_end.map_or(end, |first| first.min(end)));
        }
    }
    Ok((lists, first_end))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        SerialNumber, date_time_ymd,
    };
    use tokio::sync::mpsc;

    use super::*;

    /// A list whose time is over at the beginning of a year.
    fn list(year: i32) -> rcgen::CertificateRevocationList {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap()
    }

    fn told(registry: &Registry) -> String {
        let mut told = String::new();
        prometheus_client::encoding::text::encode(&mut told, registry).unwrap();
        told
    }

    #[test]
    fn lists_are_read_from_pem_and_from_der() {
        let (one, two) = (list(2030), list(2090));
        let bundle = format!("# ours\n{}{}", one.pem().unwrap(), two.pem().unwrap());
        let (lists, end) = parse(bundle.as_bytes()).unwrap();
        assert_eq!((lists.len(), end), (2, Some(date_time_ymd(2030, 1, 1).unix_timestamp())));
        assert_eq!(parse(two.der()).unwrap().0, [two.der().clone()]);
    }

    #[test]
    fn what_is_no_list_says_so() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let spoiled = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
        let cut = "-----BEGIN X509 CRL-----\nMAA=\n";
        let followed = [list(2090).der().as_ref(), b"x"].concat();
        for (content, expected) in [
            (b"".as_slice(), "list 1 cannot be read"),
            (b"hello", "list 1 cannot be read"),
            (certificate.as_bytes(), "holds no list"),
            (spoiled.as_bytes(), "list 1 cannot be read"),
            (cut.as_bytes(), "not PEM"),
            (&followed, "bytes follow list 1"),
        ] {
            let error = parse(content).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[tokio::test]
    async fn a_bad_version_leaves_what_is_in_force_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crl.pem");
        let mut registry = Registry::default();
        let error = CrlFile::open(&path, &mut registry).unwrap_err().to_string();
        assert!(error.contains("crl.pem") && error.contains("CRL_PATH"), "{error}");
        let mut registry = Registry::default();
        std::fs::write(&path, list(2090).pem().unwrap()).unwrap();
        let (file, first) = CrlFile::open(&path, &mut registry).unwrap();
        assert_eq!(first.len(), 1);
        let (tell, mut applied) = mpsc::unbounded_channel();
        let following = tokio::spawn(file.follow(move |lists| {
            tell.send(lists.clone()).unwrap();
            Ok::<_, CrlError>(0)
        }));
        std::fs::write(&path, "garbage").unwrap();
        let limit = Duration::from_secs(60);
        let rejected = async {
            while !told(&registry).contains("culvert_crl_loads_total{result=\"rejected\"} 1") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, rejected).await.unwrap();
        assert!(applied.try_recv().is_err());
        let next = list(2001);
        std::fs::write(&path, next.der()).unwrap();
        let lists = tokio::time::timeout(limit, applied.recv()).await.unwrap().unwrap();
        assert_eq!(lists, [next.der().clone()]);
        let end = date_time_ymd(2001, 1, 1).unix_timestamp();
        assert!(told(&registry).contains(&format!("culvert_crl_next_update_timestamp_seconds {end}")));
        following.abort();
    }
}
