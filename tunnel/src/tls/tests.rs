//! A certificate authority for tests, and handshakes that must fail, over an in-memory pipe.

use std::sync::Arc;

use mesh::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

/// A root that signs leaves directly.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl Default for Configs {
    fn default() -> Self {
        Self::with(&TlsOptions::default())
    }
}

impl Configs {
    fn with(options: &TlsOptions) -> Self {
        Self::new(Arc::new(Rules::new(options).unwrap()))
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// An authority in between, and its certificate.
    fn intermediate(&self) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// A list of these certificates, signed by this authority; its time is over if it is old.
    pub(crate) fn revoke(
        &self,
        revoked: &[&CertificateDer<'_>],
        old: bool,
    ) -> CertificateRevocationListDer<'static> {
        let now = date_time_ymd(if old { 2001 } else { 2100 }, 1, 1);
        let revoked = revoked.iter().map(|der| {
            let (_, parsed) = X509Certificate::from_der(der).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(parsed.raw_serial()),
                revocation_time: date_time_ymd(2000, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: now,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
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

/// Handshakes of the two sides with configurations of their own, which may be asked again.
struct Pair {
    client: (Side, Configs),
    server: (Side, Configs),
}

impl Pair {
    fn new(client: Side, server: Side, options: [&TlsOptions; 2]) -> Self {
        let [client_configs, server_configs] = options.map(Configs::with);
        Self { client: (client, client_configs), server: (server, server_configs) }
    }

    fn ends(&self) -> (Client, Server) {
        let (side, configs) = &self.client;
        let accepted: Arc<[String]> = [self.server.0.identity.to_string()].into();
        let client = configs.client(&side.identity, &side.certificate, &accepted).unwrap();
        let (side, configs) = &self.server;
        (client, configs.server(&side.identity, &side.certificate).unwrap())
    }

    /// What either side says.
    async fn outcome(&self) -> [Option<HandshakeError>; 2] {
        let (client, server) = self.ends();
        let (connected, accepted) = meet(&client, &server).await;
        [connected.err(), accepted.err()]
    }
}

fn revocable() -> TlsOptions {
    TlsOptions { revoked: Some(Vec::new()), ..TlsOptions::default() }
}

fn pair(ca: &Ca) -> Pair {
    let side = |account| Side::of(ca, identity("cluster.local", account));
    Pair::new(side("client"), side("server"), [&revocable(), &revocable()])
}

#[tokio::test]
async fn a_revoked_peer_is_refused_by_either_side() {
    let (ca, other) = (Ca::new(), Ca::new());
    let pair = pair(&ca);
    let (client, server) = (&pair.client.0.certificate.chain[0], &pair.server.0.certificate.chain[0]);
    let [client_lists, server_lists] =
        [&pair.client.1, &pair.server.1].map(|configs| &configs.rules.revocations);
    assert!(matches!(pair.outcome().await, [None, None]));
    // Of another key under the same name, of the peer who judges itself, or empty: nothing that concerns anybody.
    let none = [other.revoke(&[client, server], false), ca.revoke(&[], false)];
    client_lists.replace(&[none.clone().to_vec(), vec![ca.revoke(&[client], false)]].concat()).unwrap();
    server_lists.replace(&none).unwrap();
    assert!(matches!(pair.outcome().await, [None, None]));
    // In a session that is resumed the other one is not told why. Either way about, and also by a list whose time is over.
    for old in [false, true] {
        server_lists.replace(&[none[0].clone(), ca.revoke(&[client], old)]).unwrap();
        assert!(matches!(pair.outcome().await, [Some(_), Some(HandshakeError::Revoked)]));
        server_lists.replace(&none).unwrap();
        client_lists.replace(&[none[0].clone(), ca.revoke(&[server], old)]).unwrap();
        assert!(matches!(pair.outcome().await, [Some(HandshakeError::Revoked), _]));
        client_lists.replace(&none).unwrap();
    }
    assert!(matches!(pair.outcome().await, [None, None]));
}

#[tokio::test]
async fn an_intermediate_authority_that_is_revoked_takes_all_along_that_it_signed() {
    let ca = Ca::new();
    let intermediate = ca.intermediate();
    let side = |account| {
        let mut side = Side::of(&intermediate, identity("cluster.local", account));
        let certificate = Arc::get_mut(&mut side.certificate).unwrap();
        certificate.chain.push(intermediate.root.clone());
        certificate.roots = vec![ca.root.clone()];
        side
    };
    let pair = Pair::new(side("client"), side("server"), [&revocable(), &revocable()]);
    assert!(matches!(pair.outcome().await, [None, None]));
    let server_lists = &pair.server.1.rules.revocations;
    server_lists.replace(&[ca.revoke(&[&intermediate.root], false)]).unwrap();
    assert!(matches!(pair.outcome().await, [_, Some(HandshakeError::Revoked)]));
    server_lists.replace(&[intermediate.revoke(&[&pair.client.0.certificate.chain[0]], false)]).unwrap();
    assert!(matches!(pair.outcome().await, [_, Some(HandshakeError::Revoked)]));
}

#[tokio::test]
async fn a_session_is_not_resumed_once_its_peer_is_revoked() {
    let ca = Ca::new();
    let pair = pair(&ca);
    let (client, server) = pair.ends();
    assert!(!resumes(&client, &server).await);
    assert!(resumes(&client, &server).await);
    let lists = [ca.revoke(&[&pair.client.0.certificate.chain[0]], false)];
    pair.server.1.rules.revocations.replace(&lists).unwrap();
    let (_, accepted) = meet(&client, &server).await;
    assert!(matches!(accepted, Err(HandshakeError::Revoked)), "{accepted:?}");
}

#[tokio::test]
async fn a_live_session_hears_of_it_and_others_do_not() {
    let ca = Ca::new();
    let pair = pair(&ca);
    let (client, server) = pair.ends();
    let (connected, accepted) = meet(&client, &server).await;
    let (connected, (_, accepted)) = (connected.unwrap(), accepted.unwrap());
    let servers = client.session(connected.get_ref().1, None).unwrap();
    let clients = server.session(accepted.get_ref().1).unwrap();
    let inner = client.session(connected.get_ref().1, Some(Arc::clone(&clients))).unwrap();
    let lists = &pair.server.1.rules.revocations;
    assert_eq!(lists.replace(&[ca.revoke(&[&pair.server.0.certificate.chain[0]], false)]), Ok(0));
    let revoke = [ca.revoke(&[&pair.client.0.certificate.chain[0]], false)];
    assert_eq!(lists.replace(&revoke), Ok(1));
    clients.revoked().await;
    // What is inside of it ends with it.
    inner.revoked().await;
    assert!(tokio_test::task::spawn(servers.revoked()).poll().is_pending());
    // One that was proven before and is entered after.
    server.session(accepted.get_ref().1).unwrap().revoked().await;
    assert_eq!(lists.replace(&revoke), Ok(0), "once is enough");
}

#[test]
fn a_list_that_cannot_be_read_changes_nothing() {
    let ca = Ca::new();
    let rules = Rules::new(&revocable()).unwrap();
    let bad = CertificateRevocationListDer::from(b"garbage".to_vec());
    let error = rules.revocations.replace(&[ca.revoke(&[], false), bad.clone()]).unwrap_err();
    assert!(error.to_string().starts_with("list 2 of revoked certificates cannot be read: "), "{error}");
    let error = Rules::new(&TlsOptions { revoked: Some(vec![bad]), ..TlsOptions::default() }).unwrap_err();
    assert!(error.to_string().contains("list 1"), "{error}");
}

#[tokio::test]
async fn while_both_roots_are_trusted_either_is_accepted_on_both_sides() {
    let (old, new) = (Ca::new(), Ca::new());
    let side = |signer: &Ca, account| {
        let mut side = Side::of(signer, identity("cluster.local", account));
        let certificate = Arc::get_mut(&mut side.certificate).unwrap();
        certificate.roots = vec![new.root.clone(), old.root.clone()];
        side
    };
    let options = TlsOptions::default();
    for (client, server) in [(&old, &old), (&old, &new), (&new, &old), (&new, &new)] {
        let pair = Pair::new(side(client, "client"), side(server, "server"), [&options, &options]);
        assert!(matches!(pair.outcome().await, [None, None]));
    }
}

#[tokio::test]
async fn keys_are_agreed_on_as_it_was_configured() {
    let ca = Ca::new();
    let (any, strict) = (TlsOptions::default(), TlsOptions { post_quantum: true, ..TlsOptions::default() });
    for (options, expected) in [
        ([&any, &any], NamedGroup::X25519),
        ([&strict, &strict], NamedGroup::X25519MLKEM768),
        ([&strict, &any], NamedGroup::X25519MLKEM768),
        ([&any, &strict], NamedGroup::X25519MLKEM768),
    ] {
        let side = |account| Side::of(&ca, identity("cluster.local", account));
        let (client, server) = Pair::new(side("client"), side("server"), options).ends();
        let (connected, accepted) = meet(&client, &server).await;
        let connected = connected.unwrap();
        assert_eq!(connected.get_ref().1.negotiated_key_exchange_group().unwrap().name(), expected);
        assert_eq!(connected.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        accepted.unwrap();
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_it_is_allowed() {
    let ca = Ca::new();
    let (any, old) = (TlsOptions::default(), TlsOptions { tls12: true, ..TlsOptions::default() });
    let side = |account| Side::of(&ca, identity("cluster.local", account));
    // One end that knows nothing else: of what it may speak, the older one alone.
    static ONLY_OLD: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
    let only_old = || {
        let mut rules = Rules::new(&old).unwrap();
        rules.versions = &ONLY_OLD;
        Configs::new(Arc::new(rules))
    };
    for (other, expected) in [(&any, None), (&old, Some(ProtocolVersion::TLSv1_2))] {
        for old_client in [true, false] {
            let mut pair = Pair::new(side("client"), side("server"), [other, other]);
            *(if old_client { &mut pair.client.1 } else { &mut pair.server.1 }) = only_old();
            let (client, server) = pair.ends();
            for _ in 0..2 {
                let (connected, accepted) = meet(&client, &server).await;
                let version = connected.ok().and_then(|stream| stream.get_ref().1.protocol_version());
                assert_eq!(version, expected);
                assert_eq!(
                    accepted.ok().map(|(client, _)| client),
                    expected.map(|_| pair.client.0.identity.clone())
                );
            }
        }
    }
    // Both know better.
    let (client, server) = Pair::new(side("client"), side("server"), [&old, &old]).ends();
    let version = meet(&client, &server).await.0.unwrap().get_ref().1.protocol_version();
    assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let error = Rules::new(&TlsOptions { post_quantum: true, tls12: true, revoked: None }).unwrap_err();
    assert!(error.to_string().contains("one of the two"), "{error}");
}
