//! A pod that is in the mesh from its first packet on: ADD returns once capture is verified.

use std::time::Instant;

use anyhow::{Context as _, Result};
use harness::Narrator;

use super::super::world::{NAMESPACE, TUNNEL_PORT, World};

const SECRET: &str = "/my-first-secret";

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("notsleep starts as a member: captured before CNI ADD returns");
    let [node1, _] = &world.nodes;
    say.ran(&format!("CNI ADD notsleep, last plugin {}", world.plugin.display()));
    let started = Instant::now();
    let pod = node1.add_pod("notsleep", NAMESPACE).context("CNI ADD of notsleep")?;
    let took = started.elapsed();
    world.tap.clear()?;
    let reply = pod.get(world.page(), SECRET)?;
    say.saw(&format!("ADD of the whole list took {} ms; the pod's very first request:", took.as_millis()));
    say.saw(&reply.body);
    say.claim(reply.peer()?.ip() == pod.addresses()[0], "productpage sees notsleep's own address");
    let segments = world.tap.segments_of_port(TUNNEL_PORT)?;
    let readable = world.tap.contains(SECRET.as_bytes())?;
    say.claim(!readable && segments > 0, "the first request is in the tunnel already");
    say.claim(pod.check().is_ok(), "CNI CHECK finds it intact");
    world.notsleep = Some(pod);
    Ok(())
}
