//! The client's judgement of a server: its chain, then its name against the accepted ones.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::clock::WallClock;
use super::revocation::{Session, Shown, Side};
use super::{ALPN_H2, HandshakeError, Rules, clock, spiffe};

/// Servers of which a client remembers sessions; eight each.
const REMEMBERED: usize = 16;

/// Dials as one identity, accepting servers that have one of certain names.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    judge: Arc<AcceptedServer>,
}

impl Client {
    /// To dial with `key`, accepting servers of `roots` named in `accepted`. Sessions are remembered by this client and its
    /// clones alone, so none outlives the key, the roots or the names it was made with.
    pub(super) fn new(
        key: Arc<CertifiedKey>,
        roots: Arc<RootCertStore>,
        accepted: Arc<[String]>,
        rules: &Arc<Rules>,
    ) -> Result<Self, Error> {
        let judge = Arc::new(AcceptedServer { roots, accepted, rules: Arc::clone(rules) });
        let verifier: Arc<dyn ServerCertVerifier> = Arc::<AcceptedServer>::clone(&judge);
        let mut config = ClientConfig::builder_with_details(rules.crypto(), Arc::new(WallClock))
            .with_protocol_versions(rules.versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::in_memory_sessions(REMEMBERED);
        Ok(Self { config: Arc::new(config), judge })
    }

    /// Shakes hands with a server. `name` is what sessions are remembered under; it is not sent.
    ///
    /// # Errors
    /// When the server is not acceptable, or the connection breaks. A session that is resumed is judged by the certificate
    /// the server has shown at first, as of now.
    pub(crate) async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        io: T,
    ) -> Result<TlsStream<T>, HandshakeError> {
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name.clone(), io).await?;
        self.judge(stream.get_ref().1, &name, clock::now())?;
        Ok(stream)
    }

    /// Keeps account of a session for as long as what is returned lives, in case the server's certificate is revoked; `outer`
    /// is the session that it is inside of.
    pub(crate) fn session(
        &self,
        session: &ClientConnection,
        outer: Option<Arc<Session>>,
    ) -> Option<Arc<Session>> {
        let (leaf, others) = session.peer_certificates().and_then(<[_]>::split_first)?;
        let shown = self.judge.shown(leaf, others, clock::now());
        self.judge.rules.revocations.enter(&shown, &self.judge.roots, outer)
    }

    /// Judges a session that was resumed as if its handshake were done `now`; a full one was judged in it.
    pub(super) fn judge(
        &self,
        session: &ClientConnection,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), HandshakeError> {
        if session.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let certificates = session.peer_certificates().and_then(<[_]>::split_first);
        let (leaf, others) = certificates.ok_or(HandshakeError::NoCertificate)?;
        match self.judge.verify_server_cert(leaf, others, name, &[], now) {
            Ok(_) => Ok(()),
            Err(error) => Err((&error).into()),
        }
    }
}

/// Accepts a server whose chain leads to the roots and that has one of the accepted names.
#[derive(Debug)]
struct AcceptedServer {
    roots: Arc<RootCertStore>,
    accepted: Arc<[String]>,
    rules: Arc<Rules>,
}

impl AcceptedServer {
    fn shown<'a>(
        &'a self,
        leaf: &'a CertificateDer<'a>,
        others: &'a [CertificateDer<'a>],
        when: UnixTime,
    ) -> Shown<'a> {
        Shown { side: Side::Server, leaf, others, roots: &self.roots, when }
    }
}

impl ServerCertVerifier for AcceptedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.rules.algorithms();
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms.all)?;
        spiffe::accepts(end_entity, &self.accepted)?;
        if self.rules.revocations.revoke(&self.shown(end_entity, intermediates, now)) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.rules.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.rules.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.algorithms().supported_schemes()
    }
}
