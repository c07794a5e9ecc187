//! Both nodes' access logs name both ends by identity.

use std::time::Duration;

use anyhow::Result;
use harness::Narrator;

use super::super::world::{NAMESPACE, World};

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("Both nodes' logs name both identities");
    let client = format!("src.identity=\"spiffe://cluster.local/ns/{NAMESPACE}/sa/sleep\"");
    let server = format!("dst.identity=\"spiffe://cluster.local/ns/{NAMESPACE}/sa/productpage\"");
    for (agent, direction) in world.agents.iter().zip(["outbound", "inbound"]) {
        say.ran(&format!("grep identity {}", agent.log_path().display()));
        let direction = format!("direction=\"{direction}\"");
        let found = agent.wait_for_log(&["access", &client, &server, &direction], LIMIT);
        match &found {
            Ok(line) => say.saw(line),
            Err(error) => say.saw(&format!("{error:#}")),
        }
        say.claim(found.is_ok(), &format!("{direction} with the identities of sleep and productpage"));
    }
    Ok(())
}
