//! A DENY policy is written to the file: new connections are refused, live ones cut; removed, all works again.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::Narrator;
use harness::wait::eventually_ok;

use super::super::world::{NAMESPACE, World};

const LIMIT: Duration = Duration::from_secs(10);
const POLICY: &str = "deny-notsleep";

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("A DENY policy for notsleep, written to the file, and lifted again");
    let page = world.page();
    let mut live = world.notsleep()?.open_http(page)?;
    say.claim(live.get("/live")?.status == 200, "notsleep has a live connection to productpage");

    world.mesh.deny(POLICY, NAMESPACE, "notsleep");
    world.write_mesh()?;
    say.ran("add to the mesh file: policies: [{name: deny-notsleep, action: Deny, ...}]");
    let cut = live.wait_until_cut(LIMIT);
    if let Err(error) = &cut {
        say.saw(&format!("{error:#}"));
    }
    say.claim(cut.is_ok(), "the live connection of notsleep is cut");
    let refused = world.notsleep()?.attempt(page, "/denied")?;
    say.saw(&format!("notsleep: {refused:?}"));
    say.claim(refused.is_refused(), "a new connection of notsleep is refused");
    let [_, node2] = &world.agents;
    let denial = format!("explicitly denied by: {NAMESPACE}/{POLICY}");
    let line = node2.wait_for_log(&[&denial], LIMIT);
    if let Ok(line) = &line {
        say.saw(line);
    }
    say.claim(line.is_ok(), "node2's log names the policy");
    say.claim(world.sleep.attempt(page, "/allowed")?.is_ok(), "sleep is still answered");

    world.mesh.policies.clear();
    world.write_mesh()?;
    say.ran("remove the policy from the file");
    let lifted = eventually_ok("notsleep to be answered again", LIMIT, || {
        let attempt = world.notsleep()?.attempt(page, "/allowed-again")?;
        if attempt.is_ok() { Ok(()) } else { bail!("{attempt:?}") }
    });
    say.claim(lifted.is_ok(), "notsleep is answered again");
    lifted.context("lifting the policy")
}
