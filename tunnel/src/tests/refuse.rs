//! What is refused, and that the application learns of it at once, as a reset.

use super::resets::expect_refusal;
use super::world::{SERVER, World, workload};

#[tokio::test]
async fn an_application_that_is_not_there_is_told_as_a_failed_connect() {
    let mut world = World::new();
    world.absent_app(80).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    for node in [&world.client, &world.server] {
        node.metric(&["connections_failed_total", "response_flags=\"CONNECT\"", "} 1"]).await;
    }
}

#[tokio::test]
async fn a_client_of_another_trust_domain_gets_nowhere() {
    let mut world = World::with(|client, _| client.trust_domain = "elsewhere".into());
    let _app = world.app(80).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    world.client.metric(&["connections_failed_total", "\"TLS_FAILURE\"", "} 1"]).await;
}

#[tokio::test]
async fn a_server_with_another_identity_is_not_spoken_to() {
    let mut world = World::new();
    let _app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    // The address is now another workload's, but the old pod still answers there.
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_workload(workload("successor", SERVER));
        let mut old = workload("server", [10, 0, 0, 99].into());
        old.service_account = "server".into();
        editor.insert_workload(old);
        Some(editor.finish())
    });
    expect_refusal(way).await;
    world.client.metric(&["connections_failed_total", "\"TLS_FAILURE\"", "} 1"]).await;
}

#[tokio::test]
async fn the_meshs_own_port_is_no_destination() {
    let mut world = World::new();
    expect_refusal(world.way_to((SERVER, 15008))).await;
    world.client.metric(&["connections_failed_total", "\"CONNECT\"", "} 1"]).await;
}

#[tokio::test]
async fn a_refused_plaintext_connection_is_reset() {
    let mut world = World::new();
    world.absent_app(80).await;
    expect_refusal(world.plain_way_to(80)).await;
}
