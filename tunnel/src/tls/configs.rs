//! One set of TLS configurations an identity, built when its certificate changes and shared until then: one for
//! accepting, and one for each set of names that servers are accepted by. Sessions are remembered within each.
//!
//! Invariant: what is handed out was built from exactly the certificate given, and what was built for an identity, its
//! key with it, goes when the identity is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh::Identity;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use super::{Certificate, Client, HandshakeError, Rules, Server};

/// Sets of names for which an identity keeps a client.
const CLIENTS: usize = 256;

/// The cache; shared by all workers, locked for a look-up only.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(super) rules: Arc<Rules>,
    by_identity: Mutex<HashMap<Identity, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    certificate: Arc<Certificate>,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    rules: Arc<Rules>,
    server: Server,
    clients: Mutex<HashMap<Arc<[String]>, Client>>,
}

impl Configs {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, by_identity: Mutex::default() }
    }

    /// The configuration for accepting HBONE as `identity`.
    pub(crate) fn server(
        &self,
        identity: &Identity,
        certificate: &Arc<Certificate>,
    ) -> Result<Server, HandshakeError> {
        Ok(self.entry(identity, certificate)?.server.clone())
    }

    /// The configuration for dialling as `identity` a server that has one of the `accepted` names.
    pub(crate) fn client(
        &self,
        identity: &Identity,
        certificate: &Arc<Certificate>,
        accepted: &Arc<[String]>,
    ) -> Result<Client, HandshakeError> {
        self.entry(identity, certificate)?.client(accepted)
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
        let entry = Arc::new(Entry::build(identity, certificate, &self.rules)?);
        entries.insert(identity.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Drops what was built for `identity`. Connections that are there keep what they need.
    pub(crate) fn forget(&self, identity: &Identity) {
        self.by_identity.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
    }
}

impl Entry {
    fn build(
        identity: &Identity,
        certificate: &Arc<Certificate>,
        rules: &Arc<Rules>,
    ) -> Result<Self, HandshakeError> {
        // The copy of the key is erased by who reads it; what remains is the library's own form.
        let key = CertifiedKey::from_der(
            certificate.chain.clone(),
            certificate.key.clone_key(),
            rules.crypto().as_ref(),
        )
        .map_err(unusable)?;
        let key = Arc::new(key);
        let mut roots = RootCertStore::empty();
        for root in &certificate.roots {
            roots.add(root.clone()).map_err(unusable)?;
        }
        let roots = Arc::new(roots);
        let server = Server::new(Arc::clone(&key), Arc::clone(&roots), identity.trust_domain(), rules);
        let (certificate, server) = (Arc::clone(certificate), server.map_err(unusable)?);
        Ok(Self { certificate, key, roots, rules: Arc::clone(rules), server, clients: Mutex::default() })
    }

    fn client(&self, accepted: &Arc<[String]>) -> Result<Client, HandshakeError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(accepted) {
            return Ok(client.clone());
        }
        if clients.len() >= CLIENTS {
            // Any will do: what goes is built anew when it is wanted, and shakes hands in full.
            clients.clear();
        }
        let (key, roots) = (Arc::clone(&self.key), Arc::clone(&self.roots));
        let client = Client::new(key, roots, Arc::clone(accepted), &self.rules);
        let client = client.map_err(unusable)?;
        clients.insert(Arc::clone(accepted), client.clone());
        Ok(client)
    }
}

fn unusable(error: rustls::Error) -> HandshakeError {
    HandshakeError::OwnCertificate(error.to_string())
}
