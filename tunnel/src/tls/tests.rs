//! A certificate authority for tests, and handshakes that must fail, over an in-memory pipe.

use std::sync::Arc;

use mesh::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

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
    let connector =
        TlsConnector::from(configs.client(&client.identity, &client.certificate, &accepted).unwrap());
    let acceptor = TlsAcceptor::from(configs.server(&server.identity, &server.certificate).unwrap());
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let (connected, accepted) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let connected = connected.map(|_| ()).map_err(HandshakeError::from);
    let accepted = accepted
        .map_err(HandshakeError::from)
        .and_then(|stream| peer_identity(stream.get_ref().1, server.identity.trust_domain()));
    (connected, accepted)
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
    assert!(Arc::ptr_eq(&first, &configs.server(&name, &certificate).unwrap()));
    let renewed = ca.issue(&name);
    assert!(!Arc::ptr_eq(&first, &configs.server(&name, &renewed).unwrap()));
}
