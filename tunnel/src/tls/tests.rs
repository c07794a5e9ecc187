//! A certificate authority for tests, and handshakes that must fail, over an in-memory pipe.

use std::sync::Arc;

use mesh::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::HandshakeKind;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A root that signs leaves directly.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(crate) fn issue(&self, identity: &Identity) -> Arc<Certificate> {
        self.issue_until(identity, 2100)
    }

    fn issue_until(&self, identity: &Identity, year: i32) -> Arc<Certificate> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Arc::new(Certificate {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            roots: vec![self.root.clone()],
        })
    }
}

fn identity(trust_domain: &str, account: &str) -> Identity {
    Identity::new(trust_domain, "default", account)
}

/// The names of these accounts.
fn names(accounts: &[&str]) -> Arc<[String]> {
    accounts.iter().map(|account| identity("cluster.local", account).to_string()).collect()
}

/// One side of a handshake.
struct Side {
    identity: Identity,
    certificate: Arc<Certificate>,
}

impl Side {
    fn of(ca: &Ca, identity: Identity) -> Self {
        Self { certificate: ca.issue(&identity), identity }
    }
}

/// What client and server make of each other when the client expects `accepted`.
async fn shake(
    client: &Side,
    server: &Side,
    accepted: &Identity,
) -> (Result<(), HandshakeError>, Result<Identity, HandshakeError>) {
    let configs = Configs::default();
    let accepted: Arc<[String]> = [accepted.to_string()].into();
    let dialling = configs.client(&client.identity, &client.certificate, &accepted).unwrap();
    let accepting = configs.server(&server.identity, &server.certificate).unwrap();
    let (connected, accepted) = meet(&dialling, &accepting).await;
    (connected.map(|_| ()), accepted.map(|(identity, _)| identity))
}

fn name() -> ServerName<'static> {
    ServerName::from(std::net::Ipv4Addr::LOCALHOST)
}

type Pipe = tokio::io::DuplexStream;

/// A handshake over a pipe, with what the client reads after it.
async fn meet(
    client: &Client,
    server: &Server,
) -> (
    Result<tokio_rustls::client::TlsStream<Pipe>, HandshakeError>,
    Result<(Identity, tokio_rustls::server::TlsStream<Pipe>), HandshakeError>,
) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connecting = async {
        let mut stream = client.connect(name(), near).await?;
        // Tickets come with the first bytes, as does a refusal of our certificate.
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let accepting = async {
        let mut stream = server.acceptor().accept(far).await?;
        let identity = server.client_of(stream.get_ref().1)?;
        stream.write_all(b"x").await?;
        Ok((identity, stream))
    };
    tokio::join!(connecting, accepting)
}

/// Whether a handshake is done, and on both sides as one that resumes a session.
async fn resumes(client: &Client, server: &Server) -> bool {
    let (connected, accepted) = meet(client, server).await;
    let (connected, (_, accepted)) = (connected.unwrap(), accepted.unwrap());
    let kinds = [connected.get_ref().1.handshake_kind(), accepted.get_ref().1.handshake_kind()];
    assert_eq!(kinds[0], kinds[1]);
    kinds == [Some(HandshakeKind::Resumed); 2]
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = Ca::new();
    let client = Side::of(&ca, identity("cluster.local", "client"));
    let server = Side::of(&ca, identity("cluster.local", "server"));
    let (connected, accepted) = shake(&client, &server, &server.identity).await;
    connected.unwrap();
    assert_eq!(accepted.unwrap(), client.identity);
}

#[tokio::test]
async fn a_server_of_another_name_is_not_accepted() {
    let ca = Ca::new();
    let client = Side::of(&ca, identity("cluster.local", "client"));
    let server = Side::of(&ca, identity("cluster.local", "server"));
    let (connected, accepted) = shake(&client, &server, &identity("cluster.local", "other")).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, HandshakeError::WrongIdentity { .. }), "{error}");
    assert!(error.to_string().contains("sa/server, expected spiffe://cluster.local/ns/default/sa/other"));
    assert!(matches!(accepted.unwrap_err(), HandshakeError::Refused(_)));
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused() {
    let ca = Ca::new();
    let client = Side::of(&ca, identity("elsewhere", "client"));
    let server = Side::of(&ca, identity("cluster.local", "server"));
    let (_, accepted) = shake(&client, &server, &server.identity).await;
    let error = accepted.unwrap_err();
    assert!(matches!(error, HandshakeError::WrongTrustDomain { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_such_on_either_side() {
    let ca = Ca::new();
    let good = Side::of(&ca, identity("cluster.local", "good"));
    let name = identity("cluster.local", "late");
    let late = Side { certificate: ca.issue_until(&name, 2001), identity: name };
    let (connected, _) = shake(&good, &late, &late.identity).await;
    assert!(matches!(connected.unwrap_err(), HandshakeError::Expired));
    let (_, accepted) = shake(&late, &good, &good.identity).await;
    assert!(matches!(accepted.unwrap_err(), HandshakeError::Expired));
}

#[tokio::test]
async fn another_authority_is_unknown() {
    let client = Side::of(&Ca::new(), identity("cluster.local", "client"));
    let server = Side::of(&Ca::new(), identity("cluster.local", "server"));
    let (connected, _) = shake(&client, &server, &server.identity).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, HandshakeError::UnknownIssuer | HandshakeError::Protocol(_)), "{error}");
}

#[test]
fn configurations_are_shared_until_the_certificate_changes() {
    let ca = Ca::new();
    let name = identity("cluster.local", "server");
    let (configs, certificate) = (Configs::default(), ca.issue(&name));
    let first = configs.server(&name, &certificate).unwrap();
    assert!(first.is_same(&configs.server(&name, &certificate).unwrap()));
    let renewed = ca.issue(&name);
    assert!(!first.is_same(&configs.server(&name, &renewed).unwrap()));
}

#[tokio::test]
async fn a_second_dial_resumes_the_session_and_the_server_knows_its_client() {
    let ca = Ca::new();
    let configs = Configs::default();
    let client = Side::of(&ca, identity("cluster.local", "client"));
    let server = Side::of(&ca, identity("cluster.local", "server"));
    for resumed in [false, true, true] {
        let dialling = configs.client(&client.identity, &client.certificate, &names(&["server"])).unwrap();
        let accepting = configs.server(&server.identity, &server.certificate).unwrap();
        assert_eq!(resumes(&dialling, &accepting).await, resumed);
        let (_, accepted) = meet(&dialling, &accepting).await;
        assert_eq!(accepted.unwrap().0, client.identity);
    }
}

#[tokio::test]
async fn a_session_is_nobody_elses() {
    let ca = Ca::new();
    let configs = Configs::default();
    let client = Side::of(&ca, identity("cluster.local", "client"));
    let other = Side::of(&ca, identity("cluster.local", "other"));
    let server = Side::of(&ca, identity("cluster.local", "server"));
    let dialling = |side: &Side, accepted: &[&str]| {
        configs.client(&side.identity, &side.certificate, &names(accepted)).unwrap()
    };
    let accepting = configs.server(&server.identity, &server.certificate).unwrap();
    assert!(!resumes(&dialling(&client, &["server"]), &accepting).await);
    // Other names to be accepted, even if the server's is among them; another client.
    assert!(!resumes(&dialling(&client, &["server", "successor"]), &accepting).await);
    let refused = meet(&dialling(&client, &["successor"]), &accepting).await.0;
    assert!(matches!(refused, Err(HandshakeError::WrongIdentity { .. })), "{refused:?}");
    assert!(!resumes(&dialling(&other, &["server"]), &accepting).await);
    assert!(resumes(&dialling(&client, &["server"]), &accepting).await);
    // A certificate that was renewed, on either side.
    let renewed = Side::of(&ca, server.identity);
    let accepting = configs.server(&renewed.identity, &renewed.certificate).unwrap();
    assert!(!resumes(&dialling(&client, &["server"]), &accepting).await);
    assert!(resumes(&dialling(&client, &["server"]), &accepting).await);
    let renewed = Side::of(&ca, client.identity);
    assert!(!resumes(&dialling(&renewed, &["server"]), &accepting).await);
}

#[tokio::test]
async fn a_root_that_is_not_trusted_any_more_ends_its_sessions() {
    let (ca, successor) = (Ca::new(), Ca::new());
    let configs = Configs::default();
    let trusting = |signer: &Ca, account: &str, roots: &[&Ca]| {
        let mut side = Side::of(signer, identity("cluster.local", account));
        let certificate = Arc::get_mut(&mut side.certificate).unwrap();
        certificate.roots = roots.iter().map(|ca| ca.root.clone()).collect();
        side
    };
    let client = trusting(&ca, "client", &[&ca, &successor]);
    let server = trusting(&successor, "server", &[&ca, &successor]);
    let dialling = configs.client(&client.identity, &client.certificate, &names(&["server"])).unwrap();
    let accepting = configs.server(&server.identity, &server.certificate).unwrap();
    assert!(!resumes(&dialling, &accepting).await);
    let server = trusting(&successor, "server", &[&successor]);
    let accepting = configs.server(&server.identity, &server.certificate).unwrap();
    let (_, accepted) = meet(&dialling, &accepting).await;
    assert!(accepted.is_err(), "a session outlived the trust it was made upon");
}

#[tokio::test]
async fn a_session_ends_with_the_certificate_it_was_made_with() {
    let ca = Ca::new();
    let configs = Configs::default();
    let client = Side::of(&ca, identity("cluster.local", "client"));
    let server = Side::of(&ca, identity("cluster.local", "server"));
    let dialling = configs.client(&client.identity, &client.certificate, &names(&["server"])).unwrap();
    let accepting = configs.server(&server.identity, &server.certificate).unwrap();
    assert!(!resumes(&dialling, &accepting).await);
    let (connected, accepted) = meet(&dialling, &accepting).await;
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap().1);
    let day = 24 * 3600;
    let (before, after) = (47_450 * day, 47_500 * day);
    for (seconds, ended) in [(before, false), (after, true)] {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let judged = dialling.judge(connected.get_ref().1, &name(), now);
        assert_eq!(matches!(judged, Err(HandshakeError::Expired)), ended, "{judged:?}");
        let judged = accepting.client_at(accepted.get_ref().1, now);
        assert_eq!(matches!(judged, Err(HandshakeError::Expired)), ended, "{judged:?}");
    }
}
