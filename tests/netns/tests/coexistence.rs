//! Programs of others on the hooks that capture uses, other installations in the same pods, and pods that cannot be captured.
//!
//! The programs are as small as they can be, and touch nothing but the pods of the test: those on cgroups ask for the
//! namespace first.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::Enroll;
use harness::{Agent, Pod, command, eventually};
use linux::bpf::{self, Hook};
use linux::netns::Netns;
use linux::testing::{self, Instruction};
use netns_tests::kernel::{cookie, routing};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, metric, until_answered};

const GET_NETNS_COOKIE: i32 = 122;
/// Offsets in `struct bpf_sock_addr`.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction::new(code, destination, source, offset, immediate)
}

/// `if the context's word at `offset` is not `word`, go on `skip` instructions later`.
fn unless_word(offset: i16, word: u32, skip: i16) -> [Instruction; 3] {
    [op(0x61, 1, 6, offset, 0), op(0xb4, 2, 0, 0, word.cast_signed()), op(0x5e, 1, 2, skip, 0)]
}

fn words(address: IpAddr) -> Vec<(i16, u32)> {
    match address {
        IpAddr::V4(v4) => vec![(USER_IP4, u32::from_ne_bytes(v4.octets()))],
        IpAddr::V6(v6) => {
            let word = |index: i16| (u128::from(v6) >> (96 - 32 * index)) as u32;
            (0..4).map(|index| (USER_IP6 + 4 * index, word(index).to_be())).collect()
        }
    }
}

/// What a socket load balancer does: connect(2) of one namespace to `service` goes to `backend` instead.
fn balancer(cookie: u64, service: SocketAddr, backend: SocketAddr) -> Vec<Instruction> {
    let tests: Vec<(i16, u32)> = words(service.ip());
    let changes = words(backend.ip()).into_iter().chain([(USER_PORT, u32::from(backend.port().to_be()))]);
    let changes: Vec<Instruction> = changes
        .flat_map(|(offset, word)| [op(0xb4, 2, 0, 0, word.cast_signed()), op(0x63, 6, 2, offset, 0)])
        .collect();
    let mut program = vec![
        op(0xbf, 6, 1, 0, 0),
        op(0x85, 0, 0, 0, GET_NETNS_COOKIE),
        op(0x18, 1, 0, 0, (cookie as u32).cast_signed()),
        op(0x00, 0, 0, 0, ((cookie >> 32) as u32).cast_signed()),
    ];
    let after = |remaining: usize| i16::try_from(3 * remaining + changes.len()).unwrap_or_default();
    program.push(op(0x5d, 0, 1, after(tests.len()), 0));
    for (index, (offset, word)) in tests.iter().enumerate() {
        program.extend(unless_word(*offset, *word, after(tests.len() - index - 1)));
    }
    program.extend(changes);
    program.extend([op(0xb7, 0, 0, 0, 1), op(0x95, 0, 0, 0, 0)]);
    program
}

/// Lets everything pass.
fn bystander() -> [Instruction; 2] {
    [op(0xb7, 0, 0, 0, 1), op(0x95, 0, 0, 0, 0)]
}

fn hook_of(address: SocketAddr) -> Hook {
    if address.is_ipv4() { Hook::Connect4 } else { Hook::Connect6 }
}

/// Attaches a balancer for each family to the cgroup in `directory`; detached when dropped.
fn balance(world: &World, directory: &Path, services: [SocketAddr; 2]) -> Result<Vec<OwnedFd>> {
    let cgroup = File::open(directory)?;
    let cookie = cookie(&world.client)?;
    let mut links = Vec::new();
    for (service, backend) in services.into_iter().zip(at(world.server.addresses(), HTTP)) {
        let hook = hook_of(service);
        let program = testing::load(hook, "others_balancer", &balancer(cookie, service, backend))
            .context("loading a balancer")?;
        links.push(testing::attach(&program, &cgroup, hook)?);
    }
    Ok(links)
}

/// A cgroup of this test's own, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let path = linux::cgroup::root()?.join(format!("culvert-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The processes in it have been waited for.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A service of the load balancer's own, that no mesh knows.
const UNKNOWN: [&str; 2] = ["198.18.0.99", "2001:db8:18::99"];

#[test]
fn a_load_balancer_on_the_root_cgroup_is_said_and_what_it_chooses_is_in_the_tunnel() -> Result<()> {
    let world = World::new()?;
    let tap = world.wire.tap()?;
    let root = linux::cgroup::root()?;
    let links = balance(&world, &root, at(ips(UNKNOWN), SERVICE))?;
    world.agent1.wait_for_log(&["others_balancer", "does not see which service was meant"], LIMIT)?;
    ensure!(metric(&world.agent1, "culvert_capture_foreign_programs", &[])? >= 2.0);
    let shown = verify(&world)?;
    ensure!(shown.contains("note") && shown.contains("hostNamespaceOnly"), "{shown}");
    for to in at(ips(UNKNOWN), SERVICE) {
        let reply = world.client.get(to, "/coexistence-needle")?;
        ensure!(reply.field("app") == "server", "{}", reply.body);
    }
    // The mesh's own services are as ever.
    for to in at(ips(WEB), SERVICE) {
        ensure!(world.client.get(to, "/coexistence-needle")?.field("app") == "server");
    }
    tap.settle()?;
    ensure!(!tap.contains(b"coexistence-needle")?, "payload of a captured pod was on the wire");
    drop(links);
    let gone =
        || metric(&world.agent1, "culvert_capture_foreign_programs", &[]).is_ok_and(|count| count < 1.0);
    // Other tests of this machine may have theirs.
    eventually("the balancers to be forgotten", LIMIT * 3, || gone().then_some(()))
}

#[test]
fn a_load_balancer_on_a_pods_cgroup_cannot_take_connections_out_of_the_mesh() -> Result<()> {
    let world = World::new()?;
    let tap = world.wire.tap()?;
    let cgroup = Cgroup::new("balancer")?;
    // It hides a service that the mesh knows: what it chooses instead is still captured.
    let _links = balance(&world, &cgroup.0, at(ips(WEB), SERVICE))?;
    let app = harness::node::binary("POD_APP_BIN", "pod-app")?;
    for to in at(ips(WEB), SERVICE) {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec {} get {to} /child-needle",
            cgroup.0.display(),
            app.display()
        );
        let answer = command::run(world.client.command("sh")?.args(["-c", &script]))?;
        ensure!(answer.contains("server"), "{answer}");
    }
    tap.settle()?;
    ensure!(!tap.contains(b"child-needle")?, "payload of a captured pod was on the wire");
    Ok(())
}

fn verify(world: &World) -> Result<String> {
    let culvert = harness::node::binary("CULVERT_BIN", "culvert")?;
    let mut command = command::in_netns(world.nodes[0].netns(), &culvert);
    let output = command.args(["verify", "--run-dir"]).arg(world.nodes[0].agent_dir()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The names of the sk_lookup programs of a pod, in the order in which they run.
fn lookups(pod: &Pod) -> Result<Vec<String>> {
    let netns = File::open(pod.netns())?;
    let names = bpf::attached(&netns, Hook::SkLookup)?.into_iter().map(|id| bpf::name_of(&bpf::program(id)?));
    Ok(names.collect::<std::io::Result<_>>()?)
}

#[test]
fn an_sk_lookup_program_of_others_never_has_the_last_word() -> Result<()> {
    let bare = Bare::new()?;
    let early = testing::load(Hook::SkLookup, "others_early", &bystander())?;
    let _early = testing::attach(&early, &File::open(bare.client.netns())?, Hook::SkLookup)?;
    let world = bare.enrol()?;
    ensure!(lookups(&world.client)? == ["others_early", "steer"], "{:?}", lookups(&world.client)?);
    for to in at(world.server.addresses(), HTTP) {
        ensure!(world.client.attempt(to, "/")?.is_ok());
    }
    // One that comes later is found, told, counted, and overtaken.
    let late = testing::load(Hook::SkLookup, "others_late", &bystander())?;
    let _late = testing::attach(&late, &File::open(world.client.netns())?, Hook::SkLookup)?;
    world.agent1.wait_for_log(&["capture lost", "demo/client", "others_late"], LIMIT)?;
    eventually("ours to be last again", LIMIT, || {
        (lookups(&world.client).ok()? == ["others_early", "others_late", "steer"]).then_some(())
    })?;
    ensure!(metric(&world.agent1, "culvert_capture_lost_total", &[("reason", "others")])? >= 1.0);
    for to in at(world.server.addresses(), HTTP) {
        ensure!(world.client.attempt(to, "/")?.is_ok());
    }
    for to in at(world.client.addresses(), HTTP) {
        ensure!(world.plain.attempt(to, "/")?.is_ok());
    }
    Ok(())
}

#[test]
fn x7_another_installation_waits_for_a_pod_and_says_so() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let before = (lookups(&world.client)?, routing(&world.client)?);
    // Its own place, and its own word that the client is to be in the mesh.
    let dir = world.run.dir().join("second");
    let bpffs = world.run.bpffs().join("second");
    let mesh = world.run.dir().join("second.yaml");
    let mut theirs = world.mesh.clone();
    theirs.enroll = vec![Enroll::running(&world.client)];
    theirs.write_for(&n1, &mesh)?;
    let culvert = harness::node::binary("CULVERT_BIN", "culvert")?;
    let log = File::create(world.run.dir().join("second.log"))?;
    let mut second = command::in_netns(n1.netns(), &culvert);
    second.args(["run", "--metrics-address", "[::]:16020", "--readiness-address", "[::]:16021"]);
    second.args(["--admin-address", "localhost:16000", "--mesh"]);
    second.arg(&mesh).arg("--run-dir").arg(&dir).arg("--bpffs").arg(&bpffs);
    let mut second = Ended(second.stdout(log.try_clone()?).stderr(log).spawn()?);
    let said = |what: &str| {
        let text = std::fs::read_to_string(world.run.dir().join("second.log")).unwrap_or_default();
        text.lines().any(|line| line.contains(what) && line.contains("demo/client")).then_some(())
    };
    eventually("the second installation to say so", LIMIT, || {
        said("another installation of culvert captures this pod")
    })?;
    for to in at(world.server.addresses(), HTTP) {
        ensure!(world.client.attempt(to, "/")?.is_ok());
    }
    ensure!((lookups(&world.client)?, routing(&world.client)?) == before, "the pod must be as it was");

    // The first one lets the pod go.
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    eventually("the second installation to take it", LIMIT * 3, || said("pod enrolled"))?;
    for to in at(world.server.addresses(), HTTP) {
        until_answered(&world.client, to)?;
    }
    second.0.kill()?;
    ensure!(Netns::open(world.client.netns())?.cookie()? == cookie(&world.client)?);
    Ok(())
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plays the kernel of a gVisor sandbox or of a virtual machine, which cannot run here: a process in the pod's namespace with
/// its name.
fn play_kernel(pod: &Pod, name: &str) -> Result<Ended> {
    let mut command = pod.command("bash")?;
    let played = Ended(command.args(["-c", &format!("exec -a {name} sleep 600")]).spawn()?);
    let words = PathBuf::from(format!("/proc/{}/cmdline", played.0.id()));
    let is_it = || std::fs::read(&words).is_ok_and(|words| words.starts_with(name.as_bytes()));
    eventually("the process to have its name", LIMIT, || is_it().then_some(()))?;
    Ok(played)
}

#[test]
fn a_pod_with_a_network_stack_of_its_own_is_refused_and_the_others_are_served() -> Result<()> {
    let bare = Bare::new()?;
    // A stand-in: neither runtime runs here.
    let kernel = play_kernel(&bare.neighbour, "runsc-sandbox")?;
    let mut mesh = bare.mesh.clone();
    mesh.enroll = [&bare.client, &bare.neighbour].map(Enroll::running).into();
    let [n1, _] = bare.nodes.clone();
    mesh.write_for(&n1, &bare.mesh_path(&n1))?;
    let agent = Agent::start(&n1, &bare.mesh_path(&n1))?;
    agent.wait_for_log(&["demo/neighbour", "network stack of its own", "runsc-sandbox", "gVisor"], LIMIT)?;
    agent.wait_for_log(&["pod enrolled", "demo/client"], LIMIT)?;
    ensure!(!routing(&bare.neighbour)?.contains("0xc17"), "nothing of capture may be left in it");
    ensure!(metric(&agent, "culvert_pods", &[("state", "pending")])? >= 1.0);
    drop(kernel);
    agent.wait_for_log(&["pod enrolled", "demo/neighbour"], LIMIT * 3)?;
    Ok(())
}

#[test]
fn a_pod_that_istio_cni_has_captured_is_refused_until_its_rules_are_gone() -> Result<()> {
    let bare = Bare::new()?;
    let name = bare.neighbour.netns().file_name().context("name")?.to_string_lossy().into_owned();
    // What istio-cni leaves in a pod beside its iptables rules, whichever kind of those it has written.
    let rule = "rule add fwmark 0x111/0xfff pref 32764 lookup 100";
    command::ip(&format!("-n {name} {rule}"))?;
    let mut mesh = bare.mesh.clone();
    mesh.enroll = [&bare.client, &bare.neighbour].map(Enroll::running).into();
    let [n1, _] = bare.nodes.clone();
    mesh.write_for(&n1, &bare.mesh_path(&n1))?;
    let agent = Agent::start(&n1, &bare.mesh_path(&n1))?;
    agent.wait_for_log(&["demo/neighbour", "rules of istio-cni", "drain this node"], LIMIT)?;
    agent.wait_for_log(&["pod enrolled", "demo/client"], LIMIT)?;
    ensure!(!routing(&bare.neighbour)?.contains("0xc17"), "nothing of capture may be left in it");
    command::ip(&format!("-n {name} {}", rule.replace("add", "del")))?;
    agent.wait_for_log(&["pod enrolled", "demo/neighbour"], LIMIT * 3)?;
    Ok(())
}

#[test]
fn a_stack_that_starts_after_enrolment_degrades_its_pod() -> Result<()> {
    let world = World::new()?;
    let kernel = play_kernel(&world.client, "qemu-system-x86_64")?;
    world.agent1.wait_for_log(&["capture lost", "demo/client", "qemu-system-x86_64"], LIMIT)?;
    let degraded = || metric(&world.agent1, "culvert_pods", &[("state", "degraded")]).is_ok_and(|n| n >= 1.0);
    eventually("the pod to be shown as degraded", LIMIT, || degraded().then_some(()))?;
    ensure!(metric(&world.agent1, "culvert_capture_lost_total", &[("reason", "guest")])? >= 1.0);
    drop(kernel);
    eventually("the pod to be whole again", LIMIT * 4, || (!degraded()).then_some(()))?;
    // The device that Kata makes in the namespace tells as well; a veth in its place.
    let name = world.neighbour.netns().file_name().context("name")?.to_string_lossy().into_owned();
    command::ip(&format!("-n {name} link add tap0_kata type veth peer name tap0_peer"))?;
    world.agent1.wait_for_log(&["capture lost", "demo/neighbour", "tap0_kata"], LIMIT)?;
    Ok(())
}
