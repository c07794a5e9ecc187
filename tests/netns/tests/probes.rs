//! Rows E10, I4, I5 and I10 of the truth table: the kubelet's probes, other processes of the host, and pods that take
//! plaintext as it comes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::Enroll;
use harness::{Agent, Node, Run, eventually};
use netns_tests::{Bare, HTTP, LIMIT, World, at, mesh_path};

/// A copy of the tests' client program whose executable has this name: what it asks is asked by that process.
fn program(run: &Run, name: &str) -> Result<PathBuf> {
    let original = harness::node::binary("POD_APP_BIN", "pod-app")?;
    let copy = run.dir().join(name);
    std::fs::copy(&original, &copy).with_context(|| copy.display().to_string())?;
    Ok(copy)
}

/// A process of the host (the node) that asks once it is told to, so that the agent can have found it before.
struct Asker {
    child: std::process::Child,
}

impl Asker {
    fn start(node: &Node, program: &std::path::Path, to: SocketAddr) -> Result<Self> {
        let netns = format!("--net={}", node.netns().display());
        let child = Command::new("nsenter")
            .arg(netns)
            .arg(program)
            .args(["get-when-told", &to.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    /// The peer address that the server saw, and the asker's own.
    fn ask(mut self) -> Result<(SocketAddr, SocketAddr)> {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (own, body) = text.split_once(' ').with_context(|| format!("no answer: {text:?}"))?;
        let body: serde_json::Value = serde_json::from_str(body).with_context(|| text.clone())?;
        let peer = body.get("peer").and_then(serde_json::Value::as_str).context("peer")?;
        Ok((peer.parse()?, own.parse()?))
    }
}

/// Starts the agent of a node whose kubelet is one of its processes.
fn start(bare: &Bare, node: &Node) -> Result<Agent> {
    let host = node.netns().display().to_string();
    let arguments = ["--host-netns", &host, "--probe-processes", "kubelet,k3s"];
    let mut agent = Agent::spawn(node, &mesh_path(&bare.run, node), &arguments)?;
    agent.wait_ready()?;
    Ok(agent)
}

fn world() -> Result<World> {
    let mut bare = Bare::new()?;
    bare.mesh.enroll = [&bare.client, &bare.neighbour, &bare.server].map(Enroll::running).into();
    bare.write_mesh()?;
    let [n1, n2] = &bare.nodes;
    let (agent1, agent2) = (start(&bare, n1)?, start(&bare, n2)?);
    agent2.wait_for_log(&["pod enrolled", "demo/server"], LIMIT)?;
    let Bare { nodes, wire, client, neighbour, server, plain, outside, apps, mesh, run } = bare;
    Ok(World { agent1, agent2, client, neighbour, server, plain, outside, mesh, nodes, wire, apps, run })
}

#[test]
fn i4_the_kubelet_reaches_the_app_directly_also_with_the_agent_dead() -> Result<()> {
    let mut world = world()?;
    let kubelet = program(&world.run, "kubelet")?;
    for alive in [true, false] {
        for target in at(world.server.addresses(), HTTP) {
            // The agent finds it while it waits; a dead one cannot, so it is started before the agent dies.
            let asker = Asker::start(&world.nodes[1], &kubelet, target)?;
            if !alive {
                world.agent2.restart().ok();
            }
            let process = asker.child.id().to_string();
            eventually("the kubelet to be found", LIMIT, || {
                let lines = world.agent2.log_lines(&["health probes of these processes are exempt"]);
                lines.last()?.contains(&process).then_some(())
            })?;
            if !alive {
                world.agent2.kill9()?;
            }
            let (seen, own) = asker.ask()?;
            ensure!(seen == own, "agent alive: {alive}; {own} was seen as {seen}");
        }
    }
    Ok(())
}

#[test]
fn i4_the_kubelet_is_exempt_before_the_first_pod_is_captured() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.mesh.enroll = vec![Enroll::running(&bare.server)];
    bare.write_mesh()?;
    let node = &bare.nodes[1];
    let kubelet = program(&bare.run, "kubelet")?;
    let [v4, v6] = at(bare.server.addresses(), HTTP).map(|target| Asker::start(node, &kubelet, target));
    let (v4, v6) = (v4?, v6?);
    let agent = start(&bare, node)?;
    agent.wait_for_log(&["pod enrolled", "demo/server"], LIMIT)?;
    let log = agent.log();
    let line = |words: &str| log.lines().position(|line| line.contains(words));
    let (exempt, captured) = (line("health probes of these processes are exempt"), line("pod enrolled"));
    ensure!(exempt.is_some() && exempt < captured, "{log}");
    let processes = log.lines().nth(exempt.context("a line")?).context("a line")?;
    for asker in [v4, v6] {
        ensure!(processes.contains(&asker.child.id().to_string()), "{processes}");
        let (seen, own) = asker.ask()?;
        ensure!(seen == own, "{own} was seen as {seen}");
    }
    Ok(())
}

#[test]
fn i5_another_process_of_the_host_is_captured_as_anyone() -> Result<()> {
    let world = world()?;
    let other = program(&world.run, "not-a-kubelet")?;
    for target in at(world.server.addresses(), HTTP) {
        let (seen, own) = Asker::start(&world.nodes[1], &other, target)?.ask()?;
        ensure!(seen.ip() == own.ip() && seen != own, "{own} was seen as {seen}");
        world.agent2.wait_for_log(&["connection complete", &format!("src.addr={own}"), "inbound"], LIMIT)?;
    }
    // Nor is a process with the name of a kubelet anywhere but on the host.
    let kubelet = program(&world.run, "kubelet")?;
    let target = at(world.server.addresses(), HTTP)[0];
    let netns = format!("--net={}", world.plain.netns().display());
    let output = Command::new("nsenter")
        .arg(netns)
        .arg(&kubelet)
        .args(["get-when-told", &target.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = text.split(' ').next().context("own")?.to_owned();
    world.agent2.wait_for_log(&["connection complete", &format!("src.addr={own}"), "inbound"], LIMIT)?;
    Ok(())
}

#[test]
fn i10_a_pod_may_take_plaintext_as_it_comes() -> Result<()> {
    let mut world = World::new()?;
    for entry in world.mesh.enroll.iter_mut().filter(|entry| entry.name == "server") {
        entry.annotations.insert("ambient.istio.io/bypass-inbound-capture".into(), "true".into());
    }
    world.write_mesh()?;
    eventually("the entry to be served", LIMIT, || {
        (world.agent2.log_lines(&["pod enrolled", "demo/server"]).len() == 2).then_some(())
    })?;
    for target in at(world.server.addresses(), HTTP) {
        let mut http = world.plain.open_http(target)?;
        let own = http.stream().local_addr()?;
        ensure!(http.get("/")?.peer()? == own, "the app must see the very socket of the client");
        // The tunnel works as before.
        let reply = world.client.get(target, "/")?;
        ensure!(reply.peer()?.ip() != own.ip(), "{}", reply.body);
    }
    world.agent2.wait_for_log(&["sa/client", "inbound"], LIMIT)?;
    Ok(())
}
