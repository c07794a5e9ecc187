//! Hands the control room's certificates to the tunnel, which knows nothing of where they come from.
//!
//! The tunnel builds a TLS configuration once for each certificate it is handed, so the same certificate must come as the
//! same object until it is renewed. When the tunnel releases an identity, its key goes from here and from the control room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::certificates::{Authority, Config, Manager, State, WorkloadCertificate};
use mesh::Identity;
use prometheus_client::registry::Registry;
use tunnel::{Certificate, CertificateError, CertificateProvider};

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Certificates of this node's workloads.
pub(crate) struct Certificates {
    manager: Manager,
    handed: Mutex<HashMap<Identity, Handed>>,
}

/// A certificate as the manager has it and as the tunnel was given it.
struct Handed {
    from: Arc<WorkloadCertificate>,
    to: Arc<Certificate>,
}

impl Certificates {
    /// Signed by `authority`, for as long as `ttl` if it agrees; must be called within the control runtime.
    pub(crate) fn new(authority: Arc<dyn Authority>, ttl: Duration, registry: &mut Registry) -> Self {
        let manager = Manager::new(authority, Config { ttl, ..Config::default() });
        manager.register(registry);
        Self { manager, handed: Mutex::default() }
    }

    /// What is known of each identity's certificate, for whoever asks.
    pub(crate) fn states(&self) -> Vec<(Identity, State)> {
        self.manager.states()
    }

    /// Certificates whose renewal is due and has not succeeded.
    pub(crate) fn overdue(&self) -> usize {
        self.manager.overdue()
    }

    fn hand(&self, identity: &Identity, from: Arc<WorkloadCertificate>) -> Arc<Certificate> {
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = handed.get(identity).filter(|known| Arc::ptr_eq(&known.from, &from)) {
            return Arc::clone(&known.to);
        }
        let to = Arc::new(Certificate {
            chain: from.chain.clone(),
            key: from.key.to_pki(),
            roots: from.roots.clone(),
        });
        handed.insert(identity.clone(), Handed { from, to: Arc::clone(&to) });
        to
    }
}

impl CertificateProvider for Certificates {
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Arc<Certificate>, CertificateError>> {
        Box::pin(async move {
            match self.manager.get(identity).await {
                Ok(certificate) => Ok(self.hand(identity, certificate)),
                Err(error) => {
                    Err(CertificateError { identity: identity.clone(), reason: Arc::from(error.to_string()) })
                }
            }
        })
    }

    fn warm(&self, identity: &Identity) {
        self.manager.warm(identity);
    }

    fn release(&self, identity: &Identity) {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
        self.manager.forget(identity);
        tracing::debug!(%identity, "certificate forgotten, no pod uses it any more");
    }
}

#[cfg(test)]
mod tests {
    use control::ca::LocalCa;

    use super::*;

    #[tokio::test]
    async fn a_released_identity_is_forgotten_and_may_come_again() {
        let dir = std::env::temp_dir().join(format!("culvert-certificates-{}", std::process::id()));
        let authority = Arc::new(LocalCa::open_or_create(&dir, "cluster.local").unwrap());
        let certificates = Certificates::new(authority, Duration::from_secs(3600), &mut Registry::default());
        let identity = Identity::new("cluster.local", "default", "a");
        let first = certificates.certificate(&identity).await.unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.certificate(&identity).await.unwrap()));
        certificates.release(&identity);
        assert!(certificates.manager.states().is_empty() && certificates.handed.lock().unwrap().is_empty());
        assert_eq!(Arc::strong_count(&first), 1, "nobody but the test holds the key");
        assert!(!Arc::ptr_eq(&first, &certificates.certificate(&identity).await.unwrap()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
