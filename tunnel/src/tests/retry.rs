//! An endpoint of a service that cannot be reached is replaced by another.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh::policy::{Action, Scope};
use mesh::workload::Protocol;
use mesh::{Policy, Workload};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::resets::expect_refusal;
use super::service::{VIP, publish, serve};
use super::world::{World, policy, soon, workload};
use crate::{Config, Timeouts};

/// Enough connections that every endpoint is drawn first now and then.
const CONNECTIONS: usize = 12;

fn other(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, number)
}

/// Another endpoint of the service.
fn endpoint(number: u8) -> Workload {
    let mut endpoint = workload(&format!("other{number}"), other(number));
    serve(&mut endpoint);
    endpoint
}

/// A world in which the server serves the service, and these do, too.
fn world(timeouts: Timeouts, others: impl IntoIterator<Item = Workload>) -> World {
    let world = World::configured(Config { timeouts, ..Config::default() }, |_, server| serve(server));
    publish(&world, others);
    world
}

/// Nobody listens there.
async fn absent(world: &World, address: impl Into<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place(address.into(), listener.local_addr().unwrap());
}

/// Nobody answers there: the queue of a listener that never accepts is full.
fn blackhole(world: &World, address: impl Into<SocketAddr>) -> (Socket, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let at = listener.local_addr().unwrap();
    let fill = |_| {
        let client = socket();
        client.connect_timeout(&at, Duration::from_millis(200)).is_ok().then_some(client)
    };
    let full = (0..8).map_while(fill).collect();
    world.places.place(address.into(), at.as_socket().unwrap());
    (listener, full)
}

/// The server's application is reached by all connections, both ways.
async fn served(world: &mut World) {
    let app = world.app(8080).await;
    let way = world.way_to((VIP, 80));
    for _ in 0..CONNECTIONS {
        let mut client = soon(TcpStream::connect(way)).await.unwrap();
        let (mut accepted, _) = soon(app.accept()).await.unwrap();
        client.write_all(b"?").await.unwrap();
        soon(accepted.read_exact(&mut [0])).await.unwrap();
        accepted.write_all(b"!").await.unwrap();
        soon(client.read_exact(&mut [0])).await.unwrap();
    }
}

#[tokio::test]
async fn refused_by_an_agent_or_by_a_plain_endpoint() {
    let plain = Workload { protocol: Protocol::Tcp, ..endpoint(2) };
    let mut world = world(Timeouts::default(), [endpoint(1), plain]);
    absent(&world, (other(1), mesh::HBONE_PORT)).await;
    absent(&world, (other(2), 8080)).await;
    served(&mut world).await;
    world.client.metric(&["culvert_connect_retries_total{outcome=\"connected\"}"]).await;
    world
        .client
        .metric(&["connections_failed_total", "destination_workload=\"other1\"", "\"CONNECT\""])
        .await;
    world
        .client
        .metric(&["connections_failed_total", "destination_workload=\"other2\"", "\"CONNECT\""])
        .await;
}

#[tokio::test]
async fn one_that_keeps_silent_costs_its_share_of_the_time_only() {
    let timeouts = Timeouts {
        endpoint: Duration::from_millis(200),
        connect: Duration::from_secs(600),
        retry: Duration::from_secs(600),
        ..Timeouts::default()
    };
    let plain = Workload { protocol: Protocol::Tcp, ..endpoint(2) };
    let mut world = world(timeouts, [endpoint(1), plain]);
    let _silent = [blackhole(&world, (other(1), mesh::HBONE_PORT)), blackhole(&world, (other(2), 8080))];
    served(&mut world).await;
    world.client.metric(&["connections_failed_total", "destination_workload=\"other2\""]).await;
}

#[tokio::test]
async fn the_only_one_gets_all_the_time_there_is_and_the_flag_says_what_blocks_it() {
    let timeouts = Timeouts {
        endpoint: Duration::from_millis(100),
        connect: Duration::from_millis(400),
        ..Timeouts::default()
    };
    let mut world = World::configured(Config { timeouts, ..Config::default() }, |_, _| {});
    publish(&world, [endpoint(1)]);
    let _silent = blackhole(&world, (other(1), mesh::HBONE_PORT));
    expect_refusal(world.way_to((VIP, 80))).await;
    world.client.metric(&["connections_failed_total", "response_flags=\"NETWORK_POLICY\"", "} 1"]).await;
    world.client.metric(&["culvert_connect_retries_total{outcome=\"no_other_endpoint\"} 1"]).await;
}

#[tokio::test]
async fn others_are_tried_for_a_limited_time() {
    let limit = Duration::from_millis(300);
    let timeouts = Timeouts { endpoint: limit, retry: limit, connect: 2 * limit, ..Timeouts::default() };
    let mut world = World::configured(Config { timeouts, ..Config::default() }, |_, _| {});
    publish(&world, [endpoint(1), endpoint(2)]);
    let _silent = [1, 2].map(|number| blackhole(&world, (other(number), mesh::HBONE_PORT)));
    expect_refusal(world.way_to((VIP, 80))).await;
    world.client.metric(&["culvert_connect_retries_total{outcome=\"time_spent\"} 1"]).await;
}

#[tokio::test]
async fn an_agent_whose_application_is_gone_leads_elsewhere() {
    let mut world = world(Timeouts::default(), [endpoint(1)]);
    world.serve_as("other1", other(1));
    absent(&world, (other(1), 8080)).await;
    served(&mut world).await;
    world.client.metric(&["culvert_connect_retries_total{outcome=\"connected\"}"]).await;
    world
        .server
        .metric(&["connections_failed_total", "destination_workload=\"other1\"", "\"CONNECT\""])
        .await;
}

#[tokio::test]
async fn an_agent_that_does_not_answer_leads_elsewhere() {
    let timeouts = Timeouts {
        endpoint: Duration::from_millis(500),
        connect: Duration::from_secs(600),
        retry: Duration::from_secs(600),
        ..Timeouts::default()
    };
    let mut world = world(timeouts, [endpoint(1)]);
    world.serve_as("other1", other(1));
    let _silent = blackhole(&world, (other(1), 8080));
    served(&mut world).await;
    world.client.metric(&["culvert_connect_retries_total{outcome=\"connected\"}"]).await;
}

#[tokio::test]
async fn a_denial_is_not_an_invitation_to_ask_elsewhere() {
    let denied = Workload { authorization_policies: vec!["default/guard".into()], ..endpoint(1) };
    // The server would take it, and is drawn only when the other one is left out.
    let mut world = World::configured(Config::default(), |_, server| {
        serve(server);
        server.capacity = 0;
    });
    publish(&world, [denied]);
    let _app = world.app(8080).await;
    world.add_policy(Policy { scope: Scope::WorkloadSelector, ..policy(Action::Deny, 8080) });
    world.serve_as("other1", other(1));
    expect_refusal(world.way_to((VIP, 80))).await;
    world.client.metric(&["connections_failed_total", "destination_workload=\"other1\"", "} 1"]).await;
}

#[tokio::test]
async fn when_none_answers_the_application_is_told_and_each_attempt_is_counted() {
    let mut world = World::configured(Config::default(), |_, _| {});
    publish(&world, (1..=9).map(endpoint));
    for number in 1..=9 {
        absent(&world, (other(number), mesh::HBONE_PORT)).await;
    }
    expect_refusal(world.way_to((VIP, 80))).await;
    world.client.metric(&["culvert_connect_retries_total{outcome=\"attempts_spent\"} 1"]).await;
}

#[tokio::test]
async fn an_application_that_leaves_meanwhile_ends_the_attempts() {
    let mut world = World::configured(Config::default(), |_, _| {});
    publish(&world, [endpoint(1)]);
    let _silent = blackhole(&world, (other(1), mesh::HBONE_PORT));
    let client = TcpStream::connect(world.way_to((VIP, 80))).await.unwrap();
    super::world::eventually(|| !world.client.tunnel.connections().is_empty()).await;
    crate::relay::reset(client);
    super::world::eventually(|| world.client.tunnel.connections().is_empty()).await;
    world.client.metric(&["connections_closed_total", "response_flags=\"-\"", "} 1"]).await;
}
