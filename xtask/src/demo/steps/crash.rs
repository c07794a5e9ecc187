//! The agent is killed: its pods are refused, in plaintext goes nothing; it starts again, and finds its pods.

use anyhow::Result;
use harness::Narrator;

use super::super::world::{TUNNEL_PORT, World};

const SECRET: &str = "/my-secret-while-the-agent-is-dead";

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("The agent of node1 is killed with -9, and started again");
    let [agent1, _] = &mut world.agents;
    say.ran(&format!("kill -9 {}", agent1.pid().unwrap_or_default()));
    agent1.kill9()?;
    world.tap.clear()?;
    for (name, to) in world.destinations()? {
        let attempt = world.sleep.attempt(to, SECRET)?;
        say.saw(&format!("sleep by {name}: {attempt:?}"));
        say.claim(attempt.is_refused(), &format!("sleep is refused by {name}"));
    }
    let readable = world.tap.contains(SECRET.as_bytes())?;
    let ports = world.tap.ports()?;
    say.claim(!readable && ports.is_empty(), "nothing left the node, in plaintext or otherwise");

    let [agent1, _] = &mut world.agents;
    agent1.restart()?;
    say.ran(&agent1.command_line()?.join(" "));
    world.tap.clear()?;
    for (name, to) in world.destinations()? {
        let attempt = world.sleep.attempt(to, "/after-the-restart")?;
        if !attempt.is_ok() {
            say.saw(&format!("{attempt:?}"));
        }
        say.claim(attempt.is_ok(), &format!("sleep is answered by {name}"));
    }
    let attempt = world.notsleep()?.attempt(world.page(), "/after-the-restart")?;
    say.claim(attempt.is_ok(), "so is notsleep, which no file names a namespace for");
    let readable = world.tap.contains(b"/after-the-restart")?;
    let tunnelled = world.tap.ports()?.iter().all(|port| *port == TUNNEL_PORT);
    say.claim(!readable && tunnelled, "all of it through the tunnel");
    Ok(())
}
