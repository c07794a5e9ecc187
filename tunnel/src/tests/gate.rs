//! What is not taken on: the agent's own connections, and more than a pod may have.

use std::io;
use std::time::Duration;

use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peer::{connector, tunnel};
use super::resets::expect_refusal;
use super::world::{SERVER, World, eventually, soon};
use crate::{Config, Timeouts};

#[tokio::test]
async fn a_local_process_that_finds_a_listener_is_refused() {
    let mut world = World::new();
    let [outbound, plaintext, _] = world.bare_listeners();
    expect_refusal(outbound).await;
    expect_refusal(plaintext).await;
    assert!(world.server.tunnel.connections().is_empty());
    world.server.metric(&["culvert_connections_refused_total{reason=\"listener\"} 2"]).await;
}

#[tokio::test]
async fn loopback_is_no_way_into_a_pod_for_others() {
    let mut world = World::new();
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [_, _, hbone] = world.bare_listeners();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(app.local_addr().unwrap().to_string())
        .body(())
        .unwrap();
    let refused = async {
        let tcp = TcpStream::connect(hbone).await?;
        // The reset may come while the client still shakes hands, or after.
        let tls = connector(&world).await.connect(hbone.ip().into(), tcp).await.map_err(io::Error::other)?;
        let (sender, connection) = h2::client::handshake(tls).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let mut sender = sender.ready().await.map_err(io::Error::other)?;
        let (answer, _stream) = sender.send_request(request, false).map_err(io::Error::other)?;
        answer.await.map_err(io::Error::other)
    };
    soon(refused).await.expect_err("a tunnel by loopback was accepted");
}

#[tokio::test]
async fn a_connection_that_comes_back_to_the_agent_is_refused() {
    let mut world = World::new();
    let way = world.plain_way_to(80);
    // The pod's network leads what is meant for the application back to the listener.
    world.places.place((SERVER, 80).into(), way);
    expect_refusal(way).await;
    world.server.metric(&["culvert_connections_refused_total{reason=\"ourselves\"} 1"]).await;
    eventually(|| world.server.tunnel.connections().is_empty()).await;
}

#[tokio::test]
async fn a_pod_has_so_many_connections_and_no_more() {
    let config = Config { max_connections_per_pod: 2, ..Config::default() };
    let mut world = World::configured(config, |_, _| {});
    let app = world.app(80).await;
    let way = world.plain_way_to(80);
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push((TcpStream::connect(way).await.unwrap(), soon(app.accept()).await.unwrap()));
    }
    for _ in 0..3 {
        expect_refusal(way).await;
    }
    world.server.metric(&["culvert_connections_refused_total{reason=\"full\"} 3"]).await;
    // Another pod has its own.
    let _other = TcpStream::connect(world.plain_way_to(80)).await.unwrap();
    soon(app.accept()).await.unwrap();
    open.pop();
    eventually(|| world.server.tunnel.connections().len() == 2).await;
    let _next = TcpStream::connect(way).await.unwrap();
    soon(app.accept()).await.unwrap();
}

#[tokio::test]
async fn streams_of_a_tunnel_count_as_connections() {
    let config = Config { max_connections_per_pod: 2, ..Config::default() };
    let world = World::configured(config, |_, _| {});
    let _app = world.app(80).await;
    let mut sender = tunnel(&world).await;
    let mut open = Vec::new();
    for status in [200, 503] {
        sender = sender.ready().await.unwrap();
        let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
        let (response, send) = sender.send_request(request, false).unwrap();
        let response = soon(response).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        open.push((response, send));
    }
}

#[tokio::test]
async fn a_pod_takes_so_many_tunnels_and_no_more() {
    let config = Config { max_tunnels_per_pod: 1, ..Config::default() };
    let world = World::configured(config, |_, _| {});
    let first = tunnel(&world).await;
    expect_refusal(world.places.at((SERVER, mesh::HBONE_PORT).into())).await;
    world.server.metric(&["culvert_connections_refused_total{reason=\"tunnels\"} 1"]).await;
    drop(first);
    let hbone = world.places.at((SERVER, mesh::HBONE_PORT).into());
    soon(async {
        loop {
            // It is taken again once the first is gone.
            let Ok(mut stream) = TcpStream::connect(hbone).await else { continue };
            let refused = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0])).await;
            if refused.is_err() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_keeps_silent_or_dawdles_takes_no_other_pods_turn() {
    let timeouts = Timeouts { first_bytes: Duration::from_millis(200), ..Timeouts::default() };
    let config = Config { max_handshakes: 4, timeouts, ..Config::default() };
    let mut world = World::configured(config, |_, _| {});
    let hbone = world.places.at((SERVER, mesh::HBONE_PORT).into());
    let mut silent = TcpStream::connect(hbone).await.unwrap();
    let mut dawdling = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(hbone).await.unwrap();
        stream.write_all(&[22]).await.unwrap();
        dawdling.push(stream);
    }
    let began = std::time::Instant::now();
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap_or(0), 0);
    // The same node, another start of a pod.
    let app = world.app(80).await;
    world.change_server(|server| {
        server.services.insert("default/own.example".parse().unwrap(), [(80, 80)].into());
    });
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_service(mesh::Service {
            name: "own".into(),
            namespace: "default".into(),
            hostname: "own.example".into(),
            vips: vec![mesh::NetworkAddress::new("", [10, 96, 0, 9].into())],
            ports: [(80, 80)].into(),
            ..mesh::Service::default()
        });
        Some(editor.finish())
    });
    let _client = TcpStream::connect(world.way_home_to(([10, 96, 0, 9], 80))).await.unwrap();
    soon(app.accept()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "it had to wait: {:?}", began.elapsed());
    for stream in &mut dawdling {
        let _ = stream.shutdown().await;
    }
}
