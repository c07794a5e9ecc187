//! Row E15 of the truth table: a virtual machine in a pod, here a namespace behind an interface of it, which has a kernel of its own as far as
//! capture goes: none of its sockets is in the pod.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use harness::wait::eventually_ok;
use harness::wire::name_of;
use harness::{Attempt, Reply, WireTap, command, eventually};
use netns_tests::forger::Nested;
use netns_tests::kernel::routing;
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips};

const REROUTE: &str = "istio.io/reroute-virtual-interfaces";
/// Addresses of the machine.
const MACHINE: [&str; 2] = ["192.168.77.2", "fd77:77::2"];

/// Has the client's annotation be this, and waits until it is captured so.
fn annotate(world: &mut World, interfaces: Option<&str>) -> Result<()> {
    let enrolled = |world: &World| world.agent1.log_lines(&["pod enrolled", "demo/client"]).len();
    let before = enrolled(world);
    for entry in world.mesh.enroll.iter_mut().filter(|entry| entry.name == "client") {
        entry.annotations.remove(REROUTE);
        entry.annotations.extend(interfaces.map(|names| (REROUTE.to_owned(), names.to_owned())));
    }
    world.write_mesh()?;
    eventually("the pod to be captured as it is wanted", LIMIT, || (enrolled(world) > before).then_some(()))
}

/// How many rules there are for the machine's interface.
fn rules(world: &World) -> Result<usize> {
    Ok(routing(&world.client)?.matches(&format!("iif {}", Nested::INTERFACE)).count())
}

fn until_answered(machine: &Nested, to: SocketAddr) -> Result<Reply> {
    eventually_ok(&format!("{to} to answer the machine"), LIMIT, || match machine.attempt(to)? {
        Attempt::Answered(reply) if reply.status == 200 => Ok(reply),
        other => bail!("{other:?}"),
    })
}

#[test]
fn e15_what_a_virtual_machine_sends_is_captured_as_the_applications() -> Result<()> {
    let mut world = Bare::new()?.enrol()?;
    // The machine's interface comes after its pod, as it does with KubeVirt.
    annotate(&mut world, Some(&format!("none0, {}", Nested::INTERFACE)))?;
    let machine = Nested::new(&world.client)?;
    let tap = WireTap::start(world.nodes[0].netns())?;
    let servers = [at(ips(WEB), SERVICE), at(world.server.addresses(), HTTP)].concat();
    for &to in &servers {
        ensure!(until_answered(&machine, to)?.field("app") == "server");
        ensure!(!tap.any(|segment| segment.opens() && segment.destination == to), "{to}: not tunnelled");
    }
    for address in MACHINE {
        let source = format!(
            "src.addr={}",
            if address.contains(':') { format!("[{address}]") } else { address.into() }
        );
        world.agent1.wait_for_log(&["connection complete", "outbound", "sa/client", &source], LIMIT)?;
    }
    world.agent2.wait_for_log(&["connection complete", "inbound", "sa/client"], LIMIT)?;
    // Past the mesh as the application would: from the pod's own address.
    for to in at(world.plain.addresses(), HTTP) {
        let peer = until_answered(&machine, to)?.peer()?;
        ensure!(world.client.addresses().contains(&peer.ip()), "{peer}");
    }
    // To the pod itself, and others to the pod.
    for to in at(world.client.addresses(), HTTP) {
        ensure!(until_answered(&machine, to)?.field("app") == "client");
        ensure!(world.plain.get(to, "/")?.field("app") == "client");
        ensure!(world.server.get(to, "/")?.field("app") == "client");
    }
    for to in at(world.client.addresses(), 9) {
        ensure!(machine.attempt(to)?.is_refused(), "{to}");
    }
    // Who takes the rules away ends it for a moment, in which the machine is forwarded, and no more.
    ensure!(rules(&world)? == 2, "{}", routing(&world.client)?);
    let netns = name_of(world.client.netns());
    for family in ["-4", "-6"] {
        command::ip(&format!("{family} -n {netns} rule del iif {}", Nested::INTERFACE))?;
    }
    eventually("its rules to be back", LIMIT, || (rules(&world).ok()? == 2).then_some(()))?;
    for &to in &servers {
        until_answered(&machine, to)?;
    }

    world.agent1.kill9()?;
    for &to in &servers {
        machine.knock(to)?;
        ensure!(
            !tap.any(|segment| segment.opens() && segment.destination == to),
            "{to}: left without an agent"
        );
    }
    world.agent1.restart()?;
    for &to in &servers {
        until_answered(&machine, to)?;
    }

    // Without its annotation the pod is a router, as any pod may be, and nothing of it is left.
    annotate(&mut world, None)?;
    ensure!(rules(&world)? == 0, "{}", routing(&world.client)?);
    for to in at(world.outside_ips(), 7100) {
        machine.knock(to)?;
        ensure!(tap.any(|segment| segment.opens() && segment.destination == to), "{to}: not forwarded");
    }
    Ok(())
}

#[test]
fn e15_a_machine_whose_pod_is_released_is_let_go_of() -> Result<()> {
    let mut world = Bare::new()?.enrol()?;
    let machine = Nested::new(&world.client)?;
    annotate(&mut world, Some(Nested::INTERFACE))?;
    let to = at(world.server.addresses(), HTTP)[0];
    until_answered(&machine, to)?;
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    let tap = WireTap::start(world.nodes[0].netns())?;
    for to in at(world.outside_ips(), 7100) {
        machine.knock(to)?;
        ensure!(tap.any(|segment| segment.opens() && segment.destination == to), "{to}: not forwarded");
    }
    eventually("its rules to be gone", LIMIT, || (rules(&world).ok()? == 0).then_some(()))
}
