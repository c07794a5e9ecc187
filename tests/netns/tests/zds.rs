//! The agent under an istio-cni that captures: pods come by ZDS, connections by its rules.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::Enroll;
use harness::{Agent, Attempt, Pod, command};
use netns_tests::istio_cni::{self, IstioCni, Proxy};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, at, ips, metric, until_answered, until_refused};

/// Two nodes, of which the first has an istio-cni, and the second our own capture.
struct World {
    agent1: Agent,
    _agent2: Agent,
    proxy: Proxy,
    cni: IstioCni,
    bare: Bare,
}

impl World {
    /// Names `client` and `neighbour`, of the first node, in the first snapshot.
    fn new() -> Result<Self> {
        let mut bare = Bare::new()?;
        bare.mesh.enroll = vec![Enroll::running(&bare.server)];
        bare.write_mesh()?;
        let [n1, n2] = &bare.nodes;
        let socket: PathBuf = bare.run.dir().join("zds.sock");
        let cni = IstioCni::listen(&socket)?;
        let flag = format!("--zds-socket={}", socket.display());
        let mut agent1 = Agent::spawn(n1, &bare.mesh_path(n1), &[&flag])?;
        let mut agent2 = Agent::spawn(n2, &bare.mesh_path(n2), &[])?;
        let proxy = cni.accept()?;
        for pod in [&bare.client, &bare.neighbour] {
            istio_cni::capture(pod)?;
            let error = proxy.add(pod)?;
            ensure!(error.is_empty(), "{}: {error}", pod.name());
        }
        let not_yet = agent1.get(15021, "/healthz/ready")?;
        ensure!(not_yet.status != 200 && not_yet.body.contains("istio-cni"), "{not_yet:?}");
        ensure!(proxy.snapshot_sent()?.is_empty());
        agent1.wait_ready()?;
        agent2.wait_ready()?;
        agent2.wait_for_log(&["pod enrolled", "demo/server"], LIMIT)?;
        Ok(Self { agent1, _agent2: agent2, proxy, cni, bare })
    }
}

fn expect(from: &Pod, to: SocketAddr, source: &Pod) -> Result<()> {
    let reply = from.get(to, "/")?;
    ensure!(reply.status == 200, "{} to {to}: {reply:?}", from.name());
    ensure!(source.addresses().contains(&reply.peer()?.ip()), "{to} sees {}", reply.body);
    Ok(())
}

#[test]
fn connections_are_carried_both_ways_with_their_sources_kept() -> Result<()> {
    let world = World::new()?;
    let World { agent1, bare, .. } = &world;
    let Bare { client, neighbour, server, plain, .. } = bare;
    for to in at(server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)) {
        expect(client, to, client)?;
    }
    agent1.wait_for_log(&["outbound", "dst.hbone_addr", "server"], LIMIT)?;
    for to in at(neighbour.addresses(), HTTP) {
        // From the mesh in a tunnel, from within the node, from outside in plaintext.
        expect(server, to, server)?;
        expect(client, to, client)?;
        expect(plain, to, plain)?;
        agent1.wait_for_log(&["inbound", &format!("dst.addr={to}")], LIMIT)?;
    }
    let out = at(bare.outside_ips(), HTTP);
    for to in out {
        // Nobody is there, and the pod is told so.
        ensure!(matches!(client.attempt(to, "/")?, Attempt::Refused(_)), "{to}");
    }
    Ok(())
}

#[test]
fn names_are_answered_and_the_agents_own_ports_are_nobodys() -> Result<()> {
    let world = World::new()?;
    let bare = &world.bare;
    for server in bare.outside_ips() {
        for transport in ["+notcp", "+tcp"] {
            let mut dig = bare.client.command("dig")?;
            dig.arg(format!("@{server}")).args(["+tries=1", "+time=10", "+short", transport]);
            let said = command::run(dig.args(["web.demo.svc.cluster.local", "A"]))?;
            ensure!(said.trim() == WEB[0], "{server} {transport}: {said:?}");
        }
    }
    for port in [15001, 15006] {
        for to in at(bare.client.addresses(), port) {
            let attempt = bare.client.attempt(to, "/")?;
            ensure!(!attempt.is_ok(), "{to}: {attempt:?}");
        }
    }
    Ok(())
}

#[test]
fn pods_come_and_go_as_istio_cni_says() -> Result<()> {
    let World { mut agent1, _agent2, proxy, cni, bare } = World::new()?;
    let Bare { client, neighbour, server, .. } = &bare;
    let targets = at(server.addresses(), HTTP);
    // The same again changes nothing, and what makes no sense is told and changes nothing either.
    ensure!(proxy.add(client)?.is_empty());
    ensure!(proxy.keep(client)?.contains("after the snapshot"));
    ensure!(proxy.snapshot_sent()?.contains("second snapshot"));
    ensure!(proxy.say(&[0xff])?.contains("not a message of ZDS"));
    ensure!(proxy.say(&[0x3a, 0])?.contains("does not know"));
    for to in targets {
        expect(client, to, client)?;
    }
    ensure!(metric(&agent1, "workload_manager_active_proxy_count", &[])? == 2.0);

    ensure!(proxy.delete(neighbour)?.is_empty() && proxy.delete(neighbour)?.is_empty());
    for to in targets {
        until_refused(neighbour, to)?;
        expect(client, to, client)?;
    }
    ensure!(proxy.add(neighbour)?.is_empty());
    for to in targets {
        expect(neighbour, to, neighbour)?;
    }

    // It goes, and nothing changes; it comes back and knows one pod only.
    drop(proxy);
    agent1.wait_for_log(&["not connected to istio-cni"], LIMIT)?;
    for to in targets {
        expect(client, to, client)?;
        expect(neighbour, to, neighbour)?;
    }
    let proxy = cni.accept()?;
    ensure!(proxy.keep(client)?.is_empty() && proxy.snapshot_sent()?.is_empty());
    for to in targets {
        expect(client, to, client)?;
        until_refused(neighbour, to)?;
    }
    ensure!(metric(&agent1, "workload_manager_active_proxy_count", &[])? == 1.0);
    ensure!(metric(&agent1, "culvert_zds_connected", &[])? == 1.0);
    let status = agent1.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_pod_that_cannot_be_served_is_refused_with_the_reason_and_tried_again() -> Result<()> {
    let world = World::new()?;
    let World { agent1, proxy, bare, .. } = &world;
    let Bare { neighbour, server, .. } = bare;
    ensure!(proxy.delete(neighbour)?.is_empty());
    // Until the listeners that were there are gone.
    let bind = || neighbour.inside(|| std::net::TcpListener::bind("0.0.0.0:15001"))?.context("15001");
    let taken = harness::wait::eventually_ok("port 15001 of the pod", LIMIT, bind)?;
    let error = proxy.add(neighbour)?;
    ensure!(error.contains("15001") && error.contains("another agent or application"), "{error}");
    ensure!(metric(agent1, "culvert_pods", &[("state", "pending")])? == 1.0);
    drop(taken);
    for to in at(server.addresses(), HTTP) {
        until_answered(neighbour, to)?;
    }
    Ok(())
}

#[test]
fn another_agent_takes_the_place_of_one_without_an_attempt_refused() -> Result<()> {
    let World { mut agent1, _agent2, proxy, cni, bare } = World::new()?;
    let Bare { client, neighbour, server, .. } = &bare;
    let [n1, _] = &bare.nodes;
    let target = at(server.addresses(), HTTP).into_iter().next().context("no address")?;
    let mut open = client.open_http(target)?;
    ensure!(open.get("/before")?.status == 200);
    let socket = format!("--zds-socket={}", bare.run.dir().join("zds.sock").display());
    // Ports of its own, as an agent in a pod of its own has them.
    let ports =
        ["--metrics-address=[::]:25020", "--readiness-address=[::]:25021", "--admin-address=localhost:25000"];
    let flags: Vec<&str> = [socket.as_str()].into_iter().chain(ports).collect();
    let _next = Agent::spawn(n1, &bare.mesh_path(n1), &flags)?;
    let other = cni.accept()?;
    for pod in [client, neighbour] {
        ensure!(other.add(pod)?.is_empty());
    }
    ensure!(other.snapshot_sent()?.is_empty());
    for pod in [client, neighbour] {
        ensure!(proxy.delete(pod)?.is_empty());
        for _ in 0..20 {
            expect(pod, target, pod)?;
        }
    }
    ensure!(open.get("/after")?.status == 200, "what is open goes on");
    drop(open);
    let status = agent1.stop()?;
    ensure!(status.success(), "{status}");
    expect(client, target, client)
}

/// What a real istio-cni said, byte for byte: pods that it has no namespace for, the end of its snapshot, two that are added,
/// one of them twice, and one deletion.
#[test]
fn a_recorded_istio_cni_is_answered_as_the_peer_answers() -> Result<()> {
    let bare = Bare::new()?;
    bare.write_mesh()?;
    let [n1, _] = &bare.nodes;
    let socket: PathBuf = bare.run.dir().join("zds.sock");
    let cni = IstioCni::listen(&socket)?;
    let flag = format!("--zds-socket={}", socket.display());
    let mut agent = Agent::spawn(n1, &bare.mesh_path(n1), &[&flag])?;
    // It has greeted as the recorded one did.
    let proxy = cni.accept()?;
    let served = |agent: &Agent| metric(agent, "workload_manager_active_proxy_count", &[]);
    let mut messages = recordings::zds::conversation()?.into_iter().skip(1);
    let mut said = 0;
    while let (Some(theirs), Some(answer)) = (messages.next(), messages.next()) {
        let received = theirs.received.context("said by istio-cni")?;
        let pod = match received["add"]["workload_info"]["name"].as_str() {
            Some("sleep") => Some(&bare.client),
            Some(_) => Some(&bare.neighbour),
            None => None,
        };
        ensure!(pod.is_some() == (theirs.descriptors == Some(1)), "{received}");
        let ours = proxy.replay(&theirs.raw, pod)?;
        ensure!(ours == answer.raw, "{received}: {ours:?}");
        said += 1;
        // Kept, all named, one, two, the second one again, one deleted.
        let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 1.0];
        ensure!(Some(&served(&agent)?) == expected.get(said - 1), "{received}");
        if received.get("snapshot_sent").is_some() {
            agent.wait_ready()?;
        }
    }
    ensure!(said == 9, "{said}");
    let status = agent.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// A message of the recorded conversation.
struct Said<'a> {
    received: serde_json::Value,
    raw: Vec<u8>,
    pod: Option<&'a Pod>,
}

/// What a proxy must do: which pods it serves, and which have been named of a snapshot that is not over.
#[derive(Default)]
struct Expected {
    served: BTreeSet<String>,
    named: Option<BTreeSet<String>>,
}

impl Expected {
    /// Hears a message; whether it is to be answered without an error.
    fn hear(&mut self, received: &serde_json::Value) -> Result<bool> {
        let uid = |kind: &str| received.get(kind)?.get("uid")?.as_str().map(str::to_owned);
        if let Some(uid) = uid("add") {
            if let Some(named) = &mut self.named {
                named.insert(uid.clone());
            }
            self.served.insert(uid);
        } else if let Some(uid) = uid("keep") {
            let Some(named) = &mut self.named else { return Ok(false) };
            named.insert(uid);
        } else if let Some(uid) = uid("del") {
            self.served.remove(&uid);
        } else {
            ensure!(received.get("snapshot_sent").is_some(), "{received}");
            let Some(named) = self.named.take() else { return Ok(false) };
            self.served.retain(|uid| named.contains(uid));
        }
        Ok(true)
    }
}

/// An agent that is played the recorded conversation again and again.
struct Spoiled<'a> {
    agent: &'a Agent,
    cni: &'a IstioCni,
    expected: Expected,
}

impl Spoiled<'_> {
    /// Plays messages on a connection of their own. Each must be answered, and have done what it says and nothing else.
    fn play<'m>(&mut self, messages: impl IntoIterator<Item = &'m Said<'m>>) -> Result<Proxy> {
        let proxy = self.cni.accept()?;
        self.expected.named = Some(BTreeSet::new());
        for message in messages {
            let is_fine = self.expected.hear(&message.received)?;
            let answer = proxy.replay(&message.raw, message.pod)?;
            ensure!((answer == ACK) == is_fine, "{}: {answer:?}", message.received);
            self.serves_what_it_should()?;
        }
        Ok(proxy)
    }

    fn serves_what_it_should(&self) -> Result<()> {
        let served = metric(self.agent, "workload_manager_active_proxy_count", &[])?;
        ensure!(served == self.expected.served.len() as f64, "{served}, and {:?}", self.expected.served);
        ensure!(self.agent.log_lines(&["panicked"]).is_empty(), "a panic");
        Ok(())
    }
}

/// An answer without an error.
const ACK: [u8; 2] = [0x0a, 0];
/// In how many places each message is cut.
const CUTS: usize = 50;

/// The same conversation, with each message cut, dropped, said twice, and said before the one in front of it.
#[test]
fn a_recorded_istio_cni_that_is_spoiled_changes_no_other_pod() -> Result<()> {
    let bare = Bare::new()?;
    bare.write_mesh()?;
    let [n1, _] = &bare.nodes;
    let socket: PathBuf = bare.run.dir().join("zds.sock");
    let cni = IstioCni::listen(&socket)?;
    let flag = format!("--zds-socket={}", socket.display());
    let mut agent = Agent::spawn(n1, &bare.mesh_path(n1), &[&flag])?;
    let mut messages = Vec::new();
    for message in recordings::zds::conversation()? {
        let Some(received) = message.received else { continue };
        let pod = match received["add"]["workload_info"]["name"].as_str() {
            Some("sleep") => Some(&bare.client),
            Some(_) => Some(&bare.neighbour),
            None => None,
        };
        messages.push(Said { received, raw: message.raw, pod });
    }
    ensure!(messages.len() == 9, "{}", messages.len());
    let (without_deletion, all) = (messages.get(..8).unwrap_or_default(), messages.as_slice());
    let mut spoiled = Spoiled { agent: &agent, cni: &cni, expected: Expected::default() };
    let proxy = spoiled.play(without_deletion)?;
    ensure!(spoiled.expected.served.len() == 2);
    // What is cut is told, and does nothing: after a snapshot, and in one, which then ends no pod.
    let cut = |proxy: &Proxy, spoiled: &Spoiled<'_>, message: &Said<'_>| -> Result<()> {
        let ends: BTreeSet<usize> = (0..CUTS).map(|n| message.raw.len() * n / CUTS).collect();
        // Nothing at all is the end of a connection.
        for end in ends.into_iter().filter(|end| *end > 0) {
            let bytes = message.raw.get(..end).unwrap_or_default();
            ensure!(proxy.replay(bytes, message.pod)? != ACK, "{bytes:?}");
        }
        spoiled.serves_what_it_should()
    };
    for message in all {
        cut(&proxy, &spoiled, message)?;
    }
    drop(proxy);
    let proxy = cni.accept()?;
    for message in all {
        cut(&proxy, &spoiled, message)?;
    }
    ensure!(proxy.snapshot_sent()?.is_empty());
    spoiled.serves_what_it_should()?;
    drop(proxy);
    for spoil in 0..all.len() {
        let but_one = all.iter().enumerate().filter(|(n, _)| *n != spoil).map(|(_, message)| message);
        drop(spoiled.play(but_one)?);
        let one_twice =
            all.iter().enumerate().flat_map(|(n, it)| std::iter::repeat_n(it, 1 + usize::from(n == spoil)));
        drop(spoiled.play(one_twice)?);
        let mut order: Vec<&Said<'_>> = all.iter().collect();
        if spoil > 0 {
            order.swap(spoil - 1, spoil);
        }
        drop(spoiled.play(order)?);
    }
    let status = agent.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
