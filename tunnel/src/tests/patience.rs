//! Policies that are named before they are known, and workloads that go.

use std::time::Duration;

use http::{Method, Request};
use mesh::Policy;
use mesh::policy::{Action, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer::tunnel;
use super::resets::{expect_refusal, expect_reset};
use super::world::{SERVER, World, eventually, policy, soon};
use crate::{Config, Timeouts};

/// A world that is patient for so long.
fn world(patience: Duration, listed: &[&str]) -> World {
    let timeouts = Timeouts { unknown_policy: patience, ..Timeouts::default() };
    World::configured(Config { timeouts, ..Config::default() }, |_, server| {
        server.authorization_policies = listed.iter().map(|name| (*name).into()).collect();
    })
}

fn selected(name: &str, action: Action, port: u16) -> Policy {
    Policy { name: name.into(), scope: Scope::WorkloadSelector, ..policy(action, port) }
}

fn connect() -> Request<()> {
    Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap()
}

#[tokio::test]
async fn while_a_new_name_is_unknown_the_previous_list_decides() {
    let mut world = world(Duration::from_secs(600), &["default/old"]);
    world.add_policy(selected("old", Action::Allow, 80));
    let (mut live, mut app) = world.connected(80).await;
    world.change_server(|server| {
        server.authorization_policies = vec!["default/old".into(), "default/new".into()];
    });
    let _another = world.connected(80).await;
    let _closed = world.app(81).await;
    expect_refusal(world.way_to((SERVER, 81))).await;
    app.write_all(b"x").await.unwrap();
    soon(live.read_exact(&mut [0])).await.unwrap();
    world.add_policy(selected("new", Action::Deny, 80));
    expect_reset(&mut live).await;
}

#[tokio::test]
async fn when_patience_is_over_new_ones_are_refused_and_old_ones_stay() {
    let mut world = world(Duration::from_millis(300), &[]);
    let (mut old, mut app) = world.connected(80).await;
    let way = world.way_to((SERVER, 80));
    world.change_server(|server| server.authorization_policies = vec!["default/nowhere".into()]);
    tokio::time::sleep(Duration::from_millis(400)).await;
    expect_refusal(way).await;
    app.write_all(b"x").await.unwrap();
    soon(old.read_exact(&mut [0])).await.unwrap();
}

#[tokio::test]
async fn what_known_policies_do_not_allow_is_cut_though_another_is_unknown() {
    let mut world = world(Duration::from_millis(300), &[]);
    world.add_policy(selected("known", Action::Allow, 443));
    let (mut live, _app) = world.connected(80).await;
    world.change_server(|server| {
        server.authorization_policies = vec!["default/known".into(), "default/unknown".into()];
    });
    expect_reset(&mut live).await;
}

#[tokio::test]
async fn a_workload_that_goes_while_it_is_judged_is_not_allowed() {
    let world = world(Duration::from_millis(500), &["default/guard"]);
    let _app = world.app(80).await;
    let mut sender = tunnel(&world).await.ready().await.unwrap();
    let (response, _send) = sender.send_request(connect(), false).unwrap();
    eventually(|| !world.server.tunnel.connections().is_empty()).await;
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.remove_workload("Kubernetes//Pod/default/server");
        editor.insert_policy(selected("guard", Action::Allow, 80));
        Some(editor.finish())
    });
    assert_eq!(soon(response).await.unwrap().status(), 503);
}

#[tokio::test]
async fn a_stream_that_its_client_resets_is_not_worked_on_any_longer() {
    let world = world(Duration::from_secs(600), &["default/guard"]);
    let mut sender = tunnel(&world).await.ready().await.unwrap();
    let (_response, mut send) = sender.send_request(connect(), false).unwrap();
    eventually(|| !world.server.tunnel.connections().is_empty()).await;
    send.send_reset(h2::Reason::CANCEL);
    eventually(|| world.server.tunnel.connections().is_empty()).await;
    world.server.metric(&["connections_closed_total", "reporter=\"destination\"", "} 1"]).await;
}

#[tokio::test]
async fn streams_end_with_their_tunnel() {
    let world = world(Duration::from_secs(600), &["default/guard"]);
    let mut sender = tunnel(&world).await.ready().await.unwrap();
    let exchange = sender.send_request(connect(), false).unwrap();
    eventually(|| !world.server.tunnel.connections().is_empty()).await;
    drop((sender, exchange));
    eventually(|| world.server.tunnel.connections().is_empty()).await;
}

#[tokio::test]
async fn a_live_connection_of_a_workload_that_is_gone_is_still_judged() {
    let mut world = world(Duration::from_secs(2), &[]);
    let (mut live, mut app) = world.connected(80).await;
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.remove_workload("Kubernetes//Pod/default/server");
        Some(editor.finish())
    });
    app.write_all(b"x").await.unwrap();
    soon(live.read_exact(&mut [0])).await.unwrap();
    world.add_policy(policy(Action::Deny, 80));
    expect_reset(&mut live).await;
}
