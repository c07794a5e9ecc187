//! The egress guard: TCP that an application writes past capture never leaves the pod, and everything else does as before.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Agent, WireTap, command, eventually};
use linux::bpf;
use linux::netns::Netns;
use linux::testing::Instruction;
use netns_tests::forger::{Forger, Nested, Way, write_unmarked};
use netns_tests::kernel::{Held, cookie, pins_of};
use netns_tests::questions::{question, reply};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, mesh_path, metric};

const GUARD: &str = "--egress-guard";
/// Within this a loss is found.
const FOUND: Duration = Duration::from_secs(5);
/// Long enough for a connection that comes about, and for the first segment of one that does not.
const SHORT: Duration = Duration::from_millis(500);

/// What leaves the pods of the first node, just behind their interfaces.
fn tap(world: &World) -> Result<WireTap> {
    WireTap::start(world.nodes[0].netns())
}

fn dropped(world: &World, decision: &str) -> Result<f64> {
    metric(&world.agent1, "culvert_capture_decisions_total", &[("pod", "client"), ("decision", decision)])
}

fn ip_in(world: &World, words: &str) -> Result<String> {
    let name = world.client.netns().file_name().context("name")?.to_string_lossy().into_owned();
    command::ip(&format!("-n {name} {words}"))
}

#[test]
fn e12_what_is_written_by_hand_leaves_without_the_guard() -> Result<()> {
    let world = Bare::new()?.enrol()?;
    let tap = tap(&world)?;
    let forger = Forger::new(&world.client, world.outside_ips())?;
    for way in forger.write_all()? {
        ensure!(way.is_seen(&tap)?, "{} is not seen, so its absence would prove nothing", way.name);
    }
    let way = forger.write_past_queues("past the queues")??;
    ensure!(way.is_seen(&tap)?, "{} is not seen", way.name);
    let nested = Nested::new(&world.client)?;
    for to in at(world.outside_ips(), 7100) {
        nested.knock(to)?;
        ensure!(tap.any(|segment| segment.opens() && segment.destination == to), "{to}: not forwarded");
    }
    for to in at(world.plain.addresses(), HTTP) {
        let way = format!("unmarked, to {to}");
        write_unmarked(&world.client, to, way.as_bytes())?;
        ensure!(tap.carries(way.as_bytes())?, "{way}: not seen, so its absence would prove nothing");
    }
    Ok(())
}

#[test]
fn e12_what_is_written_by_hand_is_dropped_by_the_guard() -> Result<()> {
    let world = Bare::new()?.enrol_with(&[GUARD])?;
    let tap = tap(&world)?;
    let forger = Forger::new(&world.client, world.outside_ips())?;
    let ways = forger.write_all()?;
    for way in &ways {
        ensure!(!way.is_seen(&tap)?, "{} got out", way.name);
    }
    let handwritten = "guard_dropped_handwritten";
    // Of two fragments both are dropped.
    ensure!(dropped(&world, handwritten)? >= ways.len() as f64, "{}", world.agent1.metrics()?);
    let told = ["egress guard dropped TCP", "demo/client", "last="];
    world.agent1.wait_for_log(&told, LIMIT)?;

    let nested = Nested::new(&world.client)?;
    // Its interface is new, and is guarded soon; the way out is guarded already.
    for to in at(world.outside_ips(), 7100) {
        let before = dropped(&world, handwritten)?;
        nested.knock(to)?;
        ensure!(!tap.any(|segment| segment.destination == to), "{to}: forwarded");
        ensure!(dropped(&world, handwritten)? > before, "{to}: not counted");
    }
    for to in at(world.plain.addresses(), HTTP) {
        let way = format!("unmarked, to {to}");
        let before = dropped(&world, "guard_dropped_strayed")?;
        write_unmarked(&world.client, to, way.as_bytes())?;
        ensure!(!tap.carries(way.as_bytes())?, "{way}: got out");
        ensure!(dropped(&world, "guard_dropped_strayed")? > before, "{way}: not counted");
    }
    // Past the queues there is no classifier, so nobody gets there.
    let refused = forger.write_past_queues("past the queues")?;
    ensure!(refused.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied));
    // What opens nothing and carries nothing is the kernel's to send as well.
    for to in world.outside_ips() {
        let way = forger.reset(to)?;
        ensure!(way.is_seen(&tap)?, "{}: dropped", way.name);
    }
    ensure!(dropped(&world, "guard_dropped_uncaptured")? == 0.0);
    Ok(())
}

#[test]
fn e12_without_its_row_a_pod_reaches_nobody_past_the_guard() -> Result<()> {
    let world = Bare::new()?.enrol_with(&[GUARD])?;
    let tap = tap(&world)?;
    let rows = bpf::open_pin(&pins_of(&world.nodes[0]).join("node/ENROLLED"))?;
    let own_row = cookie(&world.client)?.to_ne_bytes();
    for to in at(world.plain.addresses(), HTTP) {
        // In the rare case that the agent mends it before the connection is made there is nothing to be seen.
        let mut tries = 0;
        loop {
            tries += 1;
            ensure!(bpf::delete_row(&rows, &own_row)?, "the row was not there");
            let sightings = tap.segments_of_port(to.port())?;
            let connected = world.client.connect(to, SHORT)?;
            if connected.is_err() {
                ensure!(tap.segments_of_port(to.port())? == sightings, "{to}: reached past capture");
                break;
            }
            ensure!(tries < 5, "{to}: captured without a row");
        }
        eventually("the row to be there again", FOUND, || {
            world.client.connect(to, SHORT).ok()?.is_ok().then_some(())
        })?;
    }
    ensure!(dropped(&world, "guard_dropped_uncaptured")? > 0.0, "{}", world.agent1.metrics()?);
    Ok(())
}

#[test]
fn what_is_not_written_by_hand_goes_its_way_with_the_guard() -> Result<()> {
    let bare = Bare::new()?;
    let mut open = Vec::new();
    for (from, to) in [
        (&bare.client, bare.server.addresses()),
        (&bare.client, bare.plain.addresses()),
        (&bare.plain, bare.client.addresses()),
    ] {
        for to in at(to, HTTP) {
            let mut http = from.open_http(to)?;
            http.get("/before")?;
            open.push((format!("{} to {to}", from.name()), http));
        }
    }
    let host = bare.nodes[0].netns().display().to_string();
    let world = bare.enrol_with(&[GUARD, "--host-netns", &host, "--probe-processes", "kubelet"])?;
    for (what, http) in &mut open {
        let own = http.stream().local_addr()?;
        let reply = http.get("/after").with_context(|| format!("open before: {what}"))?;
        ensure!(reply.peer()? == own, "open before: {what}");
    }
    // Out: in the tunnel, by service, past the mesh, to itself. In: in the tunnel, in plaintext.
    for (from, targets) in [
        (&world.client, at(world.server.addresses(), HTTP)),
        (&world.client, at(ips(WEB), SERVICE)),
        (&world.client, at(world.plain.addresses(), HTTP)),
        (&world.client, at(world.client.addresses(), HTTP)),
        (&world.server, at(world.client.addresses(), HTTP)),
        (&world.plain, at(world.client.addresses(), HTTP)),
        (&world.neighbour, at(world.client.addresses(), HTTP)),
    ] {
        for to in targets {
            let reply = from.get(to, "/").with_context(|| format!("{} to {to}", from.name()))?;
            ensure!(reply.status == 200);
        }
    }
    for to in at(world.client.addresses(), 9) {
        let attempt = world.plain.attempt(to, "/")?;
        ensure!(attempt.is_refused(), "a closed port: {attempt:?}");
    }
    for to in world.outside_ips() {
        world.client.inside(|| harness::ping::ping(to, LIMIT))?.context("ping")?;
    }
    resolves(&world)?;
    for to in at(world.client.addresses(), HTTP) {
        probed(&world, to).with_context(|| format!("a probe of {to}"))?;
    }
    for decision in ["handwritten", "uncaptured", "strayed"] {
        let count = dropped(&world, &format!("guard_dropped_{decision}"))?;
        ensure!(count == 0.0, "{count} times {decision}: {}", world.agent1.log());
    }
    Ok(())
}

/// A query to port 53 by way of the agent, and a datagram past it.
fn resolves(world: &World) -> Result<()> {
    for address in [at(world.outside_ips(), 53), at(world.outside_ips(), 5353)].concat() {
        let server = harness::inside::in_netns(&world.outside.netns, || UdpSocket::bind(address))??;
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            // Ends with the test's process.
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let answer = reply(buffer.get(..length).unwrap_or_default(), "echo");
                let _ = server.send_to(&answer.unwrap_or_default(), from);
            }
        });
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = world.client.inside(|| UdpSocket::bind(any))??;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(&question("who")?, address)?;
        let (_, from) = socket.recv_from(&mut [0; 512]).with_context(|| format!("no answer of {address}"))?;
        ensure!(from == address);
    }
    Ok(())
}

/// The kubelet of the first node asks a pod; the pod sees the very socket.
fn probed(world: &World, to: SocketAddr) -> Result<()> {
    let kubelet = world.run.dir().join("kubelet");
    std::fs::copy(harness::node::binary("POD_APP_BIN", "pod-app")?, &kubelet)?;
    let mut asker = Command::new("nsenter")
        .arg(format!("--net={}", world.nodes[0].netns().display()))
        .arg(&kubelet)
        .args(["get-when-told", &to.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let process = asker.id().to_string();
    eventually("the kubelet to be found", LIMIT, || {
        let lines = world.agent1.log_lines(&["health probes of these processes are exempt"]);
        lines.last()?.contains(&process).then_some(())
    })?;
    drop(asker.stdin.take());
    let output = String::from_utf8_lossy(&asker.wait_with_output()?.stdout).into_owned();
    let (own, body) = output.split_once(' ').with_context(|| format!("no answer: {output:?}"))?;
    ensure!(body.contains(&format!("\"peer\":\"{own}\"")), "{own} was seen in {body}");
    Ok(())
}

fn index_of(world: &World, interface: &str) -> Result<u32> {
    let link = ip_in(world, &format!("link show dev {interface}"))?;
    Ok(link.split(':').next().context("index")?.trim().parse()?)
}

/// Ids of the programs on the way out of an interface of the client, whatever they are attached by.
fn on_egress(world: &World, interface: &str) -> Result<Vec<u32>> {
    let index = index_of(world, interface)?;
    let netns = Netns::open(world.client.netns())?;
    if netns.run(bpf::has_egress_links)? {
        return Ok(netns.run(|| bpf::attached_egress(index))??);
    }
    let filters = linux::netlink::tc::Filters::open(&netns)?.on_egress(index)?;
    Ok(filters.iter().filter_map(|filter| filter.program).collect())
}

fn verify(world: &World) -> Result<(Option<i32>, String)> {
    let line = world.agent1.command_line()?;
    let mut asked = Command::new(line.first().context("program")?);
    asked.args(["verify", "demo/client", "--run-dir"]).arg(world.nodes[0].agent_dir());
    let ended = command::finish(&mut asked, b"")?;
    Ok((ended.status.code(), ended.stdout))
}

#[test]
fn a_lost_guard_is_found_mended_and_told() -> Result<()> {
    let world = Bare::new()?.enrol_with(&[GUARD])?;
    let (code, text) = verify(&world)?;
    ensure!(code == Some(0) && text.contains("ok    egress guard on eth0"), "{text}");
    let pods = pins_of(&world.nodes[0]).join(format!("pods/{:x}", cookie(&world.client)?));
    let pin = || -> Result<std::path::PathBuf> {
        let mut names = std::fs::read_dir(&pods)?.flatten().map(|entry| entry.path());
        names.find(|path| path.display().to_string().contains("guard_")).context("no pin of the guard")
    };
    let foreign = std::cell::RefCell::new(None);
    let steps: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("another in front of it", &|| {
            foreign.replace(Some(let_everything_pass(&world)?));
            Ok(())
        }),
        ("detached", &|| Ok(bpf::detach(&bpf::open_pin(&pin()?)?)?)),
        ("unpinned", &|| Ok(std::fs::remove_file(pin()?)?)),
        ("a new interface", &|| ip_in(&world, "link add net1 type veth peer name net1-peer").map(drop)),
    ];
    for (what, lose) in steps {
        let lost = || metric(&world.agent1, "culvert_capture_lost_total", &[("reason", "egress_guard")]);
        let mended = || metric(&world.agent1, "culvert_capture_repairs_total", &[("outcome", "mended")]);
        let before = (lost()?, mended()?);
        lose()?;
        eventually(&format!("{what}: to be counted"), FOUND, || (lost().ok()? > before.0).then_some(()))
            .with_context(|| world.agent1.log())?;
        eventually(&format!("{what}: to be mended"), FOUND, || (mended().ok()? > before.1).then_some(()))
            .with_context(|| world.agent1.log())?;
        world.agent1.wait_for_log(&["capture lost", "demo/client", "egress guard on"], LIMIT)?;
        let (code, text) = verify(&world)?;
        ensure!(code == Some(0), "{what}: {text}");
    }
    let (_, text) = verify(&world)?;
    ensure!(
        text.contains("ok    egress guard on net1") && text.contains("ok    egress guard on net1-peer"),
        "{text}"
    );
    let tap = tap(&world)?;
    for way in Forger::new(&world.client, world.outside_ips())?.write("after the repairs")? {
        ensure!(!way.is_seen(&tap)?, "{} got out", way.name);
    }
    Ok(())
}

/// Somebody's classifier that runs first, and takes the word from all others.
fn let_everything_pass(world: &World) -> Result<std::os::fd::OwnedFd> {
    // r0 = TCX_PASS, exit (RFC 9669).
    let pass = [Instruction::new(0xb7, 0, 0, 0, 0), Instruction::new(0x95, 0, 0, 0, 0)];
    let program = linux::testing::load_classifier("let_pass", &pass)?;
    let index = index_of(world, "eth0")?;
    Ok(Netns::open(world.client.netns())?.run(|| bpf::attach_egress(&program, index))??)
}

#[test]
fn neither_a_restart_nor_a_hand_over_leaves_a_gap() -> Result<()> {
    let mut world = Bare::new()?.enrol_with(&[GUARD])?;
    let tap = tap(&world)?;
    let outside = world.outside_ips();
    let World { agent1, client, .. } = &mut world;
    let forger = Forger::new(client, outside)?;
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| -> Result<Vec<Way>> {
        let writer = scope.spawn(|| -> Result<Vec<Way>> {
            let mut written = Vec::new();
            while !done.load(Ordering::Relaxed) {
                written.extend(forger.write(&format!("turn {}", written.len()))?);
            }
            Ok(written)
        });
        let changed = (|| {
            agent1.kill9()?;
            agent1.restart()?;
            let mut old = agent1.succeed()?;
            agent1.wait_for_log(&["handed over; this agent serves"], LIMIT * 3)?;
            agent1.wait_ready()?;
            ensure!(old.wait_exit(LIMIT)?.success());
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        changed.and(written)
    })?;
    ensure!(written.len() >= 100, "{} segments only", written.len());
    ensure!(!tap.carries(b"by-hand: turn")?, "one of {} segments got out", written.len());
    Ok(())
}

#[test]
fn nothing_of_the_guard_is_left_when_the_pod_goes_or_the_option_does() -> Result<()> {
    let mut world = Bare::new()?.enrol_with(&[GUARD])?;
    let [n1, _] = world.nodes.clone();
    ensure!(on_egress(&world, "eth0")?.len() == 1);
    let held = Held::of(&world.client)?;
    let entry = world.mesh.enroll.iter().find(|entry| entry.name == "client").cloned().context("entry")?;
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    ensure!(on_egress(&world, "eth0")?.is_empty(), "the guard outlives the pod's capture");
    eventually("nothing to be held", LIMIT, || {
        held.left().is_ok_and(|left| left.is_nothing()).then_some(())
    })?;

    // Again, and then an agent that was not told to guard.
    world.mesh.enroll.push(entry);
    world.write_mesh()?;
    // Not before the pod is enrolled is anything meant to stay.
    eventually("the pod to be enrolled again, beside its neighbour", LIMIT, || {
        (metric(&world.agent1, "culvert_pods", &[("state", "enrolled")]).ok()? == 2.0).then_some(())
    })?;
    world.agent1.kill9()?;
    ensure!(on_egress(&world, "eth0")?.len() == 1, "the guard must outlive its agent");
    world.agent1 = Agent::start(&n1, &mesh_path(&world.run, &n1))?;
    eventually("the guard to go", LIMIT, || on_egress(&world, "eth0").ok()?.is_empty().then_some(()))?;
    let tap = tap(&world)?;
    for way in Forger::new(&world.client, world.outside_ips())?.write("without the option")? {
        ensure!(way.is_seen(&tap)?, "{} is not seen", way.name);
    }

    // And once more, for `culvert detach`.
    world.agent1.kill9()?;
    let mut agent = Agent::spawn(&n1, &mesh_path(&world.run, &n1), &[GUARD])?;
    agent.wait_ready()?;
    world.agent1 = agent;
    eventually("the pod to be guarded again", LIMIT, || {
        (on_egress(&world, "eth0").ok()?.len() == 1).then_some(())
    })?;
    let program = world.agent1.command_line()?.first().context("program")?.clone();
    world.agent1.kill9()?;
    let mut detach = Command::new(program);
    detach.arg("detach").arg("--run-dir").arg(n1.agent_dir()).arg("--bpffs").arg(n1.bpffs());
    command::run(&mut detach)?;
    ensure!(on_egress(&world, "eth0")?.is_empty(), "detach leaves the guard");
    ensure!(
        world
            .client
            .inside(|| TcpStream::connect_timeout(&at(world.plain.addresses(), HTTP)[0], LIMIT))?
            .is_ok()
    );
    Ok(())
}
