//! The accepting end, spoken to by a bare HTTP/2 client: what it answers to whom.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode};
use mesh::Identity;
use mesh::policy::Action;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::world::{SERVER, World, policy, soon};
use crate::CertificateProvider as _;
use crate::tls::Configs;

/// A tunnel to the server pod, with nothing asked of it yet.
pub(super) async fn tunnel(world: &World) -> SendRequest<Bytes> {
    tunnel_at(world, world.places.at(SocketAddr::from((SERVER, mesh::HBONE_PORT)))).await
}

/// A tunnel of the client's to whatever listener of the server pod.
pub(super) async fn tunnel_at(world: &World, address: SocketAddr) -> SendRequest<Bytes> {
    let client = Identity::new("cluster.local", "default", "client");
    let server = Identity::new("cluster.local", "default", "server");
    let certificate = world.certificates.certificate(&client).await.unwrap();
    let accepted: Arc<[String]> = [server.to_string()].into();
    let config = Configs::default().client(&client, &certificate, &accepted).unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::from(address.ip());
    let tls = soon(TlsConnector::from(config).connect(name, tcp)).await.unwrap();
    let (_, session) = tls.get_ref();
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(
        session.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    let (sender, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(world: &World, method: Method, target: &str) -> Response<h2::RecvStream> {
    let request = Request::builder().method(method).uri(target).body(()).unwrap();
    let mut sender = tunnel(world).await.ready().await.unwrap();
    soon(sender.send_request(request, false).unwrap().0).await.unwrap()
}

#[tokio::test]
async fn an_accepted_tunnel_is_answered_with_200_and_who_accepted() {
    let world = World::new();
    let _app = world.app(80).await;
    let response = ask(&world, Method::CONNECT, "10.0.0.2:80").await;
    assert_eq!(response.status(), StatusCode::OK);
    let baggage = response.headers()["baggage"].to_str().unwrap();
    assert!(baggage.contains("k8s.deployment.name=server,service.name=server"), "{baggage}");
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let world = World::new();
    let _app = world.app(80).await;
    let _guarded = world.app(81).await;
    world.absent_app(82).await;
    world.add_policy(policy(Action::Deny, 81));
    for (method, target, status) in [
        (Method::GET, "https://10.0.0.2:80/", 400),
        (Method::POST, "https://10.0.0.2:80/", 400),
        (Method::CONNECT, "10.0.0.3:80", 400),
        (Method::CONNECT, "10.0.0.2:81", 401),
        (Method::CONNECT, "10.0.0.2:82", 503),
        (Method::CONNECT, "10.0.0.2:15008", 503),
        (Method::CONNECT, "nowhere.default.svc.cluster.local:80", 503),
    ] {
        let response = ask(&world, method.clone(), target).await;
        assert_eq!(response.status().as_u16(), status, "{method} {target}");
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test]
async fn the_settings_are_those_of_the_protocol() {
    let world = World::new();
    let _app = world.app(80).await;
    let mut sender = tunnel(&world).await.ready().await.unwrap();
    let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
    let (response, mut send) = sender.send_request(request, false).unwrap();
    soon(response).await.unwrap();
    assert_eq!(sender.current_max_send_streams(), 200);
    send.reserve_capacity(64 << 20);
    let mut window = send.capacity();
    while window < 4 << 20 {
        window = soon(std::future::poll_fn(|cx| send.poll_capacity(cx))).await.unwrap().unwrap();
        if window >= 400 << 10 {
            break;
        }
    }
    assert!(window >= 400 << 10, "{window}");
}
