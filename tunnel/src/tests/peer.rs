//! The accepting end, spoken to by a bare HTTP/2 client: what it answers to whom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode};
use mesh::policy::Action;
use mesh::{Identity, NamespacedHostname, Service};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::world::{SERVER, World, policy, soon};
use crate::tls::{Client, Configs};
use crate::{CertificateProvider as _, Config, Timeouts};

/// A tunnel to the server pod, with nothing asked of it yet.
pub(super) async fn tunnel(world: &World) -> SendRequest<Bytes> {
    tunnel_at(world, world.places.at(SocketAddr::from((SERVER, mesh::HBONE_PORT)))).await
}

/// How the client's pod shakes hands with the server's, without a session to resume.
pub(super) async fn connector(world: &World) -> Client {
    let client = Identity::new("cluster.local", "default", "client");
    let server = Identity::new("cluster.local", "default", "server");
    let certificate = world.certificates.certificate(&client).await.unwrap();
    let accepted: Arc<[String]> = [server.to_string()].into();
    Configs::default().client(&client, &certificate, &accepted).unwrap()
}

/// A tunnel of the client's to whatever listener of the server pod.
pub(super) async fn tunnel_at(world: &World, address: SocketAddr) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::from(address.ip());
    let tls = soon(connector(world).await.connect(name, tcp)).await.unwrap();
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
    let ports = [(80, 80), (81, 81), (82, 15008), (15008, 15008)];
    let web: NamespacedHostname = "default/web.default.svc.cluster.local".parse().unwrap();
    let world = World::with(|_, server| {
        server.services.insert(web.clone(), ports.into());
    });
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_service(Service {
            name: "web".into(),
            namespace: web.namespace,
            hostname: web.hostname,
            ports: ports.into(),
            ..Service::default()
        });
        Some(editor.finish())
    });
    let _app = world.app(80).await;
    let _guarded = world.app(81).await;
    world.absent_app(82).await;
    world.add_policy(policy(Action::Deny, 81));
    for (method, target, status) in [
        (Method::GET, "https://10.0.0.2:80/", 400),
        (Method::POST, "https://10.0.0.2:80/", 400),
        (Method::CONNECT, "10.0.0.3:80", 400),
        (Method::CONNECT, "10.0.0.2:0", 400),
        (Method::CONNECT, "10.0.0.2:65536", 400),
        (Method::CONNECT, "web.default.svc.cluster.local", 400),
        (Method::CONNECT, "someone@10.0.0.2:80", 400),
        (Method::CONNECT, "10.0.0.2:81", 401),
        (Method::CONNECT, "10.0.0.2:82", 503),
        (Method::CONNECT, "10.0.0.2:15008", 503),
        (Method::CONNECT, "nowhere.default.svc.cluster.local:80", 503),
        (Method::CONNECT, "web.default.svc.cluster.local:443", 503),
        (Method::CONNECT, "web.default.svc.cluster.local:82", 503),
        (Method::CONNECT, "web.default.svc.cluster.local:15008", 503),
        (Method::CONNECT, "web.default.svc.cluster.local:81", 401),
        (Method::CONNECT, "WEB.default.svc.cluster.local:80", 200),
    ] {
        let response = ask(&world, method.clone(), target).await;
        assert_eq!(response.status().as_u16(), status, "{method} {target}");
        assert_eq!(response.body().is_end_stream(), status != 200);
    }
}

#[tokio::test]
async fn a_workload_that_nobody_knows_is_answered_with_503() {
    let timeouts = Timeouts { own_workload: Duration::from_millis(100), ..Timeouts::default() };
    let world = World::configured(Config { timeouts, ..Config::default() }, |_, _| {});
    let _app = world.app(80).await;
    let mut sender = tunnel(&world).await.ready().await.unwrap();
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.remove_workload("Kubernetes//Pod/default/server");
        Some(editor.finish())
    });
    let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
    let response = soon(sender.send_request(request, false).unwrap().0).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
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
