//! Agents that are fed by a control plane over the network: what they bear of it while connections are made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::mesh_file::Service;
use harness::{Agent, Attempt, ControlPlane, Pod, command, eventually};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, lock, until_answered};

/// How often the control plane dies.
const DEATHS: usize = 50;
/// Clients at once.
const CLIENTS: usize = 2;
/// Requests that must be answered while it is away, and again while it is back, each time.
const ENOUGH: usize = 4;
/// Addresses of a service that comes later.
const LATE: [&str; 2] = ["10.96.0.40", "2001:db8:96::40"];
/// Families of the recorded peer that are not here on purpose, each with the reason. There is none.
const ABSENT: [(&str, &str); 0] = [];

/// The usual world, but everything besides the pods to enrol comes from a control plane on the host outside.
fn world() -> Result<(World, ControlPlane)> {
    let mut bare = Bare::new()?;
    let plane = ControlPlane::start(&bare.run, &bare.outside, &bare.mesh)?;
    bare.mesh.workloads.clear();
    bare.mesh.services.clear();
    bare.mesh.ca = None;
    let token = bare.run.dir().join("token");
    fs::write(&token, "of-the-agent")?;
    let (address, roots, token) =
        (plane.address().to_string(), plane.roots().display().to_string(), token.display().to_string());
    let arguments = bare.nodes.clone().map(|node| {
        let (ip, pod) = (node.addresses().0.to_string(), format!("agent-{}", node.name()));
        [
            ["--xds-address", &address],
            ["--xds-root-ca", &roots],
            ["--ca-address", &address],
            ["--ca-root-ca", &roots],
            ["--auth-token", &token],
            ["--instance-ip", &ip],
            ["--pod-name", &pod],
            ["--pod-namespace", "istio-system"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>()
    });
    let [arguments1, arguments2] =
        arguments.each_ref().map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
    Ok((bare.enrol_each([&arguments1, &arguments2])?, plane))
}

/// Requests without a pause, each on a connection of its own, from several clients.
struct Traffic<'a> {
    pod: &'a Pod,
    targets: Vec<SocketAddr>,
    next: AtomicUsize,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Traffic<'_> {
    fn run(&self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let target = *self.targets.get(turn % self.targets.len().max(1)).context("no target")?;
            match self.pod.attempt(target, "/")? {
                Attempt::Answered(reply) if reply.status == 200 => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                other => lock(&self.failed).push(format!("{target}: {other:?}")),
            }
        }
        Ok(())
    }

    /// Waits until more requests were answered.
    fn goes_on(&self) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        // Those that are under way do not count.
        let enough = before + CLIENTS + ENOUGH;
        eventually("requests to be answered", LIMIT, || {
            (self.answered.load(Ordering::Relaxed) >= enough).then_some(())
        })
    }
}

#[test]
fn a_control_plane_killed_and_restarted_50_times_costs_no_connection() -> Result<()> {
    let (world, mut plane) = world()?;
    for target in at(ips(WEB), SERVICE) {
        until_answered(&world.client, target)?;
    }
    plane.synced_by(2)?;
    let direct = at(world.server.addresses(), HTTP);
    let traffic = Traffic {
        pod: &world.client,
        targets: at(ips(WEB), SERVICE).into_iter().chain(direct).collect(),
        next: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        failed: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| traffic.run())).collect();
        let mut deaths = || -> Result<()> {
            for _ in 0..DEATHS {
                plane.kill9()?;
                traffic.goes_on()?;
                plane.restart()?;
                plane.synced_by(2)?;
                traffic.goes_on()?;
            }
            Ok(())
        };
        let died = deaths();
        traffic.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        died
    })?;
    let failed = lock(&traffic.failed);
    let answered = traffic.answered.load(Ordering::Relaxed);
    ensure!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), answered + failed.len());
    ensure!(answered >= DEATHS * 2 * ENOUGH);
    // And it is listened to: a service that is new is reached, through the tunnel.
    let late = Service::new("late", "demo", &ips(LATE), &[(SERVICE, HTTP)]);
    let server = harness::mesh_file::Workload::of_pod(&world.server).serving(&late);
    let file = world.run.dir().join("late.json");
    fs::write(&file, serde_json::json!({ "workloads": [server], "services": [late] }).to_string())?;
    plane.load(&file)?;
    for target in at(ips(LATE), SERVICE) {
        ensure!(until_answered(&world.client, target)?.field("app") == "server");
    }
    Ok(())
}

/// Says that it was given everything, and waits for a control plane.
const GIVEN: &str = "the agent before this one hands over";

/// Starts another agent of the first node while the control plane is away, and waits until it was given everything. Returns the one before it,
/// and the new one's process.
fn waiting_successor(world: &mut World, plane: &mut ControlPlane) -> Result<(Agent, u32)> {
    for target in at(ips(WEB), SERVICE) {
        until_answered(&world.client, target)?;
    }
    plane.kill9()?;
    let old = world.agent1.succeed()?;
    world.agent1.wait_for_log(&[GIVEN, "pods=2"], LIMIT)?;
    // The one before it serves on.
    for target in at(ips(WEB), SERVICE) {
        until_answered(&world.client, target)?;
    }
    let process = world.agent1.pid().context("the new agent runs")?;
    Ok((old, process))
}

/// The new agent serves, enrols and releases, and is still the process that it was.
fn serves_alone(world: &mut World, process: u32) -> Result<()> {
    for target in at(world.server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)) {
        eventually(&format!("{target} to answer"), LIMIT * 3, || {
            world.client.attempt(target, "/").is_ok_and(|attempt| attempt.is_ok()).then_some(())
        })?;
    }
    for target in at(world.neighbour.addresses(), HTTP) {
        until_answered(&world.server, target)?;
    }
    world.agent1.wait_ready()?;
    ensure!(world.agent1.is_running() && world.agent1.pid() == Some(process), "{}", world.agent1.log());
    let lock = fs::read_to_string(world.nodes[0].agent_dir().join("lock"))?;
    ensure!(lock.trim() == process.to_string(), "the lock is of {lock}");
    world.mesh.enroll.retain(|entry| entry.name != "neighbour");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/neighbour"], LIMIT)?;
    // And it hands over in its turn.
    let mut old = world.agent1.succeed()?;
    ensure!(old.wait_exit(LIMIT * 3)?.success(), "{}", world.agent1.log());
    world.agent1.wait_ready()?;
    until_answered(&world.client, at(world.server.addresses(), HTTP)[0]).map(drop)
}

#[test]
fn x4_a_successor_goes_on_alone_if_the_agent_before_it_dies_while_it_waits_for_the_mesh() -> Result<()> {
    let (mut world, mut plane) = world()?;
    let tap = world.wire.tap()?;
    let (mut old, process) = waiting_successor(&mut world, &mut plane)?;
    old.kill9()?;
    world.agent1.wait_for_log(&["so this one goes on before it knows the mesh"], LIMIT)?;
    world.agent1.wait_for_log(&["ended before its last word", "pods=2"], LIMIT)?;
    for target in at(world.server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)) {
        // It knows nobody yet.
        let attempt = world.client.attempt(target, "/needle-of-the-bereaved")?;
        ensure!(!attempt.is_ok(), "{target}: {attempt:?}");
    }
    for target in at(world.neighbour.addresses(), HTTP) {
        let attempt = world.server.attempt(target, "/needle-of-the-bereaved")?;
        ensure!(!attempt.is_ok(), "{target}: {attempt:?}");
    }
    plane.restart()?;
    serves_alone(&mut world, process)?;
    ensure!(!tap.contains(b"needle-of-the-bereaved")?, "payload of a captured pod was on the wire");
    Ok(())
}

#[test]
fn x4_a_successor_goes_on_alone_if_the_agent_before_it_dies_instead_of_its_last_word() -> Result<()> {
    let (mut world, mut plane) = world()?;
    let (mut old, process) = waiting_successor(&mut world, &mut plane)?;
    let told = |what: &str| world.agent1.log_lines(&["pod enrolled", what]).len() == 2;
    // It can answer nothing any more, but lives.
    old.suspend()?;
    plane.restart()?;
    eventually("the new agent to serve both pods", LIMIT * 3, || {
        (told("demo/client") && told("demo/neighbour")).then_some(())
    })?;
    ensure!(world.agent1.log_lines(&["agent started"]).len() == 1, "it waits for the other's word");
    old.kill9()?;
    world.agent1.wait_for_log(&["ended before its last word", "pods=2"], LIMIT)?;
    serves_alone(&mut world, process)
}

/// What metrics look like: kind and unit of each family, and the names of labels that each series of a name has.
#[derive(Debug, Default)]
struct Shape {
    described: BTreeSet<String>,
    labels: BTreeMap<String, BTreeSet<BTreeSet<String>>>,
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut shape = Self::default();
        for line in text.lines() {
            if line.starts_with("# TYPE ") || line.starts_with("# UNIT ") {
                shape.described.insert(line.to_owned());
            } else if !line.starts_with('#') {
                let (series, _) = line.rsplit_once(' ').unwrap_or((line, ""));
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let names = labels.split("\",").filter_map(|label| label.split_once('='));
                let names = names.map(|(name, _)| name.to_owned()).collect();
                shape.labels.entry(name.to_owned()).or_default().insert(names);
            }
        }
        shape
    }

    /// What another has and this has not, but for families that are absent on purpose.
    fn lacks(&self, other: &Self) -> Vec<String> {
        let is_meant = |name: &str| ABSENT.iter().any(|(absent, _)| name.starts_with(absent));
        let described = other.described.difference(&self.described).cloned();
        let series = other.labels.iter().flat_map(|(name, sets)| {
            let ours = self.labels.get(name);
            let missing = sets.iter().filter(move |set| !ours.is_some_and(|ours| ours.contains(*set)));
            missing.map(move |set| format!("{name} {set:?}"))
        });
        let name =
            |line: &String| line.trim_start_matches("# TYPE ").trim_start_matches("# UNIT ").to_owned();
        described.chain(series).filter(|line| !is_meant(&name(line))).collect()
    }
}

/// A pod asks for names, as one did when the peer was recorded: then every family that the peer had is there.
#[test]
fn what_the_peers_metrics_are_called_ours_are_called() -> Result<()> {
    let (world, mut plane) = world()?;
    plane.synced_by(2)?;
    let theirs = Shape::of(&recordings::text("istiod/agent/metrics.txt")?);
    ensure!(theirs.labels.len() == 21 && theirs.described.len() == 21, "{theirs:#?}");
    let [server, _] = world.outside_ips();
    // Nobody answers there, as then.
    for (name, kind) in
        [("web.demo.svc.cluster.local", "A"), ("elsewhere.example", "A"), ("example.org", "TXT")]
    {
        let mut dig = world.client.command("dig")?;
        dig.arg(format!("@{server}")).args(["+tries=1", "+time=10", "+nocookie", name, kind]);
        command::run(&mut dig)?;
    }
    let mut lacks = Vec::new();
    let complete = eventually("all families of the peer's", LIMIT, || {
        lacks = Shape::of(&world.agent1.metrics().ok()?).lacks(&theirs);
        lacks.is_empty().then_some(())
    });
    complete.with_context(|| format!("{lacks:#?}"))
}

#[test]
fn status_tells_how_an_agent_stands_with_its_control_plane() -> Result<()> {
    let (world, mut plane) = world()?;
    let status = || -> Result<(i32, serde_json::Value)> {
        let line = world.agent1.command_line()?;
        let (program, _) = line.split_first().context("program")?;
        let mut asked = std::process::Command::new(program);
        asked.args(["status", "-o", "json", "--run-dir"]).arg(world.nodes[0].agent_dir());
        let ended = command::finish(&mut asked, b"")?;
        Ok((ended.status.code().context("killed")?, serde_json::from_str(&ended.stdout)?))
    };
    let address = plane.address().to_string();
    let (code, well) =
        eventually("everything to be well", LIMIT, || status().ok().filter(|(code, _)| *code == 0))?;
    let of = &well["controlPlane"];
    ensure!(of["connected"] == true && of["address"] == address.as_str() && code == 0, "{well:#}");
    ensure!(of["since"]["secondsAgo"].is_u64() && well["meshFile"].is_null(), "{well:#}");
    let types = of["types"].as_array().context("types")?;
    let held = |number: usize| types.get(number).map(|of| of["held"].clone());
    // Three workloads and two services; no policy.
    ensure!(held(0) == Some(5.into()) && held(1) == Some(0.into()), "{well:#}");
    ensure!(types.iter().all(|of| of["accepted"]["at"].is_string() && of["refused"].is_null()), "{well:#}");
    ensure!(well["known"]["workloads"] == 3 && well["known"]["services"] == 2, "{well:#}");
    plane.kill9()?;
    let (code, alone) = eventually("the control plane to be missed", LIMIT, || {
        status().ok().filter(|(_, status)| status["controlPlane"]["connected"] == false)
    })?;
    let of = &alone["controlPlane"];
    ensure!(code == 1 && alone["ready"] == true && of["since"].is_null(), "{alone:#}");
    ensure!(of["ended"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{alone:#}");
    ensure!(alone["known"] == well["known"], "what is known stays: {alone:#}");
    Ok(())
}
