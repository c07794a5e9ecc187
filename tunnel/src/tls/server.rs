//! The server's judgement of a client: its chain, then that it belongs to our trust domain.

use std::sync::Arc;

use mesh::Identity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use super::clock::WallClock;
use super::revocation::{Session, Shown, Side};
use super::{ALPN_H2, HandshakeError, Rules, clock, spiffe};

/// Accepts as one identity, demanding clients of its trust domain.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    judge: Arc<MeshMember>,
}

impl Server {
    /// To accept with `key`, demanding clients of `roots` and of `trust_domain`. The tickets of sessions can be read by this
    /// server and its clones alone, so none outlives the key and the roots it was made with.
    pub(super) fn new(
        key: Arc<CertifiedKey>,
        roots: Arc<RootCertStore>,
        trust_domain: &str,
        rules: &Arc<Rules>,
    ) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), rules.crypto())
            .clear_root_hint_subjects()
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let rules = Arc::clone(rules);
        let (crypto, versions) = (rules.crypto(), rules.versions);
        let judge = Arc::new(MeshMember { chain, roots, trust_domain: trust_domain.into(), rules });
        let verifier: Arc<dyn ClientCertVerifier> = Arc::<MeshMember>::clone(&judge);
        let mut config = ServerConfig::builder_with_details(crypto, Arc::new(WallClock))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new()?;
        Ok(Self { config: Arc::new(config), judge })
    }

    /// Whether it is the very same.
    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }

    /// What accepts connections; [`Self::client_of`] says whose a connection is.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Keeps account of a session for as long as what is returned lives, in case the client's certificate is revoked.
    pub(crate) fn session(&self, session: &ServerConnection) -> Option<Arc<Session>> {
        let (leaf, others) = session.peer_certificates().and_then(<[_]>::split_first)?;
        let shown = self.judge.shown(leaf, others, clock::now());
        self.judge.rules.revocations.enter(&shown, &self.judge.roots, None)
    }

    /// Who the client of a finished handshake is.
    ///
    /// # Errors
    /// When it is nobody we accept. A session that was resumed is judged by the certificate the client has shown at first,
    /// as of now.
    pub(crate) fn client_of(&self, session: &ServerConnection) -> Result<Identity, HandshakeError> {
        self.client_at(session, clock::now())
    }

    /// The same, had the handshake been done `now`.
    pub(super) fn client_at(
        &self,
        session: &ServerConnection,
        now: UnixTime,
    ) -> Result<Identity, HandshakeError> {
        let certificates = session.peer_certificates().and_then(<[_]>::split_first);
        let (leaf, others) = certificates.ok_or(HandshakeError::NoCertificate)?;
        // A full handshake has just asked the same.
        if session.handshake_kind() == Some(HandshakeKind::Resumed)
            && let Err(error) = self.judge.verify_client_cert(leaf, others, now)
        {
            return Err((&error).into());
        }
        Ok(spiffe::member(leaf, &self.judge.trust_domain)?)
    }
}

/// Accepts a client whose chain leads to the roots and that has a SPIFFE name of our trust domain.
#[derive(Debug)]
struct MeshMember {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    trust_domain: String,
    rules: Arc<Rules>,
}

impl MeshMember {
    fn shown<'a>(
        &'a self,
        leaf: &'a CertificateDer<'a>,
        others: &'a [CertificateDer<'a>],
        when: UnixTime,
    ) -> Shown<'a> {
        Shown { side: Side::Client, leaf, others, roots: &self.roots, when }
    }
}

impl ClientCertVerifier for MeshMember {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        spiffe::member(end_entity, &self.trust_domain)?;
        if self.rules.revocations.revoke(&self.shown(end_entity, intermediates, now)) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
