//! How streams end, and how the client comes back.

use anyhow::{Context as _, Result, ensure};
use control_plane::build::{uid, workload};
use control_plane::wire::discovery::ADDRESS;
use control_plane::{Admission, Ending, Push};
use tonic::Code;

use crate::agent::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_benign_close_is_followed_by_a_new_stream_that_changes_nothing() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a").at([10, 0, 0, 1])));
    let agent = setup.synced_agent().await?;
    let (mesh, published) = (agent.mesh(), agent.published());
    for count in 0..10 {
        match count % 3 {
            0 => setup.plane.end_connections(Ending::Graceful),
            1 => setup.plane.end_streams(Code::Unavailable, "max_age").await,
            _ => setup.plane.end_streams(Code::Ok, "").await,
        }
        let stream = setup.stream_after(count).await?;
        let first = stream.of(ADDRESS).next().context("a first request")?;
        ensure!(first.initial_resource_versions.len() == 1, "{first:?}");
        setup.plane.synced().await?;
    }
    ensure!(agent.published() == published && std::sync::Arc::ptr_eq(&mesh, &agent.mesh()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_failure_is_tried_again_with_the_last_good_state_kept() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a").at([10, 0, 0, 1])));
    let agent = setup.synced_agent().await?;
    let codes = [
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::Internal,
        Code::Unimplemented,
    ];
    for code in codes {
        setup.plane.admit_next(Admission::Refuse(code, "scripted".to_owned()));
    }
    setup.plane.end_connections(Ending::Abrupt);
    let enough = |r: &control_plane::records::Records| (r.streams.len() > codes.len() + 1).then_some(());
    setup.plane.wait("a stream after all refusals", enough).await?;
    setup.plane.synced().await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    setup.plane.update(|world| world.set(workload("demo", "b")));
    agent.until("what came after", |mesh| mesh.workload(&uid("demo", "b")).is_some()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_dies_50_times_is_found_again_each_time() -> Result<()> {
    let mut setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a").at([10, 0, 0, 1])));
    let agent = setup.synced_agent().await?;
    let (mesh, published) = (agent.mesh(), agent.published());
    for count in 0..50 {
        setup.plane.restart().await?;
        setup.stream_after(count).await?;
        setup.plane.synced().await?;
    }
    ensure!(agent.published() == published && std::sync::Arc::ptr_eq(&mesh, &agent.mesh()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_in_the_middle_of_a_response_leaves_the_last_good_state() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a").at([10, 0, 0, 1])));
    let agent = setup.synced_agent().await?;
    // Large enough that it is not on its way as a whole when the socket is closed.
    let large = (0..200_000)
        .fold(Push::new(ADDRESS, "large"), |push, number| push.removed(&format!("nobody/{number:0>200}")));
    setup.plane.push(large.removed(&uid("demo", "a"))).await;
    setup.plane.end_connections(Ending::Abrupt);
    setup.stream_after(0).await?;
    setup.plane.synced().await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminations_are_counted_by_their_reason() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    setup.plane.end_streams(Code::Unavailable, "max_age").await;
    setup.stream_after(0).await?;
    setup.plane.synced().await?;
    setup.plane.end_streams(Code::Internal, "broken").await;
    setup.stream_after(1).await?;
    setup.plane.synced().await?;
    setup.plane.end_connections(Ending::Graceful);
    setup.stream_after(2).await?;
    setup.plane.synced().await?;
    // The one after that is refused before it stands.
    setup.plane.admit_next(Admission::Refuse(Code::Unauthenticated, "no token".to_owned()));
    setup.plane.end_connections(Ending::Abrupt);
    setup.stream_after(4).await?;
    setup.plane.synced().await?;
    setup.plane.end_streams(Code::Ok, "").await;
    setup.stream_after(5).await?;
    setup.plane.synced().await?;
    let text = agent.metrics()?;
    for (reason, count) in [("Reconnect", 3), ("Error", 1), ("ConnectionError", 1), ("Complete", 1)] {
        let line = format!("istio_xds_connection_terminations_total{{reason=\"{reason}\"}} {count}\n");
        ensure!(text.contains(&line), "{line}{text}");
    }
    ensure!(
        text.contains("istio_xds_message_total{url=\"type.googleapis.com/istio.workload.Address\"} 6"),
        "{text}"
    );
    Ok(())
}
