//! Before enrolment: whoever reads the wire reads the request.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::Narrator;

use super::super::world::{PORT, World};

const SECRET: &str = "/my-secret-before-enrolment";

/// What a pod outside of the mesh may cost.
const OUTSIDER_LIMIT: Duration = Duration::from_millis(20);

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    plaintext(say, world)?;
    outsider(say, world)
}

/// A pod that is not in the mesh hardly notices the plugin.
fn outsider(say: &mut Narrator, world: &World) -> Result<()> {
    let mut list = world.sleep.node().conflist()?;
    list.plugins = list.plugins.split_off(list.plugins.len() - 1);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        list.add(world.sleep.sandbox())?;
        best = best.min(started.elapsed());
    }
    let micros = best.as_micros();
    say.saw(&format!("culvert-cni ADD for a pod that is not in the mesh: {micros} us, the quickest of five, process start included"));
    say.claim(
        best < OUTSIDER_LIMIT,
        &format!("a pod outside of the mesh waits less than {OUTSIDER_LIMIT:?}"),
    );
    Ok(())
}

fn plaintext(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("Before enrolment: the wire is readable");
    let page = world.page();
    world.tap.clear()?;
    say.ran(&format!("sleep: GET http://{page}{SECRET}"));
    let reply = world.sleep.get(page, SECRET)?;
    say.saw(&reply.body);
    let ports = world.tap.ports()?;
    say.saw(&format!("the tap recorded {} frames, connections to ports {ports:?}", world.tap.frames()));
    say.claim(world.tap.contains(SECRET.as_bytes())?, "the request is readable between the nodes");
    say.claim(ports.iter().eq([&PORT]), "the connection went straight to the app's port");

    let mut open = world.sleep.open_http(page)?;
    let peer = open.get("/opened-before")?.peer().context("the connection that stays open")?;
    say.saw(&format!("a second connection is left open; productpage knows it as {peer}"));
    world.open = Some(open);
    Ok(())
}
