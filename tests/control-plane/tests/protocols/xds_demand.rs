//! Asking for resources one at a time, with what istiod's answers leave out.

use anyhow::{Context as _, Result, ensure};
use control_plane::build::{allow_from, service, uid, workload};
use control_plane::wire::discovery::{ADDRESS, AUTHORIZATION};
use control_plane::{Admission, Ending};
use tonic::Code;

use crate::agent::{PRINCIPAL, Setup, by_address, by_hostname, until};

const WEB: &str = "web.demo.svc.cluster.local";

async fn setup() -> Result<Setup> {
    let setup = Setup::new().await?;
    let web = service("demo", "web").at([10, 96, 0, 1]).port(80, 8080);
    setup.plane.update(|world| {
        world.set(
            workload("demo", "a").at([10, 0, 0, 1]).at([0xfd00, 0, 0, 0, 0, 0, 0, 1]).behind(&web, 80, 8080),
        );
        world.set(workload("demo", "elsewhere").at([10, 0, 0, 7]).on("node-b"));
        world.set(workload("demo", "mine").at([10, 0, 0, 9]).on("node-a"));
        world.set(web.clone());
        world.set(allow_from("demo", "only", PRINCIPAL));
    });
    Ok(setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_starts_with_a_star_in_both_lists_and_takes_all_policies() -> Result<()> {
    let setup = setup().await?;
    let agent = setup.on_demand()?;
    setup.plane.synced().await?;
    let stream = setup.stream()?;
    let first = stream.of(ADDRESS).next().context("a first request")?;
    ensure!(first.subscribe == ["*"] && first.unsubscribe == ["*"], "{first:?}");
    let policies = stream.of(AUTHORIZATION).next().context("a first request")?;
    ensure!(policies.subscribe.is_empty() && policies.unsubscribe.is_empty(), "{policies:?}");
    agent.until("all policies", |mesh| mesh.policy("demo/only").is_some()).await?;
    // Workloads of this node come without being asked for; no others do.
    agent.until("this node's pod", |mesh| mesh.workload(&uid("demo", "mine")).is_some()).await?;
    ensure!(agent.mesh().workloads().count() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_on_demand_without_a_response_for_addresses() -> Result<()> {
    let setup = setup().await?;
    setup.plane.admit(Admission::Mute);
    let agent = setup.on_demand()?;
    setup.plane.wait("a stream", |r| r.last().filter(|s| s.requests.len() == 2).map(|_| ())).await?;
    ensure!(agent.pending().len() == 1, "{:?}", agent.pending());
    setup.plane.push(control_plane::Push::new(AUTHORIZATION, "policies")).await;
    agent.until_pending(0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_wake_who_waits_for_an_ip() -> Result<()> {
    let setup = setup().await?;
    let agent = setup.on_demand()?;
    for address in ["10.0.0.1", "fd00::1"] {
        ensure!(agent.demand(&by_address(address)?).await, "{address}");
        ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    }
    let asked = setup.stream()?.of(ADDRESS).any(|request| request.subscribe == ["/10.0.0.1"]);
    ensure!(asked, "{:?}", setup.stream()?.requests);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vip_or_a_host_name_brings_the_service_and_its_endpoints() -> Result<()> {
    for key in [by_address("10.96.0.1")?, by_hostname("demo", WEB)] {
        let setup = setup().await?;
        let agent = setup.on_demand()?;
        ensure!(agent.demand(&key).await);
        let mesh = agent.mesh();
        let service = mesh.services().next().context("the service")?;
        ensure!(mesh.endpoints(&service.key()).count() == 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_answered_and_asked_again_on_a_later_stream() -> Result<()> {
    let setup = setup().await?;
    let agent = setup.on_demand()?;
    let key = by_address("203.0.113.1")?;
    // That nobody has it is an answer, too.
    ensure!(agent.demand(&key).await);
    // It appears; istiod does not say so on this stream, and a fresh one has to tell.
    setup.plane.update(|world| world.set(workload("demo", "late").at([203, 0, 113, 1])));
    setup.plane.end_connections(Ending::Graceful);
    setup.stream_after(0).await?;
    setup.plane.synced().await?;
    ensure!(agent.demand(&key).await);
    agent.until("the late one", |mesh| mesh.workload(&uid("demo", "late")).is_some()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_never_unsubscribes() -> Result<()> {
    let setup = setup().await?;
    let agent = setup.on_demand()?;
    for key in [by_address("10.0.0.1")?, by_address("203.0.113.1")?, by_hostname("demo", WEB)] {
        ensure!(agent.demand(&key).await);
    }
    setup.plane.update(|world| {
        world.remove(&uid("demo", "a"));
    });
    agent.until("it to go", |mesh| mesh.workload(&uid("demo", "a")).is_none()).await?;
    setup.plane.synced().await?;
    let stream = setup.stream()?;
    ensure!(stream.of(ADDRESS).skip(1).all(|request| request.unsubscribe.is_empty()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_that_many_wait_for_is_asked_for_once() -> Result<()> {
    let setup = setup().await?;
    let agent = setup.on_demand()?;
    setup.plane.synced().await?;
    let key = by_address("10.0.0.7")?;
    let all = (0..20).map(|_| agent.demand(&key));
    for found in futures_util::future::join_all(all).await {
        ensure!(found);
    }
    let stream = setup.stream()?;
    let asked = stream.of(ADDRESS).filter(|request| request.subscribe.contains(&"/10.0.0.7".to_owned()));
    ensure!(asked.count() == 1, "{:?}", stream.requests);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_is_brought_with_an_empty_version() -> Result<()> {
    let setup = setup().await?;
    let agent = setup.on_demand()?;
    ensure!(agent.demand(&by_address("10.0.0.1")?).await);
    setup.plane.mute_streams().await;
    let pending = by_address("10.0.0.7")?;
    let waits = agent.demand(&pending);
    let ends = async {
        let asked = |r: &control_plane::records::Records| {
            let mut requests = r.last()?.of(ADDRESS);
            requests.find(|request| request.subscribe == ["/10.0.0.7"]).map(|_| ())
        };
        setup.plane.wait("the question", asked).await?;
        setup.plane.end_streams(Code::Unavailable, "max_age").await;
        let stream = setup.stream_after(0).await?;
        let first = stream.of(ADDRESS).next().context("a first request")?.clone();
        anyhow::Ok(first)
    };
    let (found, first) = tokio::join!(waits, ends);
    let first = first?;
    ensure!(found, "the waiter is woken by the answer on the next stream");
    let versions = &first.initial_resource_versions;
    ensure!(versions.get("/10.0.0.7").is_some_and(String::is_empty), "{versions:?}");
    ensure!(versions.get(&uid("demo", "a")).is_some_and(|version| !version.is_empty()), "{versions:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_control_plane_that_is_away_waits_in_vain_but_not_for_ever() -> Result<()> {
    let mut setup = setup().await?;
    let agent = setup.on_demand()?;
    setup.plane.synced().await?;
    setup.plane.kill().await;
    ensure!(!agent.demand(&by_address("10.0.0.1")?).await);
    setup.plane.restart().await?;
    let found = async || {
        ensure!(agent.demand(&by_address("10.0.0.1")?).await);
        Ok(())
    };
    until("an answer", found).await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    Ok(())
}
