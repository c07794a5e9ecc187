//! What the tunnel needs of a workload certificate, and of whoever gets one.
//!
//! Plain DER, so that the crate that talks to the authority and this one share no types but these. A
//! certificate is immutable: renewal makes a new one, and a new `Arc` is what makes the TLS configurations
//! be built anew.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use mesh::Identity;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroize;

/// The certificate of one identity, with its key and the roots its peers are judged by.
#[derive(Debug)]
pub struct Certificate {
    /// Leaf first, then the intermediates; no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key (PKCS#8, SEC1 or PKCS#1).
    pub key: PrivateKeyDer<'static>,
    /// Every root of trust of the mesh.
    pub roots: Vec<CertificateDer<'static>>,
}

/// The key is erased with the last owner of the certificate. TLS keeps it in a form of its own (aws-lc's), which is erased
/// when the configurations that were built of it and the last connection that shakes hands with them are gone.
impl Drop for Certificate {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Why there is no certificate for an identity.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no certificate for {identity}: {reason}")]
pub struct CertificateError {
    /// The identity that was asked for.
    pub identity: Identity,
    /// The authority's or the manager's words.
    pub reason: Arc<str>,
}

/// Where certificates come from: the certificate manager, or a fixed set in tests.
///
/// Called once for every handshake, so an implementation answers from memory whenever it can.
pub trait CertificateProvider: Send + Sync {
    /// The current certificate of `identity`, fetched if need be.
    ///
    /// # Errors
    /// When the authority refuses or cannot be reached and no valid certificate is at hand.
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Arc<Certificate>, CertificateError>>;

    /// A pod of `identity` has come, which will need a certificate before long. Must not block.
    fn warm(&self, identity: &Identity);

    /// No pod of this node uses `identity` any more: its key may be forgotten. Must not block; until it returns nobody
    /// begins to use the identity anew.
    fn release(&self, identity: &Identity);
}
