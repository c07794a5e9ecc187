//! What the client asks for, and how it says who it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use control_plane::build::{allow_from, service, uid, workload};
use control_plane::wire::discovery::{ADDRESS, AUTHORIZATION};
use control_plane::{Ending, Push};

use crate::agent::{PRINCIPAL, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn both_types_are_requested_at_once_on_one_stream() -> Result<()> {
    let setup = Setup::new().await?;
    // Nothing is answered, so neither waits for an answer of the other.
    setup.plane.admit(control_plane::Admission::Mute);
    let _agent = setup.agent()?;
    let stream =
        setup.plane.wait("both requests", |r| r.last().filter(|s| s.requests.len() == 2).cloned()).await?;
    let types: Vec<_> = stream.requests.iter().map(|request| request.type_url.as_str()).collect();
    ensure!(types == [ADDRESS, AUTHORIZATION], "{types:?}");
    ensure!(setup.plane.records().streams.len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_subscription_has_empty_lists() -> Result<()> {
    let setup = Setup::new().await?;
    let _agent = setup.agent()?;
    setup.plane.synced().await?;
    let stream = setup.stream()?;
    for request in &stream.requests {
        ensure!(request.subscribe.is_empty() && request.unsubscribe.is_empty(), "{request:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn node_only_in_the_first_request_of_each_type() -> Result<()> {
    let setup = Setup::new().await?;
    let agent = setup.agent()?;
    setup.plane.synced().await?;
    for count in 1..4 {
        let name = format!("w{count}");
        setup.plane.update(|world| {
            world.set(workload("demo", &name));
            world.set(allow_from("demo", &name, PRINCIPAL));
        });
        agent.until("the pod", |mesh| mesh.workload(&uid("demo", &name)).is_some()).await?;
    }
    setup.plane.synced().await?;
    let stream = setup.stream()?;
    for type_url in [ADDRESS, AUTHORIZATION] {
        let nodes: Vec<_> = stream.of(type_url).map(|request| request.node.is_some()).collect();
        ensure!(nodes.len() > 2, "{nodes:?}");
        ensure!(nodes.iter().enumerate().all(|(at, node)| *node == (at == 0)), "{type_url}: {nodes:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_says_what_istiod_reads() -> Result<()> {
    let setup = Setup::new().await?;
    let _agent = setup.agent()?;
    setup.plane.synced().await?;
    let stream = setup.stream()?;
    for request in stream.requests.iter().filter(|request| request.node.is_some()) {
        let node = request.node.as_ref().context("a node")?;
        ensure!(
            node.id == "ztunnel~10.0.0.100~agent-a.istio-system~istio-system.svc.cluster.local",
            "{}",
            node.id
        );
        for (key, value) in [
            ("NAME", "agent-a"),
            ("NAMESPACE", "istio-system"),
            ("INSTANCE_IPS", "10.0.0.100"),
            ("NODE_NAME", "node-a"),
            ("CLUSTER_ID", "Kubernetes"),
        ] {
            ensure!(node.text(key) == Some(value), "{key}: {:?}", node.text(key));
        }
    }
    Ok(())
}

/// `ISTIO_META_*` as text, `ISTIO_METAJSON_*` typed, and neither in place of what the agent says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_says_what_the_user_adds() -> Result<()> {
    use prost_types::value::Kind;
    let setup = Setup::new().await?;
    let _agent = setup.agent_telling(|node| {
        node.add("ENABLE_HBONE", "true")?;
        node.add("NAMESPACE", "elsewhere")?;
        node.add_json("LABELS", r#"{"app": "ztunnel", "level": 3, "parts": [true, null]}"#)
    })?;
    setup.plane.synced().await?;
    let stream = setup.stream()?;
    let node = stream.requests.first().and_then(|request| request.node.clone()).context("a node")?;
    ensure!(node.text("ENABLE_HBONE") == Some("true") && node.text("NAMESPACE") == Some("istio-system"));
    let metadata = node.metadata.context("metadata")?;
    let labels = metadata.fields.get("LABELS").and_then(|value| value.kind.clone());
    let Some(Kind::StructValue(labels)) = labels else { anyhow::bail!("{labels:?}") };
    let label = |name: &str| labels.fields.get(name).and_then(|value| value.kind.clone());
    ensure!(label("app") == Some(Kind::StringValue("ztunnel".to_owned())), "{labels:?}");
    ensure!(label("level") == Some(Kind::NumberValue(3.0)), "{labels:?}");
    let Some(Kind::ListValue(parts)) = label("parts") else { anyhow::bail!("{labels:?}") };
    let parts: Vec<_> = parts.values.into_iter().filter_map(|value| value.kind).collect();
    ensure!(matches!(parts.as_slice(), [Kind::BoolValue(true), Kind::NullValue(_)]), "{parts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_resource_versions_name_all_that_is_held() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| {
        world.set(workload("demo", "a").at([10, 0, 0, 1]));
        world.set(workload("demo", "gone").at([10, 0, 0, 2]));
        world.set(service("demo", "web").at([10, 96, 0, 1]).port(80, 8080));
        world.set(allow_from("demo", "only", PRINCIPAL));
    });
    let agent = setup.synced_agent().await?;
    ensure!(setup.stream()?.requests.iter().all(|request| request.initial_resource_versions.is_empty()));
    // What came later counts, what went does not.
    setup.plane.update(|world| {
        world.remove(&uid("demo", "gone"));
        world.set(workload("demo", "b").at([10, 0, 0, 3]));
    });
    agent.until("the later pod", |mesh| mesh.workload(&uid("demo", "b")).is_some()).await?;
    setup.plane.synced().await?;
    setup.plane.end_connections(Ending::Graceful);
    let stream = setup.stream_after(0).await?;
    let brought = |type_url| -> Result<BTreeMap<String, String>> {
        let first = stream.of(type_url).next().context("a first request")?;
        Ok(first.initial_resource_versions.clone().into_iter().collect())
    };
    let addresses = brought(ADDRESS)?;
    let names: Vec<_> = addresses.keys().map(String::as_str).collect();
    let (a, b) = (uid("demo", "a"), uid("demo", "b"));
    ensure!(names == [a.as_str(), b.as_str(), "demo/web.demo.svc.cluster.local"], "{names:?}");
    ensure!(addresses.values().all(|version| !version.is_empty()), "{addresses:?}");
    ensure!(brought(AUTHORIZATION)? == BTreeMap::from([("demo/only".to_owned(), String::new())]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_name_is_left_out_of_initial_resource_versions() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "good")));
    let mut bad = workload("demo", "bad");
    bad.addresses.push(vec![1, 2, 3, 4, 5]);
    setup.plane.update(|world| world.set(bad));
    let agent = setup.agent()?;
    agent.until("the good one", |mesh| mesh.workload(&uid("demo", "good")).is_some()).await?;
    setup.plane.wait("a refusal", |r| r.last()?.nacks().next().cloned()).await?;
    setup.plane.end_connections(Ending::Graceful);
    let stream = setup.stream_after(0).await?;
    let first = stream.of(ADDRESS).next().context("a first request")?;
    let names: Vec<_> = first.initial_resource_versions.keys().collect();
    ensure!(names == [&uid("demo", "good")], "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_meanwhile_is_gone_after_a_reconnect() -> Result<()> {
    let mut setup = Setup::new().await?;
    setup.plane.update(|world| {
        world.set(workload("demo", "stays"));
        world.set(workload("demo", "goes"));
        world.set(allow_from("demo", "goes", PRINCIPAL));
    });
    let agent = setup.synced_agent().await?;
    setup.plane.kill().await;
    setup.plane.update(|world| {
        world.remove(&uid("demo", "goes"));
        world.remove("demo/goes");
    });
    ensure!(agent.mesh().workload(&uid("demo", "goes")).is_some(), "the last good state stays");
    setup.plane.restart().await?;
    agent
        .until("both to be gone", |mesh| {
            mesh.workload(&uid("demo", "goes")).is_none() && mesh.policy("demo/goes").is_none()
        })
        .await?;
    ensure!(agent.mesh().workload(&uid("demo", "stays")).is_some());
    Ok(())
}

/// istiod reads requests of 4 MiB at most, unless it is told otherwise. A client that brings more never comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_fits_into_what_istiod_reads() -> Result<()> {
    let setup = Setup::new().await?;
    // 16,000 names of 300 bytes and more.
    let long = |number: u32| format!("{number:0>300}");
    setup.plane.update(|world| {
        for number in 0..16_000 {
            world.set(workload("demo", &long(number)));
        }
    });
    let agent = setup.synced_agent().await?;
    setup.plane.end_connections(Ending::Abrupt);
    setup.plane.update(|world| {
        world.remove(&uid("demo", &long(0)));
        world.set(workload("demo", "new"));
    });
    agent.until("the new pod", |mesh| mesh.workload(&uid("demo", "new")).is_some()).await?;
    agent.until("the old one to go", |mesh| mesh.workload(&uid("demo", &long(0))).is_none()).await?;
    ensure!(agent.mesh().workloads().count() == 16_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_sent_may_be_removed() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.update(|world| world.set(workload("demo", "a")));
    let agent = setup.synced_agent().await?;
    setup.plane.push(Push::new(ADDRESS, "n").removed("demo/unknown").removed("nonsense")).await;
    setup.acknowledged("n").await?;
    ensure!(agent.mesh().workload(&uid("demo", "a")).is_some());
    Ok(())
}
