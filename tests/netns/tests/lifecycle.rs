//! Rows X1, X2, X3 and X6 of the truth table, and what else may not be lost or left when pods and agents come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cni::protocol::{Command, MAX_MESSAGE, PodName, Request, Response, VERSION};
use harness::mesh_file::Enroll;
use harness::wait::eventually_ok;
use harness::{Agent, Node, Pod, command, eventually};
use linux::bpf;
use linux::fdpass::Connection;
use linux::netns::Netns;
use netns_tests::kernel::{Held, cookie, descriptors, pins, pins_of, routing};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, metric, until_answered};

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
fn x2_connections_that_are_open_when_the_pod_is_released_live_on() -> Result<()> {
    let mut world = World::new()?;
    // Out through the tunnel and past the mesh, in through the tunnel and in plaintext; in both families.
    let mut open = Vec::new();
    for (from, targets) in [
        (&world.client, at(world.server.addresses(), HTTP)),
        (&world.client, at(world.plain.addresses(), HTTP)),
        (&world.server, at(world.client.addresses(), HTTP)),
        (&world.plain, at(world.client.addresses(), HTTP)),
    ] {
        for target in targets {
            let mut http = from.open_http(target)?;
            http.get("/before")?;
            open.push((format!("{} to {target}", from.name()), http));
        }
    }
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    for round in 0..3 {
        for (what, http) in &mut open {
            http.get("/after").with_context(|| format!("{what}, request {round} after the release"))?;
        }
        // New ones are the pod's own.
        for target in at(world.server.addresses(), HTTP) {
            let mut http = world.client.open_http(target)?;
            let own = http.stream().local_addr()?;
            let reply = http.get("/")?;
            ensure!(reply.peer()?.ip() == own.ip(), "{}", reply.body);
        }
        for target in at(world.client.addresses(), HTTP) {
            let mut http = world.plain.open_http(target)?;
            let own = http.stream().local_addr()?;
            ensure!(http.get("/")?.peer()? == own, "the agent must not stand between any more");
        }
        ensure!(
            routing(&world.client)?.contains("0xc17"),
            "the route goes with the last captured connection"
        );
    }
    drop(open);
    eventually("the pod's rule to go with its last connection", LIMIT, || {
        (!routing(&world.client).ok()?.contains("0xc17")).then_some(())
    })?;
    Ok(())
}

#[test]
fn x6_a_pod_that_is_deleted_while_captured_leaves_nothing() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    for name in ["told", "vanished"] {
        world.mesh.enroll.push(Enroll::by_cni(name, "demo", &n1));
    }
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=4"], LIMIT)?;
    let before = (pins(&n1)?, sorted(descriptors(&world.agent1)?).len());
    for name in ["told", "vanished"] {
        let pod = n1.add_pod(name, "demo")?;
        let held = Held::of(&pod)?;
        ensure!(held.links.len() == 1 && held.maps.len() >= 2, "{held:?}");
        ensure!(pins(&n1)?.len() > before.0.len() && descriptors(&world.agent1)?.len() > before.1);
        let inode = Netns::open(pod.netns())?.id().inode;
        if name == "told" {
            pod.remove()?;
        } else {
            // Without a word to anybody.
            pod.delete_netns()?;
        }
        world.agent1.wait_for_log(&["pod released", &format!("demo/{name}")], LIMIT)?;
        let left = || -> Result<()> {
            let left = held.left()?;
            ensure!(left.is_nothing(), "links and maps: {left:?}");
            let now = (pins(&n1)?, descriptors(&world.agent1)?);
            ensure!(now.0 == before.0, "pins: {:?}", now.0);
            ensure!(!now.1.contains(&format!("net:[{inode}]")), "its namespace is held");
            ensure!(
                now.1.len() <= before.1,
                "{} descriptors, {} before: {:?}",
                now.1.len(),
                before.1,
                sorted(now.1)
            );
            Ok(())
        };
        eventually_ok(&format!("nothing to be left of the pod that was {name}"), LIMIT, left)?;
    }
    ensure!(world.client.get(at(world.server.addresses(), HTTP)[0], "/")?.status == 200);
    Ok(())
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

#[test]
fn what_a_dead_agent_left_of_pods_that_are_gone_is_removed_at_the_start() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let known = cookie(&world.neighbour)?;
    let held = Held::of(&world.neighbour)?;
    world.agent1.kill9()?;
    // With its last process and its last name the namespace goes.
    world.apps.clear();
    world.neighbour.delete_netns()?;
    eventually_ok("the namespace to be gone", LIMIT, || {
        let links = bpf::links()?;
        let left = links.iter().find(|link| held.links.contains(&link.id)).context("its link is pinned")?;
        ensure!(left.target == bpf::Target::Nothing, "{left:?}");
        Ok(())
    })?;
    // Nor is there a record of it.
    std::fs::remove_file(n1.agent_dir().join("pods/demo_neighbour.json"))?;
    ensure!(pins_of(&n1).join(format!("pods/{known:x}")).exists(), "the dead agent's pins");
    world.agent1.restart()?;
    ensure!(!pins_of(&n1).join(format!("pods/{known:x}")).exists());
    eventually_ok("links and maps to be gone", LIMIT, || {
        let left = held.left()?;
        ensure!(left.is_nothing(), "{left:?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn pods_of_another_layout_are_taken_over_without_a_gap() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let tap = world.wire.tap()?;
    let targets: Vec<_> =
        at(world.server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)).collect();
    // A pod that cannot be captured yet keeps the other version's capture, and so itself refused.
    let name = world.neighbour.netns().file_name().context("name")?.to_string_lossy().into_owned();
    world.agent1.kill9()?;
    std::fs::rename(n1.bpffs().join("v1"), n1.bpffs().join("v0"))?;
    let routes = [gateway(&name, "-4")?, gateway(&name, "-6")?];
    command::ip(&format!("-n {name} addr flush dev eth0"))?;
    for target in &targets {
        ensure!(world.client.attempt(*target, "/v0-needle")?.is_refused());
    }
    world.agent1.restart()?;
    for target in &targets {
        ensure!(until_answered(&world.client, *target)?.field("app") == "server");
    }
    let theirs =
        |pod: &Pod| -> Result<bool> { Ok(n1.bpffs().join(format!("v0/pods/{:x}", cookie(pod)?)).exists()) };
    ensure!(!theirs(&world.client)? && theirs(&world.neighbour)?, "{:?}", pins(&n1)?);
    ensure!(n1.bpffs().join("v0/node/connect4").exists(), "the other version's programs went too early");
    let [v4, v6] = world.neighbour.addresses();
    command::ip(&format!("-n {name} addr add {v4}/24 dev eth0"))?;
    command::ip(&format!("-n {name} addr add {v6}/64 dev eth0 nodad"))?;
    for (family, gateway) in ["-4", "-6"].into_iter().zip(routes) {
        command::ip(&format!("-n {name} {family} route replace default via {gateway}"))?;
    }
    world.agent1.wait_for_log(&["another version's capture has no pod left"], Duration::from_secs(60))?;
    ensure!(!n1.bpffs().join("v0").exists(), "{:?}", pins(&n1)?);
    ensure!(world.server.get(at(world.neighbour.addresses(), HTTP)[0], "/")?.status == 200);
    tap.settle()?;
    let leaked = tap.any(|s| s.payload.windows(9).any(|w| w == b"v0-needle"));
    ensure!(!leaked, "payload of a captured pod was on the wire");
    Ok(())
}

#[test]
fn a_pod_with_more_addresses_than_are_captured_is_not_enrolled_in_part() -> Result<()> {
    const MORE: u8 = 70;
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let crowded = n1.add_plain_pod("crowded", "demo")?;
    let name = crowded.netns().file_name().context("name")?.to_string_lossy().into_owned();
    for n in 1..=MORE {
        command::ip(&format!("-n {name} addr add 10.200.0.{n}/32 dev eth0"))?;
    }
    world.mesh.enroll.push(Enroll::running(&crowded));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod not enrolled", "demo/crowded", "capture takes 64"], LIMIT)?;
    for n in 10..=MORE {
        command::ip(&format!("-n {name} addr del 10.200.0.{n}/32 dev eth0"))?;
    }
    world
        .agent1
        .wait_for_log(&["pod enrolled, its capture is verified", "demo/crowded"], Duration::from_secs(60))?;
    Ok(())
}

fn gateway(netns: &str, family: &str) -> Result<String> {
    let route = command::ip(&format!("-n {netns} {family} route show default"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "via");
    Ok(words.nth(1).with_context(|| format!("no gateway in {route:?}"))?.to_owned())
}

/// Enrolments and releases of one pod, one after the other.
const CYCLES: u32 = 1000;
/// More tunnels than the pods beside keep open.
const POOLED: usize = 32;

#[test]
fn a_thousand_cycles_leave_nothing_and_disturb_nobody() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let cycled = n1.add_plain_pod("cycled", "demo")?;
    world.mesh.enroll.push(Enroll::by_cni("cycled", "demo", &n1));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=3"], LIMIT)?;
    let netns = Netns::open(cycled.netns())?;
    let sandbox = cycled.sandbox();
    let ask = |command: Command| -> Result<()> {
        let request = Request {
            version: VERSION,
            command,
            container_id: sandbox.container_id.clone(),
            netns: sandbox.netns.display().to_string(),
            ifname: "eth0".to_owned(),
            pod: Some(PodName { name: "cycled".into(), namespace: "demo".into(), uid: None }),
            ips: cycled.addresses().to_vec(),
            annotations: Default::default(),
            network: String::new(),
            valid: Vec::new(),
        };
        let connection = Connection::connect(&n1.cni_socket(), LIMIT)?;
        connection.send(&request.encode()?, &[netns.as_fd()])?;
        let answer = Response::decode(&connection.recv(MAX_MESSAGE)?.0)?.into_result()?;
        answer.map(drop).map_err(|failure| anyhow::anyhow!("{command:?}: {failure:?}"))
    };
    let settled = |before: &State| {
        eventually_ok("everything of the cycled pod to be gone", LIMIT, || {
            let held = Held::of(&cycled)?;
            ensure!(held.is_nothing(), "{held:?}");
            let now = state(&world.agent1, &n1, &cycled)?;
            ensure!(now.0 == before.0, "pins: {:?}", now.0.symmetric_difference(&before.0));
            ensure!(now.1 == before.1, "{} instead of {}", now.1, before.1);
            // The traffic has left pooled tunnels: one a worker and family.
            let most = |kind: &str, count: usize| if kind == "socket" { count + POOLED } else { count };
            for (kind, count) in now.2 {
                let known = before.2.get(&kind).copied().unwrap_or(0);
                ensure!(count <= most(&kind, known), "{count} descriptors of kind {kind}, {known} before");
            }
            Ok(())
        })
    };
    let before = state(&world.agent1, &n1, &cycled)?;
    let done = AtomicBool::new(false);
    let (asked, took) = std::thread::scope(|scope| -> Result<_> {
        let traffic = scope.spawn(|| {
            let mut asked = 0u32;
            while !done.load(Ordering::Relaxed) {
                for target in at(world.server.addresses(), HTTP) {
                    let attempt = world.neighbour.attempt(target, "/")?;
                    ensure!(attempt.is_ok(), "request {asked} to {target}: {attempt:?}");
                    asked += 1;
                }
                for target in at(world.client.addresses(), HTTP) {
                    let attempt = world.plain.attempt(target, "/")?;
                    ensure!(attempt.is_ok(), "request {asked} to {target}: {attempt:?}");
                    asked += 1;
                }
            }
            Ok(asked)
        });
        let began = Instant::now();
        let cycles = (0..CYCLES).try_for_each(|turn| {
            ask(Command::Add).and_then(|()| ask(Command::Del)).with_context(|| format!("cycle {turn}"))
        });
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        let asked = traffic.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
        cycles.map(|()| (asked, took))
    })?;
    settled(&before)?;
    let mean = |name: &str| -> Result<f64> {
        let sum = metric(&world.agent1, &format!("culvert_{name}_duration_seconds_sum"), &[])?;
        let count = metric(&world.agent1, &format!("culvert_{name}_duration_seconds_count"), &[])?;
        ensure!(count >= f64::from(CYCLES), "{name}: {count}");
        Ok(1000.0 * sum / count)
    };
    println!(
        "{CYCLES} cycles in {took:.1?} beside {asked} requests; enrol {:.2} ms, release {:.2} ms on average",
        mean("enroll")?,
        mean("release")?
    );
    ensure!(asked > 0, "there was no traffic");
    Ok(())
}

/// Pins of a node, routing of a pod, the agent's descriptors: how many of which kind.
type State = (BTreeSet<PathBuf>, String, BTreeMap<String, usize>);

fn state(agent: &Agent, node: &Node, pod: &Pod) -> Result<State> {
    let mut kinds = BTreeMap::new();
    for target in descriptors(agent)? {
        let kind = target.split(":[").next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    Ok((pins(node)?, routing(pod)?, kinds))
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
    // Another version's capture is taken out as well.
    std::fs::rename(pins.join("v1"), pins.join("v2"))?;
    ensure!(world.client.attempt(target, "/")?.is_refused());
    let mut detach = std::process::Command::new(program);
    command::run(detach.arg("detach").arg("--run-dir").arg(dir).arg("--bpffs").arg(&pins))?;
    ensure!(!pins.exists());
    let reply = eventually("the pod to be on its own", Duration::from_secs(5), || {
        world.client.get(target, "/").ok()
    })?;
    ensure!(reply.field("app") == "server");
    Ok(())
}
