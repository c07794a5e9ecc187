//! Certificates of workloads: one for each identity, fetched when first asked for and renewed in time.
//!
//! Invariants: however many ask at once, one request is under way for an identity, and a bounded number in all;
//! a certificate that is still valid stays in force while its renewal fails; no wait is unbounded; keys are
//! erased when dropped and never printed; what an authority gives back is used only if it is what was asked for.

pub(crate) mod answer;
mod manager;
mod metrics;
mod renewal;
mod request;
mod trust;
mod turns;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub use self::manager::{Config, Manager};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whoever signs certificates.
pub trait Authority: Send + Sync {
    /// Signs a request (PKCS #10, DER) for an identity.
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Issued, AuthorityError>>;

    /// Completes when what the authority itself is trusted by has changed, so that its certificates are likely to be signed
    /// by another root from now on. Never, for an authority of which nothing is known to change.
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// What an authority gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The workload's certificate, then intermediate ones. A root among them is left out of what peers are sent.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots that peers' certificates must chain to.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why an authority did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// It will not.
    #[error("the authority refused a certificate for {identity}: {reason}")]
    Refused {
        /// For whom.
        identity: Identity,
        /// In its words.
        reason: String,
    },
    /// It could not be asked.
    #[error("the certificate authority cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// It answered something that cannot be read.
    #[error("the answer of the certificate authority cannot be read: {reason}")]
    Garbled {
        /// What is wrong.
        reason: String,
    },
}

/// Why there is no certificate for an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The authority did not sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// What it gave back is no good.
    #[error("the authority's answer for {identity} is no good: {reason}")]
    BadAnswer {
        /// For whom.
        identity: Identity,
        /// What is wrong.
        reason: String,
    },
    /// No answer came in time.
    #[error("no certificate for {identity} came in {} s", waited.as_secs())]
    TimedOut {
        /// For whom.
        identity: Identity,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The identity was forgotten meanwhile.
    #[error("{identity} is no longer a workload's of this node")]
    Forgotten {
        /// Who.
        identity: Identity,
    },
    /// A key or a request could not be made.
    #[error("cannot make a certificate request for {identity}: {reason}")]
    Request {
        /// For whom.
        identity: Identity,
        /// Why.
        reason: String,
    },
}

/// A private key, PKCS #8. Clones share it; it is erased when the last one is dropped.
#[derive(Clone)]
pub struct PrivateKey(Arc<Zeroizing<Vec<u8>>>);

impl PrivateKey {
    fn new(der: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(der)))
    }

    /// The key, PKCS #8 DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// A copy in the form that TLS takes. The caller answers for erasing it.
    pub fn to_pki(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.to_vec()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The certificate of a workload's identity, with its key.
#[derive(Clone, Debug)]
pub struct WorkloadCertificate {
    /// Whose it is.
    pub identity: Identity,
    /// The certificate, then intermediate ones; no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKey,
    /// The roots that peers' certificates must chain to: all of the mesh, and those that have left it lately.
    pub roots: Vec<CertificateDer<'static>>,
    /// When its validity begins, or that of an intermediate one if that is later.
    pub not_before: SystemTime,
    /// When it, or an intermediate one, ends.
    pub not_after: SystemTime,
}

impl WorkloadCertificate {
    /// Whether its time is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// Whether its time has not begun.
    pub fn is_early(&self, now: SystemTime) -> bool {
        now < self.not_before
    }
}

/// What is known of an identity's certificate.
#[derive(Clone, Debug)]
pub enum State {
    /// Asked for, for the first time.
    Pending,
    /// There. It may have expired, if renewals failed for long.
    Available(Arc<WorkloadCertificate>),
    /// Not there: the last attempt failed. More will follow.
    Unavailable(CertificateError),
}
