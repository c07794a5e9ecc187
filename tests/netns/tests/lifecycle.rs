//! Rows X1 and X3 of the truth table, and what else may not be lost or left when pods and agents come and go.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::Enroll;
use harness::{command, eventually};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, until_answered};

#[test]
fn x1_a_connection_that_is_open_when_the_pod_is_enrolled_lives_on() -> Result<()> {
    let bare = Bare::new()?;
    let mut open = Vec::new();
    for target in at(bare.server.addresses(), HTTP) {
        let mut http = bare.client.open_http(target)?;
        http.get("/before")?;
        open.push((target, http));
    }
    let world = bare.enrol()?;
    for (target, http) in &mut open {
        for _ in 0..3 {
            let own = http.stream().local_addr()?;
            let reply = http.get("/after").with_context(|| format!("the old connection to {target}"))?;
            ensure!(reply.peer()? == own, "the old connection must go on as it was: {}", reply.body);
        }
        let new = world.client.open_http(*target)?.get("/")?;
        ensure!(new.field("app") == "server");
    }
    world.agent2.wait_for_log(&["sa/client", "sa/server", "inbound"], LIMIT)?;
    Ok(())
}

#[test]
fn x3_a_killed_agent_leaks_nothing_and_the_next_one_takes_over() -> Result<()> {
    let mut world = World::new()?;
    let tap = world.wire.tap()?;
    let targets: Vec<_> =
        at(world.server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)).collect();
    let before = leftovers(&world)?;
    let mut open = world.client.open_http(targets[0])?;
    open.get("/x3-needle")?;

    world.agent1.kill9()?;
    open.wait_until_cut(LIMIT)?;
    for target in &targets {
        let attempt = world.client.attempt(*target, "/x3-needle")?;
        ensure!(attempt.is_refused(), "{target} with the client's agent dead: {attempt:?}");
    }
    // To a pod of the dead agent: refused as well, from in and out of the mesh.
    for target in at(world.neighbour.addresses(), HTTP) {
        for from in [&world.server, &world.plain] {
            let attempt = from.attempt(target, "/x3-needle")?;
            ensure!(
                attempt.is_refused(),
                "{} to {target} with the pod's agent dead: {attempt:?}",
                from.name()
            );
        }
    }
    // The server's agent is alive, and everything the dead one's pods sent was in the tunnel.
    tap.settle()?;
    let leaked = tap.any(|s| {
        s.payload.windows(9).any(|w| w == b"x3-needle")
            && s.source.ip() == std::net::IpAddr::from(world.client.ipv4())
    });
    ensure!(!leaked, "payload of a captured pod was on the wire");

    world.agent1.restart()?;
    for target in &targets {
        ensure!(until_answered(&world.client, *target)?.field("app") == "server");
    }
    ensure!(leftovers(&world)? == before, "before: {before:?}, after: {:?}", leftovers(&world)?);
    Ok(())
}

/// What capture keeps on the node: pins and rules.
fn leftovers(world: &World) -> Result<(Vec<String>, Vec<String>)> {
    let mut pins = Vec::new();
    let mut open = vec![world.nodes[0].bpffs()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path.clone());
            }
            pins.push(path.display().to_string());
        }
    }
    pins.sort();
    let mut rules = Vec::new();
    for pod in [&world.client, &world.neighbour] {
        let name = pod.netns().file_name().context("name")?.to_string_lossy().into_owned();
        for family in ["-4", "-6"] {
            rules.push(command::ip(&format!("-n {name} {family} rule"))?);
            rules.push(command::ip(&format!("-n {name} {family} route show table all"))?);
        }
    }
    Ok((pins, rules))
}

#[test]
fn a_released_pod_talks_plainly_again_and_its_open_connections_live_on() -> Result<()> {
    let mut world = World::new()?;
    let [v4, v6] = at(world.server.addresses(), HTTP);
    let mut open = world.client.open_http(v4)?;
    open.get("/")?;
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    for target in [v4, v6] {
        let mut http = world.client.open_http(target)?;
        let own = http.stream().local_addr()?;
        let reply = http.get("/")?;
        ensure!(reply.peer()?.ip() == own.ip(), "{}", reply.body);
    }
    open.get("/").context("the captured connection must live on after the release")?;
    drop(open);
    let name = world.client.netns().file_name().context("name")?.to_string_lossy().into_owned();
    eventually("the pod's rule to go with its last connection", LIMIT, || {
        let rules = command::ip(&format!("-n {name} rule")).ok()?;
        (!rules.contains("0xc17")).then_some(())
    })?;
    Ok(())
}

#[test]
fn a_pod_that_the_plugin_brings_is_captured_when_it_starts() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    world.mesh.enroll.push(Enroll::by_cni("late", "demo", &n1));
    // Its workload is known by name only after it has addresses: the third pod of its node.
    let (v4, v6) = n1.pod_addresses(3);
    world.mesh.workloads.push(harness::mesh_file::Workload::hbone(
        "late",
        "demo",
        &n1,
        &[v4.into(), v6.into()],
    ));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=3"], LIMIT)?;
    let late = n1.add_pod("late", "demo")?;
    ensure!(late.addresses() == [std::net::IpAddr::from(v4), v6.into()], "host-local gave other addresses");
    let reply = late.get(at(world.server.addresses(), HTTP)[0], "/")?;
    ensure!(reply.peer()?.ip() == late.ipv4(), "{}", reply.body);
    world.agent2.wait_for_log(&["sa/late", "inbound"], LIMIT)?;
    late.check()?;
    // The plugin's pods are remembered by the next agent.
    world.agent1.kill9()?;
    world.agent1.restart()?;
    until_answered(&late, at(world.server.addresses(), HTTP)[1])?;
    late.remove()?;
    world.agent1.wait_for_log(&["pod released", "demo/late"], LIMIT)?;
    // A pod outside of the mesh is none of the plugin's business.
    let other = n1.add_pod("other", "demo")?;
    ensure!(other.get(at(world.plain.addresses(), HTTP)[0], "/")?.field("app") == "plain");
    other.remove()?;
    Ok(())
}

#[test]
fn a_pod_whose_namespace_vanished_leaves_nothing() -> Result<()> {
    let world = World::new()?;
    let pods = world.nodes[0].bpffs().join("v1/pods");
    ensure!(std::fs::read_dir(&pods)?.count() == 2);
    world.neighbour.delete_netns()?;
    world.agent1.wait_for_log(&["pod released", "demo/neighbour"], LIMIT)?;
    ensure!(std::fs::read_dir(&pods)?.count() == 1);
    ensure!(world.client.get(at(world.server.addresses(), HTTP)[0], "/")?.status == 200);
    Ok(())
}

#[test]
fn without_an_agent_an_ambient_pod_does_not_start() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    world.agent1.kill9()?;
    let error = n1.add_pod("orphan", "demo").err().context("ADD must fail without an agent")?.to_string();
    ensure!(error.contains("agent"), "{error}");
    Ok(())
}

#[test]
fn policy_is_applied_to_new_and_to_live_connections_and_lifted_again() -> Result<()> {
    let mut world = World::new()?;
    let [v4, v6] = at(world.server.addresses(), HTTP);
    let mut denied = world.client.open_http(v4)?;
    let mut spared = world.neighbour.open_http(v4)?;
    denied.get("/")?;
    spared.get("/")?;
    world.mesh.deny("no-client", "demo", "client");
    world.write_mesh()?;
    denied.wait_until_cut(LIMIT)?;
    for target in [v4, v6] {
        let attempt = world.client.attempt(target, "/")?;
        ensure!(attempt.is_refused(), "{attempt:?}");
        ensure!(world.neighbour.get(target, "/")?.status == 200);
    }
    spared.get("/").context("a connection that the policy does not mean must live on")?;
    world.agent2.wait_for_log(&["connection closed due to policy change", "sa/client"], LIMIT)?;
    world.agent2.wait_for_log(
        &["connection closed due to policy rejection: explicitly denied by: demo/no-client"],
        LIMIT,
    )?;
    world.agent1.wait_for_log(&["http status: 401 Unauthorized", "sa/client"], LIMIT)?;
    world.mesh.policies.clear();
    world.write_mesh()?;
    until_answered(&world.client, v4)?;
    until_answered(&world.client, v6)?;
    Ok(())
}

#[test]
fn stopping_is_not_releasing_and_detaching_is() -> Result<()> {
    let mut world = World::new()?;
    let target = at(world.server.addresses(), HTTP)[0];
    ensure!(world.agent1.stop()?.success());
    ensure!(world.client.attempt(target, "/")?.is_refused());
    let words = world.agent1.command_line()?;
    let (program, _) = words.split_first().context("program")?;
    let (dir, pins) = (world.nodes[0].agent_dir(), world.nodes[0].bpffs());
    let mut detach = std::process::Command::new(program);
    command::run(detach.arg("detach").arg("--run-dir").arg(dir).arg("--bpffs").arg(&pins))?;
    ensure!(!pins.exists());
    let reply = eventually("the pod to be on its own", Duration::from_secs(5), || {
        world.client.get(target, "/").ok()
    })?;
    ensure!(reply.field("app") == "server");
    Ok(())
}
