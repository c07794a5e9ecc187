//! Which identities the pods of this node use, and how their certificates come to be used.
//!
//! Invariant: an identity is asked for only by a pod that is counted as its user, and is forgotten, with its key, as soon
//! as the last user is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::Identity;
use tokio::time::timeout;

use crate::hbone::ConnectError;
use crate::tls::{Certificate, CertificateError, CertificateProvider, Client, Configs, Rules, Server};

/// All identities of the node that are in use.
pub(crate) struct Identities {
    provider: Arc<dyn CertificateProvider>,
    configs: Configs,
    /// How long a certificate may be waited for.
    limit: Duration,
    /// How many pods use each.
    users: Mutex<HashMap<Identity, usize>>,
}

impl Identities {
    pub(crate) fn new(provider: Arc<dyn CertificateProvider>, limit: Duration, rules: Arc<Rules>) -> Self {
        Self { provider, configs: Configs::new(rules), limit, users: Mutex::default() }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Identity, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pod's use of identities: its own, and those it had before its workload changed.
pub(crate) struct User {
    identities: Arc<Identities>,
    used: Mutex<Vec<Identity>>,
}

impl User {
    pub(crate) fn new(identities: Arc<Identities>) -> Self {
        Self { identities, used: Mutex::default() }
    }

    /// Has a certificate of `identity` fetched, so that the first connection need not wait for it.
    pub(crate) fn warm(&self, identity: &Identity) {
        self.count(identity);
        self.identities.provider.warm(identity);
    }

    /// How to accept tunnels as `identity`.
    pub(crate) async fn server(&self, identity: &Identity) -> Result<Server, ConnectError> {
        let certificate = self.certificate(identity).await?;
        Ok(self.identities.configs.server(identity, &certificate)?)
    }

    /// How to dial, as `identity`, a server that has one of the `accepted` names.
    pub(crate) async fn client(
        &self,
        identity: &Identity,
        accepted: &Arc<[String]>,
    ) -> Result<Client, ConnectError> {
        let certificate = self.certificate(identity).await?;
        Ok(self.identities.configs.client(identity, &certificate, accepted)?)
    }

    /// Waits until there is a certificate to dial with as `identity`.
    pub(crate) async fn ready(&self, identity: &Identity) -> Result<(), ConnectError> {
        self.certificate(identity).await.map(drop)
    }

    async fn certificate(&self, identity: &Identity) -> Result<Arc<Certificate>, ConnectError> {
        self.count(identity);
        let limit = self.identities.limit;
        let issued = timeout(limit, self.identities.provider.certificate(identity)).await;
        let late = |_| CertificateError {
            identity: identity.clone(),
            reason: format!("it was not issued within {limit:?}").into(),
        };
        Ok(issued.map_err(late)??)
    }

    fn count(&self, identity: &Identity) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains(identity) {
            *self.identities.users().entry(identity.clone()).or_default() += 1;
            used.push(identity.clone());
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        // Held throughout, so that nobody begins to use what is being forgotten.
        let mut users = self.identities.users();
        for identity in used {
            let Some(count) = users.get_mut(&identity) else { continue };
            *count -= 1;
            if *count == 0 {
                users.remove(&identity);
                self.identities.configs.forget(&identity);
                self.identities.provider.release(&identity);
            }
        }
    }
}
