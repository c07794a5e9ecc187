//! One set of TLS configurations an identity, built when its certificate changes and shared until then.
//!
//! Invariant: what is handed out was built from exactly the certificate given, and what was built for an identity, its
//! key with it, goes when the identity is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh::Identity;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Certificate, HandshakeError, client, provider, server};

/// The cache; shared by all workers, locked for a look-up only.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    by_identity: Mutex<HashMap<Identity, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    certificate: Arc<Certificate>,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
}

impl Configs {
    /// The configuration for accepting HBONE as `identity`.
    pub(crate) fn server(
        &self,
        identity: &Identity,
        certificate: &Arc<Certificate>,
    ) -> Result<Arc<ServerConfig>, HandshakeError> {
        Ok(Arc::clone(&self.entry(identity, certificate)?.server))
    }

    /// The configuration for dialling as `identity` a server that has one of the `accepted` names.
    pub(crate) fn client(
        &self,
        identity: &Identity,
        certificate: &Arc<Certificate>,
        accepted: &Arc<[String]>,
    ) -> Result<Arc<ClientConfig>, HandshakeError> {
        let entry = self.entry(identity, certificate)?;
        client::config(Arc::clone(&entry.key), Arc::clone(&entry.roots), Arc::clone(accepted))
            .map(Arc::new)
            .map_err(unusable)
    }

    fn entry(
        &self,
        identity: &Identity,
        certificate: &Arc<Certificate>,
    ) -> Result<Arc<Entry>, HandshakeError> {
        let mut entries = self.by_identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(identity)
            && Arc::ptr_eq(&entry.certificate, certificate)
        {
            return Ok(Arc::clone(entry));
        }
        let entry = Arc::new(Entry::build(identity, certificate)?);
        entries.insert(identity.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Drops what was built for `identity`. Connections that are there keep what they need.
    pub(crate) fn forget(&self, identity: &Identity) {
        self.by_identity.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
    }
}

impl Entry {
    fn build(identity: &Identity, certificate: &Arc<Certificate>) -> Result<Self, HandshakeError> {
        let key = CertifiedKey::from_der(
            certificate.chain.clone(),
            certificate.key.clone_key(),
            provider().as_ref(),
        )
        .map_err(unusable)?;
        let key = Arc::new(key);
        let mut roots = RootCertStore::empty();
        for root in &certificate.roots {
            roots.add(root.clone()).map_err(unusable)?;
        }
        let roots = Arc::new(roots);
        let server = server::config(Arc::clone(&key), Arc::clone(&roots), identity.trust_domain())
            .map_err(unusable)?;
        Ok(Self { certificate: Arc::clone(certificate), key, roots, server: Arc::new(server) })
    }
}

fn unusable(error: rustls::Error) -> HandshakeError {
    HandshakeError::OwnCertificate(error.to_string())
}
