//! Spans of connections, as a real collector gets them by gRPC from two agents; and what becomes of connections when it hangs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use harness::eventually;
use netns_tests::collector::{Collected, Collector};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, metric};

/// Long enough for an agent that has rested from a collector that was away.
const COMES_BACK: Duration = Duration::from_secs(60);
const CLIENT: i32 = 3;
const SERVER: i32 = 2;
const ERROR: i32 = 2;

/// The span of a kind that fits.
fn find(collector: &Collector, kind: i32, fits: impl Fn(&Collected) -> bool) -> Option<Collected> {
    collector.spans().into_iter().find(|collected| collected.span.kind == kind && fits(collected))
}

/// A request to the service that is answered.
fn ask(world: &World) -> Result<()> {
    let target = *at(ips(WEB), SERVICE).first().context("two families")?;
    let attempt = world.client.attempt(target, "/")?;
    ensure!(matches!(&attempt, harness::Attempt::Answered(reply) if reply.status == 200), "{attempt:?}");
    Ok(())
}

#[test]
fn both_spans_of_a_connection_arrive_in_one_trace() -> Result<()> {
    let bare = Bare::new()?;
    let collector = Collector::start(&bare.outside)?;
    let arguments = [
        collector.argument(),
        "--otlp-headers=authorization=Bearer%20abc".into(),
        "--otel-service-name=mesh".into(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let world = bare.enrol_with(&arguments)?;
    ask(&world)?;
    let is_web = |collected: &Collected| {
        collected.says("dst.service").as_deref() == Some("web.demo.svc.cluster.local")
    };
    let find = |kind| eventually("a span", LIMIT, || find(&collector, kind, is_web));
    let (client, server) = (find(CLIENT)?, find(SERVER)?);
    ensure!(client.span.trace_id.len() == 16 && client.span.trace_id == server.span.trace_id);
    ensure!(client.span.parent_span_id.is_empty(), "the trace begins at the source");
    ensure!(client.span.span_id.len() == 8 && server.span.parent_span_id == client.span.span_id);
    ensure!(server.span.span_id != client.span.span_id);
    let [of_client, of_server] =
        ["client", "server"].map(|account| format!("spiffe://cluster.local/ns/demo/sa/{account}"));
    for (collected, node, direction) in [(&client, "n1", "outbound"), (&server, "n2", "inbound")] {
        let span = &collected.span;
        ensure!(0 < span.start_time_unix_nano && span.start_time_unix_nano <= span.end_time_unix_nano);
        ensure!(collected.authorization.as_deref() == Some("Bearer abc"), "{:?}", collected.authorization);
        ensure!(collected.sender("service.name").as_deref() == Some("mesh"));
        ensure!(collected.sender("k8s.node.name").as_deref() == Some(node), "{:?}", collected.resource);
        for (name, value) in [
            ("direction", direction),
            ("network.transport", "tcp"),
            ("transport", "hbone"),
            ("src.workload", "client"),
            ("src.identity", of_client.as_str()),
            ("dst.workload", "server"),
            ("dst.identity", of_server.as_str()),
            ("server.address", "web.demo.svc.cluster.local"),
            ("destination.port", "15008"),
            ("response_flags", "-"),
        ] {
            ensure!(collected.says(name).as_deref() == Some(value), "{name}: {:?}", span.attributes);
        }
    }
    // What was sent on one node was received on the other.
    let sent = client.says("bytes_sent").context("bytes")?;
    ensure!(sent != "0" && Some(&sent) == server.says("bytes_recv").as_ref());
    ensure!(client.says("bytes_recv") == server.says("bytes_sent"));
    let secret = [&world.agent1, &world.agent2].iter().any(|agent| agent.log().contains("abc"));
    ensure!(!secret, "a header is in the log");
    Ok(())
}

#[test]
fn a_denied_connection_is_an_error_and_what_is_not_sampled_has_no_span() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.mesh.deny("no-client", "demo", "client");
    let collector = Collector::start(&bare.outside)?;
    let endpoint = collector.argument();
    // The source decides; the destination follows it, whatever share it would take itself.
    let world = bare.enrol_each([&[&endpoint], &[&endpoint, "--traces-sampler=parentbased_always_off"]])?;
    let targets = at(ips(WEB), SERVICE);
    let target = *targets.first().context("two families")?;
    ensure!(world.client.attempt(target, "/")?.is_refused());
    let failed = |kind| eventually("a span", LIMIT, || find(&collector, kind, |one| one.span.kind == kind));
    let (client, server) = (failed(CLIENT)?, failed(SERVER)?);
    ensure!(client.span.trace_id == server.span.trace_id);
    let (status, of_client) = (server.span.status.clone().context("status")?, client.span.status.clone());
    ensure!(status.code == ERROR && status.message.contains("demo/no-client"), "{status:?}");
    ensure!(of_client.is_some_and(|status| status.code == ERROR && status.message.contains("401")));
    ensure!(server.says("error.type").as_deref() == Some("DENY"));
    // In plaintext nothing is carried in: the destination decides itself, and takes none. A span that comes later shows it.
    let plain = at(world.server.addresses(), HTTP);
    let reply = world.plain.attempt(*plain.first().context("two families")?, "/")?;
    ensure!(matches!(reply, harness::Attempt::Answered(_)), "{reply:?}");
    let line = format!("src.addr={}:", world.plain.addresses().first().context("two families")?);
    world.agent2.wait_for_log(&["connection complete", &line], LIMIT)?;
    ensure!(world.client.attempt(target, "/")?.is_refused());
    let servers = || collector.spans().iter().filter(|one| one.span.kind == SERVER).count();
    eventually("another span", LIMIT, || (servers() >= 2).then_some(()))?;
    let [source, _] = world.plain.addresses();
    let of_plain = |one: &Collected| one.says("source.address") == Some(source.to_string());
    ensure!(!collector.spans().iter().any(of_plain), "{:?}", collector.spans());
    Ok(())
}

#[test]
fn a_collector_that_hangs_costs_spans_and_no_connections_and_gets_them_again_when_it_is_back() -> Result<()> {
    let bare = Bare::new()?;
    let mut collector = Collector::start(&bare.outside)?;
    collector.fall_silent();
    let endpoint = collector.argument();
    let world = bare.enrol_with(&[&endpoint, "--otlp-queue=4"])?;
    ask(&world)?;
    eventually("both agents to wait for an answer", LIMIT, || (collector.unanswered() >= 2).then_some(()))?;
    for _ in 0..20 {
        ask(&world)?;
    }
    for agent in [&world.agent1, &world.agent2] {
        let dropped = || metric(agent, "culvert_spans_dropped_total", &[("reason", "queue_full")]);
        eventually("spans to be dropped", LIMIT, || dropped().ok().filter(|count| *count >= 1.0))?;
        ensure!(metric(agent, "culvert_spans_exported_total", &[])? == 0.0);
        agent.wait_for_log(&["spans are not exported", "no answer within"], COMES_BACK)?;
    }
    collector.stop();
    ask(&world)?;
    collector.resume()?;
    for agent in [&world.agent1, &world.agent2] {
        agent.wait_for_log(&["spans are exported again"], COMES_BACK)?;
        ensure!(agent.log_lines(&["spans are not exported"]).len() == 1, "one warning");
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    ask(&world)?;
    let is_new = |one: &Collected| u128::from(one.span.start_time_unix_nano) >= since;
    for kind in [CLIENT, SERVER] {
        eventually("a new span", LIMIT, || find(&collector, kind, is_new))?;
    }
    Ok(())
}

#[test]
fn the_last_spans_are_sent_when_the_agent_ends() -> Result<()> {
    let bare = Bare::new()?;
    let collector = Collector::start(&bare.outside)?;
    let endpoint = collector.argument();
    let mut world = bare.enrol_with(&[&endpoint])?;
    ask(&world)?;
    world.agent1.wait_for_log(&["connection complete", "outbound"], LIMIT)?;
    ensure!(world.agent1.stop()?.success());
    ensure!(find(&collector, CLIENT, |_| true).is_some(), "{:?}", collector.spans());
    Ok(())
}
