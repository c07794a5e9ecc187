//! How the client takes what it is sent, and what it says to that.

use anyhow::{Context as _, Result, bail, ensure};
use control_plane::build::{allow_from, service, uid, workload};
use control_plane::wire::discovery::{ADDRESS, AUTHORIZATION};
use control_plane::{Admission, Push};

use crate::agent::{PRINCIPAL, Setup};

const WEB: &str = "demo/web.demo.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_is_type_url_and_nonce() -> Result<()> {
    let setup = Setup::new().await?;
    let _agent = setup.synced_agent().await?;
    let stream = setup.stream()?;
    for type_url in [ADDRESS, AUTHORIZATION] {
        let (_, nonce) = stream.sent.iter().find(|(of, _)| of == type_url).context("an answer")?;
        let ack = stream.of(type_url).find(|request| request.response_nonce == *nonce).context("an ACK")?;
        ensure!(ack.error_detail.is_none() && ack.node.is_none());
        ensure!(ack.subscribe.is_empty() && ack.unsubscribe.is_empty());
        ensure!(ack.initial_resource_versions.is_empty());
    }
    // Each response is answered once.
    ensure!(stream.requests.len() == 4, "{:?}", stream.requests);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nonce_is_the_responses_whatever_it_is() -> Result<()> {
    let setup = Setup::new().await?;
    let _agent = setup.synced_agent().await?;
    for nonce in ["0-0", "2026-11-21T07:27:34Z/387a810892-abc0-4e28-a60d-4ca610cffd2f", "\u{1F980}"] {
        setup.plane.push(Push::new(ADDRESS, nonce).resource(workload("demo", "a"))).await;
        setup.acknowledged(nonce).await?;
    }
    ensure!(setup.stream()?.nacks().next().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_names_the_resource_and_keeps_the_good_ones() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "kept").at([10, 0, 0, 1])));
    let agent = setup.synced_agent().await?;
    let mut bad = workload("demo", "kept");
    bad.addresses.push(vec![1, 2, 3, 4, 5]);
    let push = Push::new(ADDRESS, "mixed").resource(workload("demo", "before")).resource(bad);
    setup.plane.push(push.resource(service("demo", "web").at([10, 96, 0, 1]).port(80, 80))).await;
    let nack = setup.plane.wait("a NACK", |r| r.last()?.nacks().next().cloned()).await?;
    ensure!(nack.type_url == ADDRESS && nack.response_nonce == "mixed" && nack.node.is_none());
    let error = nack.error_detail.context("an error")?;
    ensure!(error.message.contains(&uid("demo", "kept")), "{}", error.message);
    agent
        .until("the good ones", |mesh| {
            mesh.workload(&uid("demo", "before")).is_some() && mesh.services().count() == 1
        })
        .await?;
    let kept = agent.mesh().workload(&uid("demo", "kept")).cloned().context("the last good one")?;
    ensure!(kept.addresses.len() == 1, "{kept:?}");
    let standing = agent.standing();
    ensure!(standing.connected.is_some() && standing.address == setup.plane.address().to_string());
    let [address, policies] = standing.types.as_slice() else { bail!("two types: {standing:?}") };
    let refused = address.refused.as_ref().context("what was refused")?;
    ensure!(refused.why.contains(&uid("demo", "kept")) && address.accepted.is_some(), "{standing:?}");
    ensure!(address.held == 3 && policies.refused.is_none() && policies.accepted.is_some(), "{standing:?}");
    // The stream goes on, and the next good version is taken.
    setup.plane.update(|world| world.set(workload("demo", "kept").at([10, 0, 0, 1]).at([10, 0, 0, 2])));
    let grown =
        |mesh: &mesh::Snapshot| mesh.workload(&uid("demo", "kept")).is_some_and(|w| w.addresses.len() == 2);
    agent.until("the next version", grown).await?;
    ensure!(setup.plane.records().streams.len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_of_an_unknown_type_is_let_pass() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let unknown = "type.googleapis.com/envoy.config.listener.v3.Listener";
    setup.plane.push(Push::new(unknown, "unknown").resource(workload("demo", "smuggled"))).await;
    setup.plane.push(Push::new(ADDRESS, "known").resource(workload("demo", "a"))).await;
    setup.acknowledged("known").await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    ensure!(agent.mesh().workload(&uid("demo", "smuggled")).is_none());
    ensure!(setup.plane.records().streams.len() == 1, "the stream goes on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_removed_by_uid_first_and_else_as_services() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    // A workload whose uid reads like the name of a service.
    let mut twin = workload("demo", "twin");
    WEB.clone_into(&mut twin.uid);
    let web = service("demo", "web").at([10, 96, 0, 1]).port(80, 80);
    setup.plane.push(Push::new(ADDRESS, "both").resource(twin).resource(web)).await;
    setup.acknowledged("both").await?;
    ensure!(agent.mesh().workload(WEB).is_some() && agent.mesh().services().count() == 1);
    setup.plane.push(Push::new(ADDRESS, "first").removed(WEB)).await;
    setup.acknowledged("first").await?;
    ensure!(agent.mesh().workload(WEB).is_none() && agent.mesh().services().count() == 1);
    setup.plane.push(Push::new(ADDRESS, "second").removed(WEB)).await;
    setup.acknowledged("second").await?;
    ensure!(agent.mesh().services().count() == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_named_by_namespace_and_name() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    setup.plane.update(|world| world.set(allow_from("demo", "only", PRINCIPAL)));
    agent.until("the policy", |mesh| mesh.policy("demo/only").is_some()).await?;
    setup.plane.update(|world| {
        world.remove("demo/only");
    });
    agent.until("it to go", |mesh| mesh.policy("demo/only").is_none()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_unchanged_wakes_nobody() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| {
        world.set(workload("demo", "a").at([10, 0, 0, 1]));
        world.set(service("demo", "web").at([10, 96, 0, 1]).port(80, 80));
        world.set(allow_from("demo", "only", PRINCIPAL));
    });
    let agent = setup.synced_agent().await?;
    let (mesh, published) = (agent.mesh(), agent.published());
    setup.plane.resend();
    setup.plane.wait("the second answers", |r| (r.last()?.sent.len() >= 4).then_some(())).await?;
    setup.plane.synced().await?;
    ensure!(agent.published() == published, "published {} times", agent.published());
    ensure!(std::sync::Arc::ptr_eq(&mesh, &agent.mesh()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_wait_for_their_service() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let web = service("demo", "web").at([10, 96, 0, 1]).port(80, 8080);
    setup.plane.update(|world| world.set(workload("demo", "a").at([10, 0, 0, 1]).behind(&web, 80, 8080)));
    agent.until("a staged endpoint", |mesh| mesh.staged().count() == 1).await?;
    ensure!(agent.mesh().services().count() == 0);
    setup.plane.update(|world| world.set(web));
    let joined = |mesh: &mesh::Snapshot| {
        let key = mesh.services().next().map(|service| service.key());
        key.is_some_and(|key| mesh.endpoints(&key).count() == 1) && mesh.staged().count() == 0
    };
    agent.until("the endpoint to serve", joined).await
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workloads_may_share_an_address() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let mut plain = workload("demo", "plain").at([10, 0, 0, 1]);
    plain.tunnel_protocol = 0;
    setup.plane.update(|world| {
        world.set(plain);
        world.set(workload("demo", "tunnel").at([10, 0, 0, 1]));
    });
    let address = mesh::NetworkAddress::new("", [10, 0, 0, 1].into());
    let preferred = |mesh: &mesh::Snapshot| {
        mesh.workload_by_address(&address).is_some_and(|found| *found.uid == *uid("demo", "tunnel"))
    };
    agent.until("the one that speaks HBONE", preferred).await?;
    setup.plane.update(|world| {
        world.remove(&uid("demo", "tunnel"));
    });
    let other = |mesh: &mesh::Snapshot| {
        mesh.workload_by_address(&address).is_some_and(|found| *found.uid == *uid("demo", "plain"))
    };
    agent.until("the other one", other).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_after_one_acked_response_of_each_type() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.admit(Admission::Mute);
    let agent = setup.agent()?;
    setup.plane.wait("a stream", |r| r.last().filter(|s| s.requests.len() == 2).map(|_| ())).await?;
    ensure!(agent.pending().len() == 2, "{:?}", agent.pending());
    setup.plane.push(Push::new(ADDRESS, "addresses")).await;
    setup.acknowledged("addresses").await?;
    agent.until_pending(1).await?;
    // An empty response is one: there may be no policies.
    setup.plane.push(Push::new(AUTHORIZATION, "policies")).await;
    agent.until_pending(0).await?;
    // It stays ready when the control plane goes away.
    let mut setup = setup;
    setup.plane.kill().await;
    setup.plane.restart().await?;
    // Nothing is answered there, so both types would be waited for if they were to be once more.
    setup.stream_after(0).await?;
    ensure!(agent.pending().is_empty(), "{:?}", agent.pending());
    Ok(())
}
