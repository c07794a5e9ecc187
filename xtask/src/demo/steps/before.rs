//! Before enrolment: whoever reads the wire reads the request.

use anyhow::{Context as _, Result};

use super::super::narrator::Narrator;
use super::super::world::{PORT, World};

const SECRET: &str = "/my-secret-before-enrolment";

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
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
