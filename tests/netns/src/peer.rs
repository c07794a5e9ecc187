//! A peer of the tests' own making that speaks HBONE to a pod: to say what no agent of ours would ever say.
//!
//! It takes any server for what it says it is; what is tested is what the server takes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use http::{Method, Request, StatusCode};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::LIMIT;

/// Who signs a peer's certificate.
pub enum Signer<'a> {
    /// The mesh's own authority, by its directory.
    Mesh(&'a Path),
    /// An authority that nobody knows.
    Stranger,
}

/// A peer with a certificate.
pub struct Peer {
    config: Arc<ClientConfig>,
}

impl Peer {
    /// A peer with this identity, whose certificate ends at `not_after`.
    pub fn new(signer: &Signer<'_>, identity: &str, not_after: SystemTime) -> Result<Self> {
        let (certificate, key) = issue(signer, identity, not_after)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Credulous(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// How it does TLS, for those who want to speak for themselves.
    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Opens a tunnel over a connected stream and asks for `authority` with `method`; the status that comes back.
    ///
    /// In TLS 1.3 the server judges the client's certificate after the client's part of the handshake is over, so a refused
    /// certificate may show itself only in the first answer.
    pub fn ask(&self, stream: std::net::TcpStream, method: &Method, authority: &str) -> Result<StatusCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let uri =
            if *method == Method::CONNECT { authority.to_owned() } else { format!("https://{authority}/") };
        let request = Request::builder().method(method.clone()).uri(uri).body(())?;
        runtime.block_on(async {
            let exchange = async {
                stream.set_nonblocking(true)?;
                let stream = tokio::net::TcpStream::from_std(stream)?;
                let name = ServerName::try_from("peer.invalid")?;
                let tls =
                    tokio_rustls::TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
                let (mut client, connection) = h2::client::handshake(tls).await?;
                let driver = tokio::spawn(connection);
                let (response, _body) = client.send_request(request, false)?;
                let response = tokio::select! {
                    response = response => response.map_err(anyhow::Error::from),
                    ended = driver => Err(match ended? {
                        Ok(()) => anyhow!("the tunnel was closed"),
                        Err(error) => error.into(),
                    }),
                };
                Ok(response?.status())
            };
            tokio::time::timeout(LIMIT, exchange).await.context("the pod's agent does not answer")?
        })
    }
}

/// A certificate with this name, which ends at `not_after`, and its key.
pub(crate) fn issue(
    signer: &Signer<'_>,
    identity: &str,
    not_after: SystemTime,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity)?)];
    params.not_before = (SystemTime::now() - Duration::from_secs(7200)).into();
    params.not_after = not_after.into();
    let certificate = match signer {
        Signer::Mesh(dir) => {
            let root_key = KeyPair::from_pem(&fs::read_to_string(dir.join("root-key.pem"))?)?;
            let root = fs::read_to_string(dir.join("root-cert.pem"))?;
            params.signed_by(&key, &Issuer::from_ca_cert_pem(&root, root_key)?)?
        }
        Signer::Stranger => {
            let mut root = CertificateParams::default();
            root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.signed_by(&key, &Issuer::new(root, KeyPair::generate()?))?
        }
    };
    Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// In an hour.
pub fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// Believes every server.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
