//! A peer of the tests' own making that speaks HBONE to a pod: to say what no agent of ours would ever say.
//!
//! It takes any server for what it says it is; what is tested is what the server takes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use http::{Method, Request, StatusCode};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::runtime::Runtime;

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
    serial: u64,
}

/// What is spoken in a peer's TLS.
pub struct Speech {
    /// Versions of TLS.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Ciphers, and ways of agreeing on keys.
    pub provider: CryptoProvider,
}

impl Default for Speech {
    fn default() -> Self {
        Self { versions: vec![&rustls::version::TLS13], provider: aws_lc_rs::default_provider() }
    }
}

/// A tunnel with one stream that the pod's agent has accepted.
pub struct Tunnel {
    runtime: Runtime,
    body: h2::RecvStream,
    // Dropped, it would end the stream.
    _send: h2::SendStream<bytes::Bytes>,
}

impl Tunnel {
    /// Waits until the agent ends it.
    pub fn wait_until_ended(&mut self) -> Result<()> {
        let body = &mut self.body;
        let ended = async { while let Some(Ok(_)) = body.data().await {} };
        let waited = self.runtime.block_on(async { tokio::time::timeout(LIMIT, ended).await });
        waited.context("the pod's agent keeps the tunnel")
    }
}

impl Peer {
    /// A peer with this identity, whose certificate ends at `not_after`.
    pub fn new(signer: &Signer<'_>, identity: &str, not_after: SystemTime) -> Result<Self> {
        Self::speaking(Speech::default(), signer, identity, not_after)
    }

    /// The same, with ways of its own.
    pub fn speaking(
        Speech { versions, provider }: Speech,
        signer: &Signer<'_>,
        identity: &str,
        not_after: SystemTime,
    ) -> Result<Self> {
        let (certificate, key, serial) = issue(signer, identity, not_after)?;
        let provider = Arc::new(provider);
        let verifier = Arc::new(Credulous(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config), serial })
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
        let runtime = runtime()?;
        let limited = async { tokio::time::timeout(LIMIT, self.exchange(stream, method, authority)).await };
        let (status, ..) = runtime.block_on(limited).context("the pod's agent does not answer")??;
        Ok(status)
    }

    /// Opens a tunnel over a connected stream and a stream to `authority` in it, which must be accepted.
    pub fn open(&self, stream: std::net::TcpStream, authority: &str) -> Result<Tunnel> {
        let runtime = runtime()?;
        let opened = self.exchange(stream, &Method::CONNECT, authority);
        let limited = async { tokio::time::timeout(LIMIT, opened).await };
        let (status, body, send) = runtime.block_on(limited).context("the pod's agent does not answer")??;
        ensure!(status == StatusCode::OK, "{authority}: {status}");
        Ok(Tunnel { runtime, body, _send: send })
    }

    async fn exchange(
        &self,
        stream: std::net::TcpStream,
        method: &Method,
        authority: &str,
    ) -> Result<(StatusCode, h2::RecvStream, h2::SendStream<bytes::Bytes>)> {
        let uri =
            if *method == Method::CONNECT { authority.to_owned() } else { format!("https://{authority}/") };
        let request = Request::builder().method(method.clone()).uri(uri).body(())?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::try_from("peer.invalid")?;
        let tls = tokio_rustls::TlsConnector::from(self.tls()).connect(name, stream).await?;
        let (mut client, connection) = h2::client::handshake(tls).await?;
        let driver = tokio::spawn(connection);
        let (response, send) = client.send_request(request, false)?;
        let response = tokio::select! {
            response = response => response.map_err(anyhow::Error::from),
            ended = driver => Err(match ended? {
                Ok(()) => anyhow!("the tunnel was closed"),
                Err(error) => error.into(),
            }),
        }?;
        Ok((response.status(), response.into_body(), send))
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// A list by which the mesh's authority, in this directory, revokes the certificates of these peers, in PEM.
pub fn revocation_list(authority: &Path, revoked: &[&Peer]) -> Result<String> {
    let key = KeyPair::from_pem(&fs::read_to_string(authority.join("root-key.pem"))?)?;
    let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(authority.join("root-cert.pem"))?, key)?;
    let ago = SystemTime::now() - Duration::from_secs(60);
    let of = |peer: &&Peer| RevokedCertParams {
        serial_number: SerialNumber::from(peer.serial),
        revocation_time: ago.into(),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: ago.into(),
        next_update: in_an_hour().into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(of).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(&issuer)?.pem()?)
}

/// A certificate with this name, which ends at `not_after`, its key, and its serial number.
pub(crate) fn issue(
    signer: &Signer<'_>,
    identity: &str,
    not_after: SystemTime,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>, u64)> {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
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
    Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into(), serial))
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
