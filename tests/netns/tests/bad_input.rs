//! Whatever is wrong gets a clear error that says what to do, leaves nothing half-done, and touches no other pod.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use cni::protocol::{MAX_MESSAGE, Response};
use harness::mesh_file::{Enroll, Workload};
use harness::{Agent, command, mesh_file};
use linux::fdpass::Connection;
use netns_tests::peer::{Peer, Signer, in_an_hour};
use netns_tests::{Bare, HTTP, LIMIT, World, at, mesh_path, until_answered};

/// The agent's words and status when it is started on a bare node by way of `wrapper`.
fn start_through(bare: &Bare, wrapper: &[&str]) -> Result<(bool, String)> {
    let [n1, _] = &bare.nodes;
    bare.write_mesh()?;
    let mut agent = Agent::spawn(n1, &bare.mesh_path(n1), &[])?;
    agent.kill9()?;
    let own = agent.command_line()?;
    let mut words = wrapper.iter().copied().chain(own.iter().map(String::as_str));
    let program = words.next().context("a command line has a program")?;
    let mut command = command::in_netns(n1.netns(), Path::new(program));
    let Output { status, stdout, stderr } = command.args(words).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ok((status.success(), text))
}

/// Nothing was captured, and nothing pinned.
fn untouched(bare: &Bare) -> Result<()> {
    let target = at(bare.server.addresses(), HTTP)[0];
    let mut http = bare.client.open_http(target)?;
    let own = http.stream().local_addr()?;
    ensure!(http.get("/")?.peer()? == own, "the pod must be as it was");
    let pods = bare.nodes[0].bpffs().join("v1/pods");
    ensure!(!pods.exists() || std::fs::read_dir(&pods)?.count() == 0, "pins of pods were left behind");
    Ok(())
}

#[test]
fn without_privileges_the_agent_names_them() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.mesh.enroll = vec![Enroll::running(&bare.client)];
    // Root's files, but none of its powers over network and kernel.
    let wrapper = ["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"];
    let (ok, text) = start_through(&bare, &wrapper)?;
    ensure!(!ok && text.contains("SYS_ADMIN") && text.contains("BPF") && text.contains("as root"), "{text}");
    untouched(&bare)
}

#[test]
fn without_cgroup_v2_the_agent_says_how_to_mount_it() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.mesh.enroll = vec![Enroll::running(&bare.client)];
    let hide = "for m in $(awk '$9==\"cgroup2\"||$0~/ - cgroup2 /{print $5}' /proc/self/mountinfo); do umount -l $m; done; exec \"$@\"";
    let (ok, text) =
        start_through(&bare, &["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh"])?;
    ensure!(
        !ok && text.contains("no cgroup v2 hierarchy is mounted") && text.contains("mount -t cgroup2"),
        "{text}"
    );
    untouched(&bare)
}

#[test]
fn a_taken_port_is_named_before_any_pod_is_touched() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.mesh.enroll = vec![Enroll::running(&bare.client)];
    let taken =
        harness::inside::in_netns(bare.nodes[0].netns(), || std::net::TcpListener::bind("[::]:15020"))??;
    let (ok, text) = start_through(&bare, &[])?;
    ensure!(!ok && text.contains("15020") && text.contains("--metrics-address"), "{text}");
    drop(taken);
    untouched(&bare)
}

#[test]
fn a_malformed_mesh_file_is_refused_at_the_start_with_its_line() -> Result<()> {
    let bare = Bare::new()?;
    let [n1, _] = &bare.nodes;
    mesh_file::replace(
        &bare.mesh_path(n1),
        "ca: {dir: /tmp}\nworkloads:\n- name: a\n  namespace: b\n  workloadIps: [not-an-ip]\n",
    )?;
    let mut agent = Agent::spawn(n1, &bare.mesh_path(n1), &[])?;
    ensure!(!agent.wait_exit(LIMIT)?.success());
    ensure!(agent.log().contains("line 5") && agent.log().contains("not-an-ip"), "{}", agent.log());
    untouched(&bare)
}

#[test]
fn a_malformed_mesh_file_later_keeps_the_last_good_state() -> Result<()> {
    let world = World::new()?;
    let [n1, _] = &world.nodes;
    let path = mesh_path(&world.run, n1);
    let good = std::fs::read_to_string(&path)?;
    mesh_file::replace(&path, &format!("{good}\nnonsense: true\n"))?;
    let line = world.agent1.wait_for_log(&["mesh file rejected"], LIMIT)?;
    let lines = good.lines().count();
    ensure!(line.contains("nonsense") && line.contains(&format!("line {}", lines + 2)), "{line}");
    for target in at(world.server.addresses(), HTTP) {
        ensure!(world.client.get(target, "/")?.status == 200);
    }
    let metrics = world.agent1.metrics()?;
    ensure!(metrics.contains("culvert_mesh_file_rejected_total 1"), "{metrics}");
    Ok(())
}

#[test]
fn a_pod_without_an_address_is_refused_and_the_others_are_served() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let bare = world.run.add_netns("n1-noaddress")?;
    world.mesh.enroll.push(Enroll { netns: Some(bare.clone()), ..Enroll::by_cni("noaddress", "demo", &n1) });
    world.write_mesh()?;
    let line = world.agent1.wait_for_log(&["pod not enrolled", "demo/noaddress"], LIMIT)?;
    ensure!(line.contains("no address"), "{line}");
    ensure!(std::fs::read_dir(n1.bpffs().join("v1/pods"))?.count() == 2, "nothing may stay of it");
    let name = bare.file_name().context("name")?.to_string_lossy().into_owned();
    ensure!(!harness::command::ip(&format!("-n {name} rule"))?.contains("0xc17"));
    ensure!(world.client.get(at(world.server.addresses(), HTTP)[0], "/")?.status == 200);
    Ok(())
}

#[test]
fn a_namespace_that_is_gone_is_named_and_the_others_are_served() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let gone =
        Enroll { netns: Some("/run/netns/culvert-gone".into()), ..Enroll::by_cni("gone", "demo", &n1) };
    let file = Enroll { netns: Some("/etc/hostname".into()), ..Enroll::by_cni("file", "demo", &n1) };
    world.mesh.enroll.extend([gone, file]);
    world.write_mesh()?;
    let line = world.agent1.wait_for_log(&["pod not enrolled", "demo/gone"], LIMIT)?;
    ensure!(line.contains("/run/netns/culvert-gone cannot be opened"), "{line}");
    let line = world.agent1.wait_for_log(&["pod not enrolled", "demo/file"], LIMIT)?;
    ensure!(line.contains("/etc/hostname is not a network namespace"), "{line}");
    ensure!(world.client.get(at(world.server.addresses(), HTTP)[0], "/")?.status == 200);
    Ok(())
}

#[test]
fn garbage_on_the_enrol_socket_is_answered_with_an_error() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    world.mesh.enroll.push(Enroll::by_cni("wanted", "demo", &n1));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=3"], LIMIT)?;
    let socket = n1.cni_socket();
    let ask = |message: &[u8]| -> Result<Response> {
        let connection = Connection::connect(&socket, LIMIT)?;
        connection.send(message, &[])?;
        Ok(Response::decode(&connection.recv(MAX_MESSAGE)?.0)?)
    };
    let error =
        |message: &[u8]| -> Result<String> { Ok(ask(message)?.error.context("an error was expected")?.msg) };
    ensure!(error(b"garbage")?.contains("not a message"));
    ensure!(error(b"{\"version\":2}")?.contains("version 2"));
    ensure!(error(b"{\"version\":1,\"command\":\"destroy\"}")?.contains("not a message"));
    let wanted = br#"{"version":1,"command":"add","containerId":"c","netns":"/x","ifname":"eth0","pod":{"name":"wanted","namespace":"demo"}}"#;
    ensure!(error(wanted)?.contains("without its network namespace"));
    // Neither a silent caller nor one that hands over something else holds up the next.
    let silent = Connection::connect(&socket, LIMIT)?;
    let connection = Connection::connect(&socket, LIMIT)?;
    let file = std::fs::File::open("/etc/hostname")?;
    connection.send(wanted, &[file.as_fd()])?;
    let response = Response::decode(&connection.recv(MAX_MESSAGE)?.0)?;
    ensure!(response.error.context("an error")?.msg.contains("not a network namespace"));
    drop(silent);
    ensure!(world.client.get(at(world.server.addresses(), HTTP)[0], "/")?.status == 200);
    Ok(())
}

#[test]
fn a_client_that_cannot_prove_itself_gets_no_tunnel() -> Result<()> {
    let world = World::new()?;
    let ca = world.run.dir().join("ca");
    let mesh = Signer::Mesh(&ca);
    let good = "spiffe://cluster.local/ns/demo/sa/plain";
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let cases = [
        ("trust domain", Peer::new(&mesh, "spiffe://other.example/ns/demo/sa/plain", in_an_hour())?),
        ("xpired", Peer::new(&mesh, good, an_hour_ago)?),
        ("nknown", Peer::new(&Signer::Stranger, good, in_an_hour())?),
    ];
    for target in at(world.server.addresses(), HTTP) {
        for (words, peer) in &cases {
            let stream = world.plain.connect(SocketAddr::new(target.ip(), 15008), LIMIT)??;
            let source = stream.local_addr()?;
            let answer = peer.ask(stream, &http::Method::CONNECT, &target.to_string());
            ensure!(answer.is_err(), "{words}: {answer:?}");
            let line =
                world.agent2.wait_for_log(&["connection failed", &format!("src.addr={source}")], LIMIT)?;
            ensure!(line.contains(words), "expected {words:?} in {line}");
        }
        // The same peer with a certificate that is good: the tests' tool is not what fails.
        let stream = world.plain.connect(SocketAddr::new(target.ip(), 15008), LIMIT)??;
        let peer = Peer::new(&mesh, good, in_an_hour())?;
        ensure!(peer.ask(stream, &http::Method::CONNECT, &target.to_string())? == 200);
    }
    Ok(())
}

#[test]
fn a_request_that_is_not_allowed_gets_its_status() -> Result<()> {
    let world = World::new()?;
    let ca = world.run.dir().join("ca");
    let peer = Peer::new(&Signer::Mesh(&ca), "spiffe://cluster.local/ns/demo/sa/plain", in_an_hour())?;
    for target in at(world.server.addresses(), HTTP) {
        let with_port = |port| SocketAddr::new(target.ip(), port).to_string();
        let elsewhere = if target.is_ipv4() { "10.1.1.99:8080" } else { "[2001:db8:1:1::99]:8080" };
        let cases = [
            (http::Method::CONNECT, with_port(15008), 503),
            (http::Method::CONNECT, with_port(4444), 503),
            (http::Method::CONNECT, elsewhere.to_owned(), 400),
            (http::Method::CONNECT, "no-such.demo.svc.cluster.local:80".to_owned(), 503),
            (http::Method::GET, with_port(HTTP), 400),
            (http::Method::CONNECT, with_port(HTTP), 200),
        ];
        for (method, authority, status) in cases {
            let stream = world.plain.connect(SocketAddr::new(target.ip(), 15008), LIMIT)??;
            let answer = peer.ask(stream, &method, &authority)?;
            ensure!(answer == status, "{method} {authority}: {answer}, expected {status}");
        }
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_who_it_should_be_gets_nothing() -> Result<()> {
    let mut world = World::new()?;
    // The first node's agent is told that the server runs as somebody else.
    let [n1, _] = world.nodes.clone();
    let mut told = world.mesh.clone();
    for workload in told.workloads.iter_mut().filter(|w| w.name == "server") {
        workload.service_account = "impostor".to_owned();
    }
    told.write_for(&n1, &mesh_path(&world.run, &n1))?;
    world.agent1.wait_for_log(&["mesh file applied", "changed=true"], LIMIT)?;
    let targets = at(world.server.addresses(), HTTP);
    harness::eventually("the server to be refused", LIMIT, || {
        world.client.attempt(targets[0], "/").ok()?.is_refused().then_some(())
    })?;
    ensure!(world.client.attempt(targets[1], "/")?.is_refused());
    world.agent1.wait_for_log(
        &["direction=\"outbound\"", "error=", "spiffe://cluster.local/ns/demo/sa/impostor"],
        LIMIT,
    )?;
    world.mesh.workloads.push(Workload::of_pod(&world.plain).plain());
    world.write_mesh()?;
    until_answered(&world.client, targets[0])?;
    Ok(())
}
