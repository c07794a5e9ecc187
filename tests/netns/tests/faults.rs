//! What must not end a pod's capture: an agent out of descriptors, a proof that fails, a release that is taken back; and what
//! capture puts back when it does end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::Enroll;
use harness::netfilter::add_rules;
use harness::{Agent, Attempt, Pod, WireTap, command, eventually};
use linux::sysctl;
use netns_tests::kernel::{descriptors, routing};
use netns_tests::{Bare, HTTP, LIMIT, World, at, until_answered};

/// How long something is watched that must not change: longer than any period of the agent's watch and retries.
const WHILE: Duration = Duration::from_secs(5);

/// How many descriptors the agent may have.
fn limit_of(agent: &Agent) -> Result<usize> {
    let pid = agent.pid().context("the agent is not running")?;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no limit of open files")
}

/// Sets how many it may have, as far as the hard limit goes.
fn limit(agent: &Agent, descriptors: usize) -> Result<()> {
    let pid = agent.pid().context("the agent is not running")?;
    let words = [format!("--pid={pid}"), format!("--nofile={descriptors}:")];
    command::run(Command::new("prlimit").args(words)).map(drop)
}

/// Did payload of a pod show on the wire?
fn leaked(tap: &WireTap, pod: &Pod, needle: &[u8]) -> Result<bool> {
    tap.settle()?;
    let own = pod.addresses();
    Ok(tap.any(|s| own.contains(&s.source.ip()) && s.payload.windows(needle.len()).any(|w| w == needle)))
}

#[test]
fn an_agent_out_of_descriptors_keeps_its_pods_captured_and_recovers() -> Result<()> {
    let world = World::new()?;
    let tap = world.wire.tap()?;
    let before = routing(&world.client)?;
    let open = descriptors(&world.agent1)?.len();
    let allowed = limit_of(&world.agent1)?;
    // Fewer than are open: the kernel gives none, and takes none away.
    limit(&world.agent1, open / 2)?;
    let began = Instant::now();
    while began.elapsed() < WHILE {
        for target in at(world.server.addresses(), HTTP) {
            let stream = world.client.connect(target, Duration::from_millis(300))?;
            // What the agent cannot accept waits in its listener's queue; it does not go past it.
            if let Ok(mut stream) = stream {
                use std::io::Write as _;
                let _ = stream.write_all(b"GET /descriptor-needle HTTP/1.1\r\nHost: x\r\n\r\n");
            }
        }
    }
    world.agent1.wait_for_log(&["the pod stays captured", "demo/client"], LIMIT)?;
    // It says why nobody is served, and what to do.
    world.agent1.wait_for_log(&["cannot accept", "check the limit of open files"], LIMIT)?;
    ensure!(!leaked(&tap, &world.client, b"descriptor-needle")?, "payload of a captured pod was on the wire");
    ensure!(routing(&world.client)? == before, "{}", routing(&world.client)?);
    ensure!(world.agent1.log_lines(&["pod released"]).is_empty(), "no pod may be released");

    limit(&world.agent1, allowed)?;
    for target in at(world.server.addresses(), HTTP) {
        ensure!(until_answered(&world.client, target)?.field("app") == "server");
    }
    let back =
        || world.agent1.metrics().is_ok_and(|text| text.contains("culvert_pods{state=\"enrolled\"} 2"));
    eventually("both pods to be whole again", LIMIT * 2, || back().then_some(()))
}

#[test]
fn a_pod_that_is_enrolled_again_keeps_its_route_when_an_old_connection_ends() -> Result<()> {
    let mut world = World::new()?;
    let before = routing(&world.client)?;
    let mut open = Vec::new();
    for target in at(world.server.addresses(), HTTP) {
        let mut http = world.client.open_http(target)?;
        http.get("/before")?;
        open.push(http);
    }
    let entry =
        world.mesh.enroll.iter().find(|entry| entry.name == "client").context("the client's entry")?.clone();
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    world.mesh.enroll.push(entry);
    world.write_mesh()?;
    eventually("the pod to be enrolled again", LIMIT, || {
        (world.agent1.log_lines(&["pod enrolled", "demo/client"]).len() == 2).then_some(())
    })?;
    for http in &mut open {
        http.get("/after")?;
    }
    drop(open);
    let began = Instant::now();
    while began.elapsed() < WHILE {
        for target in at(world.server.addresses(), HTTP) {
            let attempt = world.client.attempt(target, "/")?;
            ensure!(attempt.is_ok(), "{attempt:?}");
        }
        ensure!(routing(&world.client)? == before, "{}", routing(&world.client)?);
    }
    // The last release takes it along.
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    eventually("the route to go", LIMIT, || (!routing(&world.client).ok()?.contains("0xc17")).then_some(()))
}

#[test]
fn a_pod_whose_proof_fails_after_a_restart_stays_captured() -> Result<()> {
    let mut world = World::new()?;
    let tap = world.wire.tap()?;
    world.agent1.kill9()?;
    // Somebody's firewall in the pod drops the connection that is to prove it.
    for (v6, probe) in [(false, "192.0.2.1"), (true, "2001:db8::1")] {
        let rules = format!("*filter\n-I INPUT -i lo -d {probe} -j DROP\nCOMMIT\n");
        add_rules(world.client.netns(), v6, &rules)?;
    }
    world.agent1.restart()?;
    world.agent1.wait_for_log(&["demo/client", "did not reach the agent"], LIMIT)?;
    let began = Instant::now();
    while began.elapsed() < WHILE {
        for target in at(world.server.addresses(), HTTP) {
            // Carried by the agent while it tries, refused in between; told at once in any case.
            let attempt = world.client.attempt(target, "/proof-needle")?;
            ensure!(!matches!(attempt, Attempt::TimedOut(_)), "{target}: {attempt:?}");
        }
    }
    ensure!(!leaked(&tap, &world.client, b"proof-needle")?, "payload of a captured pod was on the wire");
    ensure!(routing(&world.client)?.contains("0xc17"), "its route must stay");
    // The other pod of the node is served meanwhile.
    for target in at(world.server.addresses(), HTTP) {
        ensure!(until_answered(&world.neighbour, target)?.field("app") == "server");
    }
    for (v6, probe) in [(false, "192.0.2.1"), (true, "2001:db8::1")] {
        let rules = format!("*filter\n-D INPUT -i lo -d {probe} -j DROP\nCOMMIT\n");
        add_rules(world.client.netns(), v6, &rules)?;
    }
    for target in at(world.server.addresses(), HTTP) {
        let what = format!("{target} to answer once the proof gets through");
        eventually(&what, Duration::from_secs(90), || {
            world.client.attempt(target, "/").is_ok_and(|attempt| attempt.is_ok()).then_some(())
        })?;
    }
    Ok(())
}

/// The settings that capture switches on.
const SYSCTLS: [&str; 3] =
    ["net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"];

fn settings(pod: &Pod) -> Result<Vec<String>> {
    pod.inside(|| SYSCTLS.iter().map(|name| Ok(sysctl::get(name)?)).collect())?
}

#[test]
fn detaching_switches_off_what_capture_has_switched_on_and_nothing_else() -> Result<()> {
    let bare = Bare::new()?;
    // The neighbour's owner has it on already.
    bare.neighbour.inside(|| sysctl::set("net.ipv4.fwmark_reflect", "1"))??;
    let before = (settings(&bare.client)?, settings(&bare.neighbour)?);
    ensure!(before.0 == ["0", "0", "0"] && before.1 == ["0", "1", "0"], "{before:?}");
    let mut world = bare.enrol()?;
    for pod in [&world.client, &world.neighbour] {
        ensure!(settings(pod)? == ["1", "1", "1"], "{}: {:?}", pod.name(), settings(pod)?);
    }
    // What a second agent finds switched on is capture's all the same.
    world.agent1.kill9()?;
    world.agent1.restart()?;
    world.agent1.stop()?;
    let (dir, bpffs) = (world.nodes[0].agent_dir(), world.nodes[0].bpffs());
    let culvert = harness::node::binary("CULVERT_BIN", "culvert")?;
    let mut detach = command::in_netns(world.nodes[0].netns(), &culvert);
    command::run(detach.arg("detach").arg("--run-dir").arg(dir).arg("--bpffs").arg(bpffs))?;
    ensure!(settings(&world.client)? == before.0, "{:?}", settings(&world.client)?);
    ensure!(settings(&world.neighbour)? == before.1, "{:?}", settings(&world.neighbour)?);
    Ok(())
}

/// The ports on which something listens on the loopback address, and only there.
fn loopback_listeners(pod: &Pod) -> Result<Vec<u16>> {
    let table = pod.inside(|| std::fs::read_to_string("/proc/thread-self/net/tcp6"))??;
    // `sl local_address rem_address st`; 127.0.0.1 mapped into IPv6, 0A is LISTEN.
    let port = |line: &str| -> Option<u16> {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let port = local.strip_prefix("0000000000000000FFFF00000100007F:").filter(|_| state == "0A")?;
        u16::from_str_radix(port, 16).ok()
    };
    Ok(table.lines().filter_map(port).collect())
}

#[test]
fn a_process_that_calls_the_agents_own_listeners_gets_nothing_from_them() -> Result<()> {
    let world = World::new()?;
    let ports = loopback_listeners(&world.client)?;
    ensure!(ports.len() == 3, "outbound, HBONE and plaintext: {ports:?}");
    let refused = || metric_of(&world.agent1, "listener");
    let before = refused()?;
    for round in 0..3 {
        for port in &ports {
            let to = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), *port);
            let attempt = world.client.attempt(to, "/to-the-listener")?;
            ensure!(attempt.is_refused(), "round {round}, port {port}: {attempt:?}");
            // By the pod's own address it is not there at all.
            for own in at(world.client.addresses(), *port) {
                ensure!(world.client.attempt(own, "/")?.is_refused(), "{own}");
            }
        }
    }
    ensure!(refused()? - before >= 6.0, "outbound and plaintext turn each of three away: {}", refused()?);
    for target in at(world.server.addresses(), HTTP) {
        ensure!(world.client.get(target, "/")?.field("app") == "server");
    }
    world.agent1.get(15021, "/healthz/ready")?;
    Ok(())
}

fn metric_of(agent: &Agent, reason: &str) -> Result<f64> {
    netns_tests::metric(agent, "culvert_connections_refused_total", &[("reason", reason)])
}

#[test]
fn entries_that_come_and_go_quickly_leave_the_last_word_standing() -> Result<()> {
    let mut world = World::new()?;
    let entry = Enroll::running(&world.neighbour);
    for turn in 0..6 {
        world.mesh.enroll.retain(|entry| entry.name != "neighbour");
        if turn % 2 == 1 {
            world.mesh.enroll.push(entry.clone());
        }
        world.write_mesh()?;
    }
    for target in at(world.neighbour.addresses(), HTTP) {
        until_answered(&world.server, target)?;
    }
    let captured = || routing(&world.neighbour).is_ok_and(|routing| routing.contains("0xc17"));
    eventually("the neighbour to be captured", LIMIT, || captured().then_some(()))?;
    for target in at(world.neighbour.addresses(), HTTP) {
        let mut http = world.plain.open_http(target)?;
        let own = http.stream().local_addr()?;
        ensure!(http.get("/")?.peer()? != own, "the agent must stand between");
    }
    Ok(())
}
