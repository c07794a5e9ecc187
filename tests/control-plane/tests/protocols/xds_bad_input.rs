//! What no client may take: each is refused with its name and the reason, and changes nothing else.

use anyhow::{Context as _, Result, ensure};
use control_plane::build::{allow_from, service, uid, workload};
use control_plane::wire::discovery::{self, ADDRESS, AUTHORIZATION};
use control_plane::wire::security::{Authorization, Cidr, Clause, Match, Rule};
use control_plane::wire::workload::{Extension, NetworkAddress};
use control_plane::{Push, Resource};
use prost_types::Any;

use crate::agent::{PRINCIPAL, Setup};

/// Sends one bad resource beside a good one: the answer is a NACK with the name, and the good one is taken.
async fn refused(type_url: &'static str, name: &str, bad: impl Into<Resource>) -> Result<String> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let push = Push::new(type_url, "bad").resource(bad);
    let push = match type_url {
        AUTHORIZATION => push.resource(allow_from("demo", "good", PRINCIPAL)),
        _ => push.resource(workload("demo", "good")),
    };
    setup.plane.push(push).await;
    let nack = setup.plane.wait("a NACK", |r| r.last()?.nacks().next().cloned()).await?;
    ensure!(nack.response_nonce == "bad" && nack.type_url == type_url, "{nack:?}");
    let message = nack.error_detail.context("an error")?.message;
    ensure!(message.contains(name), "{name} is not in {message:?}");
    let mesh = agent.mesh();
    ensure!(mesh.workloads().count() + mesh.policies().count() == 1 && mesh.services().count() == 0);
    Ok(message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_does_not_decode() -> Result<()> {
    refused(ADDRESS, "demo/garbage", Resource::raw(ADDRESS, "demo/garbage", vec![0xff; 40])).await?;
    refused(AUTHORIZATION, "demo/garbage", Resource::raw(AUTHORIZATION, "demo/garbage", vec![0xff; 40]))
        .await?;
    // Neither a workload nor a service.
    refused(ADDRESS, "demo/empty", Resource::raw(ADDRESS, "demo/empty", Vec::new())).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_5_bytes() -> Result<()> {
    let mut bad = workload("demo", "bad");
    bad.addresses.push(vec![10, 0, 0, 1, 9]);
    refused(ADDRESS, &uid("demo", "bad"), bad).await?;
    let mut bad = service("demo", "bad");
    bad.addresses.push(NetworkAddress { network: String::new(), address: vec![1; 5], length: None });
    refused(ADDRESS, "demo/bad.demo.svc.cluster.local", bad).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_istio_mtls_and_unknown_protocols() -> Result<()> {
    for protocol in [2, 99, -1] {
        let mut bad = workload("demo", "bad");
        bad.tunnel_protocol = protocol;
        refused(ADDRESS, &uid("demo", "bad"), bad).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_a_bad_cidr_or_an_unknown_action() -> Result<()> {
    let with = |matches: Match| Authorization {
        rules: vec![Rule { clauses: vec![Clause { matches: vec![matches] }] }],
        ..allow_from("demo", "bad", PRINCIPAL)
    };
    let cidr =
        |address: Vec<u8>, length| Match { source_ips: vec![Cidr { address, length }], ..Match::default() };
    refused(AUTHORIZATION, "demo/bad", with(cidr(vec![10, 0, 0, 0], 33))).await?;
    refused(AUTHORIZATION, "demo/bad", with(cidr(vec![10, 0, 0, 0, 0], 8))).await?;
    refused(AUTHORIZATION, "demo/bad", Authorization { action: 7, ..allow_from("demo", "bad", PRINCIPAL) })
        .await?;
    refused(AUTHORIZATION, "demo/bad", Authorization { scope: 7, ..allow_from("demo", "bad", PRINCIPAL) })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_is_not_understood_does_not_make_a_policy_weaker() -> Result<()> {
    for action in [0, 1] {
        let setup = Setup::new().await?;
        let agent = setup.synced_agent().await?;
        let extension = Extension { name: "unknown".to_owned(), config: Some(Any::default()) };
        let matches = Match { extensions: vec![extension], ..Match::default() };
        let rules = vec![Rule { clauses: vec![Clause { matches: vec![matches] }] }];
        let policy = Authorization { action, rules, ..allow_from("demo", "odd", PRINCIPAL) };
        setup.plane.push(Push::new(AUTHORIZATION, "odd").resource(policy)).await;
        setup.plane.push(Push::new(ADDRESS, "pod").resource(workload("demo", "a").at([10, 0, 0, 1]))).await;
        agent.until("the pod", |mesh| mesh.workload(&uid("demo", "a")).is_some()).await?;
        agent.until("the policy", |mesh| mesh.policy("demo/odd").is_some()).await?;
        // An ALLOW lets nobody in by it, a DENY keeps everybody out.
        let mesh = agent.mesh();
        let pod = mesh.workload(&uid("demo", "a")).context("the pod")?;
        let client = crate::identities::of("client");
        let connection = mesh::Connection {
            source_identity: Some(&client),
            source_ip: [10, 0, 0, 2].into(),
            destination: ([10, 0, 0, 1], 80).into(),
        };
        let judged = mesh::authorize(&mesh, pod, &connection);
        ensure!(judged.verdict != mesh::Verdict::Allow, "action {action}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_type_than_the_responses() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let body = Any { type_url: AUTHORIZATION.to_owned(), value: Vec::new() };
    let name = uid("demo", "masked");
    let wrong = discovery::Resource { name: name.clone(), resource: Some(body), ..Default::default() };
    let none = discovery::Resource { name: uid("demo", "hollow"), ..Default::default() };
    setup.plane.push(Push::new(ADDRESS, "wrong").wire(&wrong).wire(&none)).await;
    let nack = setup.plane.wait("a NACK", |r| r.last()?.nacks().next().cloned()).await?;
    let message = nack.error_detail.context("an error")?.message;
    ensure!(message.contains(&name), "{message}");
    ensure!(agent.mesh().workloads().count() == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_does_not_decode_ends_the_stream_and_nothing_else() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a")));
    let agent = setup.synced_agent().await?;
    // Bytes in place of a resource make the whole response unreadable.
    setup.plane.push(Push::new(ADDRESS, "broken").bytes(vec![0xff; 20])).await;
    setup.stream_after(0).await?;
    setup.plane.synced().await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_visibility_is_public() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.synced_agent().await?;
    let mut odd = service("demo", "odd").at([10, 96, 0, 1]).port(80, 80);
    odd.visibility = 77;
    setup.plane.update(|world| world.set(odd));
    agent.until("the service", |mesh| mesh.services().any(|service| service.visible_to("elsewhere"))).await?;
    ensure!(setup.stream()?.nacks().next().is_none());
    Ok(())
}
