//! Enrolment of pods that run: a file is written, nothing is restarted, what is open lives on.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::Narrator;
use harness::wait::eventually_ok;

use super::super::world::{TUNNEL_PORT, World, mesh_path};

const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("sleep and productpage join the mesh while they run");
    world.fill_mesh();
    let pid = world.app.pid();
    world.write_mesh()?;
    let [node1, node2] = &world.nodes;
    say.ran(&format!("write {} and {}", mesh_path(node1)?.display(), mesh_path(node2)?.display()));
    say.saw("enroll: sleep and productpage by network namespace, notsleep for when CNI brings it;");
    say.saw("workloads: all three, each with an account of its own; services: productpage, port 80 to 8080");

    eventually_ok("new connections to take the tunnel, all families", LIMIT, || {
        for (name, to) in world.destinations()? {
            world.tap.clear()?;
            let reply = world.sleep.get(to, "/are-we-there-yet")?;
            let ports = world.tap.ports()?;
            // A tunnel that is open already needs no further connection on the wire.
            if reply.status != 200 || !ports.iter().all(|port| *port == TUNNEL_PORT) {
                bail!("{name}: status {}, connections to {ports:?}", reply.status);
            }
            if world.tap.contains(b"/are-we-there-yet")? {
                bail!("{name}: still in plaintext");
            }
        }
        Ok(())
    })?;
    say.claim(world.app.pid() == pid, "new connections are captured, and nothing was restarted");

    let open = world.open.as_mut().context("the connection of the step before")?;
    let local = open.stream().local_addr()?;
    let peer = open.get("/still-here")?.peer()?;
    say.saw(&format!(
        "the connection from before the enrolment: {local}, productpage still knows it as {peer}"
    ));
    say.claim(peer == local, "the connection that was open lives on, uninterrupted");
    Ok(())
}
