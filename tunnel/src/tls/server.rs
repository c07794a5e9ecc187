//! The server's judgement of a client: its chain, then that it belongs to our trust domain.

use std::sync::Arc;

use mesh::Identity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ALPN_H2, HandshakeError, provider, spiffe};

/// The configuration to accept with `key`, demanding clients of `roots` and of `trust_domain`.
pub(super) fn config(
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    trust_domain: &str,
) -> Result<ServerConfig, Error> {
    let chain = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let verifier = MeshMember { chain, trust_domain: trust_domain.into() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.ignore_client_order = true;
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Who the client of a finished handshake is.
pub(crate) fn peer_identity(
    connection: &ServerConnection,
    trust_domain: &str,
) -> Result<Identity, HandshakeError> {
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(HandshakeError::NoCertificate)?;
    Ok(spiffe::member(leaf, trust_domain)?)
}

/// Accepts a client whose chain leads to the roots and that has a SPIFFE name of our trust domain.
#[derive(Debug)]
struct MeshMember {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
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
