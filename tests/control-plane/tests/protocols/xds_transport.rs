//! What is beneath the messages: connections, TLS, headers, sizes.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use control_plane::build::{uid, workload};
use control_plane::wire::discovery::ADDRESS;
use control_plane::{Admission, Door, Ending, Options, Push};
use tonic::Code;

use crate::agent::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_carries_token_cluster_and_the_users_headers() -> Result<()> {
    let setup = Setup::new().await?;
    let _agent = setup.agent_with(|config| config.header("x-tenant", "blue"))?;
    setup.plane.synced().await?;
    let headers = setup.stream()?.headers;
    for (name, value) in
        [("authorization", "Bearer first-token"), ("clusterid", "Kubernetes"), ("x-tenant", "blue")]
    {
        ensure!(headers.get(name).is_some_and(|found| found == value), "{name}: {headers:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_read_anew_for_every_stream() -> Result<()> {
    let setup = Setup::new().await?;
    let _agent = setup.synced_agent().await?;
    fs::write(setup.token(), "second-token\n")?;
    setup.plane.tokens(&["second-token"]);
    setup.plane.end_connections(Ending::Graceful);
    let stream = setup.stream_after(0).await?;
    ensure!(stream.headers.get("authorization").is_some_and(|value| value == "Bearer second-token"));
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_without_a_restart() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.tokens(&["good"]);
    let agent = setup.agent()?;
    setup
        .plane
        .wait("two refusals", |r| (r.streams.iter().filter(|s| s.ended).count() >= 2).then_some(()))
        .await?;
    ensure!(agent.pending().len() == 2);
    fs::write(setup.token(), "good")?;
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_read_anew_for_every_connection() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    setup.plane.rotate_root()?;
    setup.plane.forget_old_roots()?;
    setup.plane.end_connections(Ending::Graceful);
    setup.stream_after(0).await?;
    setup.plane.synced().await?;
    setup.plane.update(|world| world.set(workload("demo", "a")));
    agent.until("what came after", |mesh| mesh.workload(&uid("demo", "a")).is_some()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_root_or_name_is_not_spoken_to() -> Result<()> {
    let setup = Setup::new().await?;
    let stranger = Setup::new().await?;
    let _other_root = setup.agent_with(|config| config.roots(&stranger.plane.roots()))?;
    let _other_name = setup.agent_with(|config| config.server_name("istiod.istio-system.svc"))?;
    setup.plane.wait("some attempts", |r| (r.connections >= 6).then_some(())).await?;
    ensure!(setup.plane.records().streams.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_name_can_be_told() -> Result<()> {
    let setup = Setup::with(|options| options.names.push("istiod.istio-system.svc".to_owned())).await?;
    let _agent = setup.agent_with(|config| config.server_name("istiod.istio-system.svc"))?;
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_is_spoken_where_it_is_written() -> Result<()> {
    let setup = Setup::with(|options| options.plaintext = true).await?;
    let tls = setup.agent()?;
    setup.plane.wait("some attempts", |r| (r.connections >= 3).then_some(())).await?;
    ensure!(setup.plane.records().streams.is_empty());
    drop(tls);
    let _agent = setup.agent_with(|config| config.address(&format!("http://{}", setup.plane.address())))?;
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_over_ipv6() -> Result<()> {
    let setup =
        Setup::with(|options: &mut Options| options.listen = ([0, 0, 0, 0, 0, 0, 0, 1], 0).into()).await?;
    let _agent = setup.agent()?;
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_given_up() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.door(Door::Silent);
    let _agent = setup.agent()?;
    setup.plane.wait("a first attempt", |r| (r.connections >= 1).then_some(())).await?;
    // The one that hangs goes on hanging.
    setup.plane.door(Door::Open);
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_slams_the_door_is_tried_again() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.door(Door::Slammed);
    let _agent = setup.agent()?;
    setup.plane.wait("some attempts", |r| (r.connections >= 4).then_some(())).await?;
    setup.plane.door(Door::Open);
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_never_answered_does_no_harm() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a")));
    let agent = setup.synced_agent().await?;
    setup.plane.admit_next(Admission::Mute);
    setup.plane.end_streams(Code::Unavailable, "max_age").await;
    setup.stream_after(0).await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some() && agent.pending().is_empty());
    setup.plane.end_streams(Code::Unavailable, "max_age").await;
    setup.stream_after(1).await?;
    setup.plane.synced().await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_tens_of_mib_are_read() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let large = (0..100_000)
        .fold(Push::new(ADDRESS, "large"), |push, number| push.removed(&format!("nobody/{number:0>300}")));
    setup.plane.push(large.resource(workload("demo", "last"))).await;
    setup.acknowledged("large").await?;
    ensure!(agent.mesh().workload(&uid("demo", "last")).is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn largest_message_is_200_mib() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a")));
    let agent = setup.synced_agent().await?;
    // It would be good in all but its size.
    let body = Push::new(ADDRESS, "huge").removed(&uid("demo", "a")).removed(&"x".repeat(300 << 20));
    setup.plane.push(body).await;
    setup.stream_after(0).await?;
    setup.plane.synced().await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some(), "the last good state stays");
    let acknowledged = |r: &control_plane::records::Records| {
        let first = r.streams.front()?;
        Some(first.requests.iter().any(|request| request.response_nonce == "huge"))
    };
    ensure!(!acknowledged(&setup.plane.records()).context("a stream")?);
    Ok(())
}
