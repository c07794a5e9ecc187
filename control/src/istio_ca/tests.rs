//! Against a server that speaks HTTP/2 and frames of gRPC and knows nothing of ours; and what a real authority was asked
//! and answered, recorded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde_json::Value;
use tokio::net::TcpListener;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use super::*;
use crate::ca::LocalCa;
use crate::certificates::{Config, Manager, answer};
use crate::grpc::Headers;
use crate::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};

type Reply = Result<IstioCertificateResponse, (u8, &'static str)>;
type Handler = Arc<dyn Fn(&http::HeaderMap, IstioCertificateRequest) -> Option<Reply> + Send + Sync>;

/// Answers calls in plaintext; none at all, by breaking the connection, where the handler has nothing to say.
async fn serve(handler: Handler) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::default());
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer_all(io, Arc::clone(&handler)));
        }
    });
    (address, connections)
}

async fn answer_all(io: tokio::net::TcpStream, handler: Handler) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.uri.path(), "/istio.v1.auth.IstioCertificateService/CreateCertificate");
        let mut message = Vec::new();
        let receiving = async {
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
        };
        tokio::select! {
            () = receiving => {}
            _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => return,
        }
        let request = IstioCertificateRequest::decode(message.get(5..).unwrap()).unwrap();
        let Some(reply) = handler(&head.headers, request) else { return };
        let response = http::Response::builder().header("content-type", "application/grpc");
        match reply {
            Ok(answer) => {
                let answer = answer.encode_to_vec();
                let length = u32::try_from(answer.len()).unwrap();
                let frame = [&[0], &length.to_be_bytes()[..], &answer].concat();
                let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
                send.send_data(Bytes::from(frame), false).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                send.send_trailers(trailers).unwrap();
            }
            Err((code, words)) => {
                let response = response.header("grpc-status", code.to_string()).header("grpc-message", words);
                respond.send_response(response.body(()).unwrap(), true).unwrap();
            }
        }
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let mut headers = Headers::default();
    headers.add("X-Tenant", "blue").unwrap();
    Endpoint {
        address: format!("http://{address}").parse().unwrap(),
        roots: RootsOfTrust::System,
        server_name: None,
        token: Some("head.body.signature".parse().unwrap()),
        headers,
        cluster_id: "Kubernetes".parse().ok(),
    }
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "default", account)
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

/// Signs whatever it is asked for.
fn signing(ca: LocalCa) -> impl Fn(&IstioCertificateRequest) -> IstioCertificateResponse {
    move |request| {
        let csr = CertificateSigningRequestDer::from_pem_slice(request.csr.as_bytes()).unwrap();
        let fields = &request.metadata.as_ref().unwrap().fields;
        let Some(prost_types::value::Kind::StringValue(name)) = &fields["ImpersonatedIdentity"].kind else {
            panic!("{fields:?}");
        };
        let ttl = Duration::from_secs(u64::try_from(request.validity_duration).unwrap());
        let issued = ca.sign_request(&name.parse().unwrap(), &csr, ttl).unwrap();
        IstioCertificateResponse { cert_chain: vec![pem(&issued.chain[0]), pem(&issued.roots[0])] }
    }
}

fn local_ca() -> LocalCa {
    let dir = tempfile::tempdir().unwrap();
    LocalCa::open_or_create(dir.path(), "cluster.local").unwrap()
}

#[tokio::test]
async fn certificates_come_over_one_connection_and_each_call_says_who_we_are() {
    let sign = signing(local_ca());
    let (address, connections) = serve(Arc::new(move |headers, request| {
        assert_eq!(headers["authorization"], "Bearer head.body.signature");
        assert_eq!(
            (&headers["clusterid"], &headers["x-tenant"]),
            (&"Kubernetes".parse().unwrap(), &"blue".parse().unwrap())
        );
        assert_eq!(request.validity_duration, 3600);
        Some(Ok(sign(&request)))
    }))
    .await;
    let config = Config { ttl: Duration::from_secs(3600), ..Config::default() };
    let manager = Manager::new(Arc::new(IstioCa::new(endpoint(address))), config);
    for account in ["a", "b", "c"] {
        let certificate = manager.get(&identity(account)).await.unwrap();
        assert_eq!((certificate.chain.len(), certificate.roots.len()), (1, 1));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_token_is_read_anew_for_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("istio-token");
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let (address, _) = serve(Arc::new(move |headers, _| {
        record.lock().unwrap().push(headers["authorization"].to_str().unwrap().to_owned());
        Some(Err((16, "request authenticate failure")))
    }))
    .await;
    let mut endpoint = endpoint(address);
    endpoint.token = Some(path.to_str().unwrap().parse().unwrap());
    let ca = IstioCa::new(endpoint);
    let ttl = Duration::from_secs(60);
    let error = ca.sign(&identity("a"), b"", ttl).await.unwrap_err();
    assert!(
        matches!(&error, AuthorityError::Unreachable { reason } if reason.contains("istio-token")),
        "{error}"
    );
    for token in ["first", "second"] {
        std::fs::write(&path, token).unwrap();
        let error = ca.sign(&identity("a"), b"", ttl).await.unwrap_err().to_string();
        assert!(error.contains("request authenticate failure") && error.contains("audience"), "{error}");
        assert!(!error.contains(token), "{error}");
    }
    assert_eq!(*seen.lock().unwrap(), ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn a_broken_connection_is_replaced_and_a_refusal_is_not_one() {
    let calls = Arc::new(AtomicUsize::default());
    let count = Arc::clone(&calls);
    let sign = signing(local_ca());
    let (address, connections) =
        serve(Arc::new(move |_, request| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Some(Err((16, "request impersonation authentication failure"))),
            1 => Some(Err((7, "no"))),
            2 => None,
            _ => Some(Ok(sign(&request))),
        }))
        .await;
    let ca = IstioCa::new(endpoint(address));
    let (ttl, csr) = (Duration::from_secs(60), csr(&recorded()[0]));
    for (reached, connected) in [(true, 1), (true, 1), (false, 1)] {
        let error = ca.sign(&identity("a"), &csr, ttl).await.unwrap_err();
        assert_eq!(matches!(error, AuthorityError::Refused { .. }), reached, "{error}");
        assert_eq!(connections.load(Ordering::SeqCst), connected);
    }
    ca.sign(&identity("a"), &csr, ttl).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    // Nobody there at all.
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = IstioCa::new(endpoint(unused)).sign(&identity("a"), &csr, ttl).await.unwrap_err();
    assert!(
        matches!(&error, AuthorityError::Unreachable { reason } if reason.contains(&unused.to_string())),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_of_roots_that_is_replaced_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root-cert.pem");
    std::fs::write(&path, pem(local_ca().root())).unwrap();
    let mut endpoint = endpoint(([127, 0, 0, 1], 1).into());
    endpoint.address = "127.0.0.1:1".parse().unwrap();
    endpoint.roots = RootsOfTrust::File(path.clone());
    let ca = Arc::new(IstioCa::new(endpoint));
    let following = tokio::spawn({
        let ca = Arc::clone(&ca);
        async move { ca.changed().await }
    });
    std::fs::write(&path, pem(local_ca().root())).unwrap();
    timeout(Duration::from_secs(60), following).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_says_what_is_wrong() {
    let certificate = pem(local_ca().root());
    let entries = |entries: &[&str]| IstioCertificateResponse {
        cert_chain: entries.iter().map(|entry| (*entry).to_owned()).collect(),
    };
    for (answer, expected) in [
        (entries(&[]), "it has 0 entries"),
        (entries(&[&certificate]), "it has 1 entries"),
        (entries(&["garbage", &certificate]), "entry 1 holds no certificate"),
        (entries(&[&certificate, ""]), "entry 2 holds no certificate"),
        (entries(&[&certificate, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]), "entry 2"),
    ] {
        let error = decode(&answer).unwrap_err();
        assert!(matches!(&error, AuthorityError::Garbled { reason } if reason.contains(expected)), "{error}");
    }
}

fn recorded() -> Vec<Value> {
    let calls = |name| recordings::lines::<Value>(name).unwrap();
    [calls("istiod/certificates.jsonl"), calls("istiod/plugged_in_ca.jsonl")].concat()
}

fn text<'a>(recorded: &'a Value, key: &str) -> &'a str {
    recorded[key].as_str().unwrap()
}

/// What was asked.
fn asked(recorded: &Value) -> (Vec<u8>, IstioCertificateRequest) {
    let raw = STANDARD.decode(text(recorded, "request_raw")).unwrap();
    let message = IstioCertificateRequest::decode(&raw[..]).unwrap();
    (raw, message)
}

fn csr(recorded: &Value) -> Vec<u8> {
    let (_, message) = asked(recorded);
    CertificateSigningRequestDer::from_pem_slice(message.csr.as_bytes()).unwrap().to_vec()
}

#[test]
fn our_request_is_what_the_real_one_was_asked() {
    let mut count = 0;
    for recorded in recorded().iter().filter(|recorded| recorded["about"] != "a broken request") {
        let identity = text(recorded, "identity").parse().unwrap();
        let ttl = Duration::from_secs(recorded["validity_duration"].as_u64().unwrap());
        let ours = message::request(&identity, &csr(recorded), ttl);
        assert_eq!(ours.encode_to_vec(), asked(recorded).0, "{}", recorded["about"]);
        count += 1;
    }
    assert_eq!(count, 12);
}

/// The chain's certificates, the roots, and for how long all of it is valid, in minutes; an intermediate one was made two
/// minutes after what it signed claims to begin.
type Facts = (usize, usize, u64);

#[test]
fn what_the_real_one_has_signed_passes_and_is_what_it_is() {
    let expected: [(&str, Facts); 6] = [
        ("a workload on the caller's own node", (1, 1, 1442)),
        ("the same, one hour", (1, 1, 62)),
        ("zero validity", (1, 1, 1442)),
        ("another trust domain", (1, 1, 1442)),
        ("intermediate under root 1, both roots in the bundle", (2, 2, 1440)),
        (
            "the files were replaced under the running istiod: intermediate under root 2, both roots in the bundle",
            (2, 2, 1440),
        ),
    ];
    let signed: Vec<Value> = recorded().into_iter().filter(|one| one.get("cert_chain").is_some()).collect();
    assert_eq!(signed.len(), expected.len());
    for (recorded, (about, facts)) in signed.iter().zip(expected) {
        assert_eq!(text(recorded, "about"), about);
        let chain = recorded["cert_chain"].as_array().unwrap();
        let cert_chain = chain.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect();
        let issued = decode(&IstioCertificateResponse { cert_chain }).unwrap();
        let request = csr(recorded);
        let (_, request) = X509CertificationRequest::from_der(&request).unwrap();
        let key = request.certification_request_info.subject_pki.raw;
        let asked_for: Identity = text(recorded, "identity").parse().unwrap();
        let now = in_its_time(&issued.chain[0]);
        let checked = answer::check(&asked_for, key, issued.clone(), now).unwrap();
        let minutes = checked.not_after.duration_since(checked.not_before).unwrap().as_secs() / 60;
        assert_eq!((checked.chain.len(), checked.roots.len(), minutes), facts, "{about}");
        // For anybody else, by any other key or at another time it does not pass.
        let other = identity("other");
        let fault = |identity: &Identity, key: &[u8], now| {
            answer::check(identity, key, issued.clone(), now).unwrap_err()
        };
        assert!(matches!(fault(&other, key, now), answer::Fault::OtherIdentity { .. }));
        assert_eq!(fault(&asked_for, b"another", now), answer::Fault::OtherKey);
        assert!(matches!(fault(&asked_for, key, checked.not_after), answer::Fault::Expired { .. }));
        // It may come a little early, where clocks differ.
        let early = checked.not_before - Duration::from_secs(300);
        assert!(answer::check(&asked_for, key, issued.clone(), early).is_ok());
    }
}

/// It signs whatever trust domain is asked for, so whoever asks has to compare.
#[test]
fn a_certificate_of_another_trust_domain_is_refused() {
    let recorded = recorded().into_iter().find(|one| one["about"] == "another trust domain").unwrap();
    let chain = recorded["cert_chain"].as_array().unwrap();
    let cert_chain = chain.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect();
    let issued = decode(&IstioCertificateResponse { cert_chain }).unwrap();
    let request = csr(&recorded);
    let (_, request) = X509CertificationRequest::from_der(&request).unwrap();
    let key = request.certification_request_info.subject_pki.raw;
    let now = in_its_time(&issued.chain[0]);
    let ours = Identity::new("cluster.local", "bookinfo", "sleep");
    let presented = "spiffe://other.example/ns/bookinfo/sa/sleep".to_owned();
    assert_eq!(
        answer::check(&ours, key, issued, now).unwrap_err(),
        answer::Fault::OtherIdentity { presented }
    );
}

fn in_its_time(certificate: &CertificateDer<'_>) -> SystemTime {
    let (_, leaf) = X509Certificate::from_der(certificate).unwrap();
    let begin = u64::try_from(leaf.validity().not_before.timestamp()).unwrap();
    UNIX_EPOCH + Duration::from_secs(begin + 150)
}

#[tokio::test]
async fn what_the_real_one_refused_is_a_refusal_with_its_words_and_what_to_check() {
    let refused: Vec<Value> = recorded().into_iter().filter(|one| one.get("error").is_some()).collect();
    assert_eq!(refused.len(), 7);
    for recorded in refused {
        let (code, words) = (text(&recorded["error"], "code"), text(&recorded["error"], "message"));
        let (code, hint) = match (code, words.contains("impersonation")) {
            ("INVALID_ARGUMENT", _) => (Code::InvalidArgument, "SECRET_TTL"),
            (_, true) => (Code::Unauthenticated, "CA_TRUSTED_NODE_ACCOUNTS"),
            (_, false) => (Code::Unauthenticated, "audience"),
        };
        let identity = text(&recorded, "identity").parse().unwrap();
        let error = failure(&identity, &Status::new(code, words));
        assert!(matches!(error, AuthorityError::Refused { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(words) && error.contains(hint) && error.contains("spiffe://"), "{error}");
    }
}
