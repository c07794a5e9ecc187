//! Policy, for connections that come and for those that are there.

use std::sync::Arc;

use mesh::policy::Action;
use mesh::{Policy, policy::Scope};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::resets::{expect_refusal, expect_reset};
use super::world::{SERVER, World, policy, soon};

#[tokio::test]
async fn a_denied_connection_is_reset_and_counted_on_both_nodes() {
    let mut world = World::new();
    world.add_policy(policy(Action::Deny, 80));
    let _app = world.app(80).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    for (node, flag) in [(&world.client, "CONNECT"), (&world.server, "DENY")] {
        let flag = format!("response_flags=\"{flag}\"");
        node.metric(&["connections_failed_total", &flag, "} 1"]).await;
        node.metric(&["connections_closed_total", &flag, "} 1"]).await;
        node.metric(&["connections_opened_total", "response_flags=\"-\"", "} 1"]).await;
    }
}

#[tokio::test]
async fn a_live_tunnelled_connection_is_cut_when_policy_comes_to_deny_it() {
    let mut world = World::new();
    let (mut client, mut app) = world.connected(80).await;
    world.add_policy(policy(Action::Deny, 80));
    expect_reset(&mut client).await;
    expect_reset(&mut app).await;
    world.server.metric(&["connections_closed_total", "response_flags=\"DENY\"", "} 1"]).await;
}

#[tokio::test]
async fn a_live_plain_connection_is_cut_too_and_others_are_left_alone() {
    let mut world = World::new();
    let app = world.app(80).await;
    let mut client = TcpStream::connect(world.plain_way_to(80)).await.unwrap();
    let (mut accepted, _) = soon(app.accept()).await.unwrap();
    world.add_policy(policy(Action::Deny, 443));
    accepted.writable().await.unwrap();
    accepted.try_write(b"x").unwrap();
    soon(client.read_exact(&mut [0])).await.unwrap();
    world.add_policy(policy(Action::Allow, 443));
    expect_reset(&mut client).await;
    expect_reset(&mut accepted).await;
}

#[tokio::test]
async fn a_policy_that_is_named_but_not_there_yet_is_waited_for() {
    let mut world = World::with(|_, server| server.authorization_policies = vec!["default/guard".into()]);
    let app = world.app(80).await;
    let _client = TcpStream::connect(world.way_to((SERVER, 80))).await.unwrap();
    let store = Arc::clone(&world.store);
    let arriving = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        store.update(|snapshot| {
            let mut editor = snapshot.edit();
            editor.insert_policy(Policy { scope: Scope::WorkloadSelector, ..policy(Action::Allow, 80) });
            Some(editor.finish())
        });
    };
    let (accepted, ()) = tokio::join!(soon(app.accept()), arriving);
    accepted.unwrap();
}

#[tokio::test]
async fn a_dry_run_denies_nothing_and_is_counted() {
    let mut world = World::new();
    world.add_policy(Policy { dry_run: true, ..policy(Action::Deny, 80) });
    let _connected = world.connected(80).await;
    let counted = ["culvert_dry_run_matches_total", "policy=\"default/guard\"", "\"DENY\"", "} 1"];
    world.server.metric(&counted).await;
}
