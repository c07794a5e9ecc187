//! Against a server that speaks TLS and HTTP/2 and knows nothing of ours.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::proto::ca::IstioCertificateRequest;
use crate::proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;

/// An authority, and a server with a certificate of it.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        Self { pem: root.pem(), issuer: Issuer::from_ca_cert_der(root.der(), key).unwrap() }
    }

    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols.push(b"h2".to_vec());
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The headers of every request that came.
type Seen = Arc<Mutex<Vec<http::HeaderMap>>>;

/// Answers every request with `grpc-status: 16`. In plaintext without an acceptor.
async fn serve(tls: Option<TlsAcceptor>) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let (tls, record) = (tls.clone(), Arc::clone(&record));
            tokio::spawn(async move {
                match tls {
                    None => refuse_all(io, record).await,
                    Some(tls) => {
                        if let Ok(io) = tls.accept(io).await {
                            refuse_all(io, record).await;
                        }
                    }
                }
            });
        }
    });
    (address, seen)
}

async fn refuse_all(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        seen.lock().unwrap().push(request.headers().clone());
        let refusal = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "16")
            .header("grpc-message", "authentication failure")
            .body(())
            .unwrap();
        let _ = respond.send_response(refusal, true);
    }
}

fn endpoint(address: &str, roots: RootsOfTrust) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        roots,
        server_name: None,
        token: Some("head.body.signature".parse().unwrap()),
        headers: Headers::default(),
        cluster_id: "Kubernetes".parse().ok(),
    }
}

/// Connects and calls once.
async fn call(endpoint: &Endpoint) -> Result<tonic::Status, ConnectError> {
    let channel = endpoint.connect().await?;
    let request = endpoint.request(IstioCertificateRequest::default()).await.unwrap();
    Ok(IstioCertificateServiceClient::new(channel).create_certificate(request).await.unwrap_err())
}

#[tokio::test]
async fn a_call_says_who_we_are() {
    let authority = Authority::new();
    let (address, seen) = serve(Some(authority.acceptor("127.0.0.1"))).await;
    let mut endpoint = endpoint(&address.to_string(), authority.pem.parse().unwrap());
    endpoint.headers.add("X-Tenant", "blue").unwrap();
    let refusal = call(&endpoint).await.unwrap();
    assert_eq!(
        status(&refusal),
        "Unauthenticated: authentication failure; check the token, its audience, its account, and the name of the cluster"
    );
    let seen = seen.lock().unwrap();
    let header = |name: &str| seen[0].get(name).unwrap().to_str().unwrap();
    assert_eq!(header("authorization"), "Bearer head.body.signature");
    assert_eq!((header("clusterid"), header("x-tenant")), ("Kubernetes", "blue"));
}

#[tokio::test]
async fn the_certificate_must_be_of_a_root_and_of_the_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (address, seen) = serve(Some(authority.acceptor("istiod.istio-system.svc"))).await;
    let address = address.to_string();
    let trusted: RootsOfTrust = authority.pem.parse().unwrap();
    let by_address = endpoint(&address, trusted.clone());
    let error = call(&by_address).await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("not valid for name"), "{error}");
    let by_name = |name: &str, roots: &RootsOfTrust| Endpoint {
        server_name: Some(name.parse().unwrap()),
        ..endpoint(&address, roots.clone())
    };
    assert!(call(&by_name("other.example", &trusted)).await.is_err());
    let error = call(&by_name("istiod.istio-system.svc", &stranger.pem.parse().unwrap())).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    assert!(call(&by_name("istiod.istio-system.svc", &RootsOfTrust::System)).await.is_err());
    assert!(seen.lock().unwrap().is_empty(), "nothing was said to whom we do not trust");
    assert!(call(&by_name("istiod.istio-system.svc", &trusted)).await.is_ok());
}

/// As a ConfigMap is mounted: the file is a link into a directory that is a link itself, and that one is replaced.
fn mount(dir: &Path, version: &str, pem: &str) {
    std::fs::create_dir(dir.join(version)).unwrap();
    std::fs::write(dir.join(version).join("root-cert.pem"), pem).unwrap();
    std::os::unix::fs::symlink(version, dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
}

#[tokio::test]
async fn roots_are_read_for_every_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let (address, _) = serve(Some(new.acceptor("127.0.0.1"))).await;
    let dir = tempfile::tempdir().unwrap();
    mount(dir.path(), "..v1", &old.pem);
    let path = dir.path().join("root-cert.pem");
    std::os::unix::fs::symlink("..data/root-cert.pem", &path).unwrap();
    let endpoint = endpoint(&address.to_string(), RootsOfTrust::File(path));
    assert!(call(&endpoint).await.is_err());
    mount(dir.path(), "..v2", &new.pem);
    assert!(call(&endpoint).await.is_ok());
    mount(dir.path(), "..v3", &format!("{}{}", old.pem, new.pem));
    assert!(call(&endpoint).await.is_ok(), "one of several");
}

#[tokio::test]
async fn plaintext_only_where_it_is_written() {
    let (address, seen) = serve(None).await;
    assert!(call(&endpoint(&address.to_string(), RootsOfTrust::System)).await.is_err());
    assert!(call(&endpoint(&format!("https://{address}"), RootsOfTrust::System)).await.is_err());
    assert!(seen.lock().unwrap().is_empty());
    assert!(call(&endpoint(&format!("http://{address}"), RootsOfTrust::System)).await.is_ok());
}

#[tokio::test]
async fn what_does_not_answer_is_named() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap().to_string();
    let silent = endpoint(&address, RootsOfTrust::System);
    tokio::time::pause();
    let error = silent.connect().await.unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
    tokio::time::resume();
    drop(unused);
    let error = endpoint(&address, RootsOfTrust::System).connect().await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("refused"), "{error}");
}

#[test]
fn names() {
    for name in ["istiod.istio-system.svc", "10.0.0.1", "fd00::1"] {
        assert_eq!(name.parse::<ServerName>().unwrap().to_string(), name);
    }
    for name in ["", "a b", "istiod:15012", "https://istiod"] {
        assert!(name.parse::<ServerName>().unwrap_err().to_string().contains("without a port"), "{name}");
    }
    assert_eq!("Kubernetes".parse::<ClusterId>().unwrap().as_str(), "Kubernetes");
    for name in ["", "a b", "é", "a\n"] {
        assert!(name.parse::<ClusterId>().is_err(), "{name}");
    }
}
