//! Leaving the demo standing, and taking down what was left.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::world::{TUNNEL_PORT, World, mesh_path};

/// Lets everything live on after this process, and says what can be done with it.
pub(crate) fn leave(world: World, app: &Path) -> Result<()> {
    let [node1, node2] = &world.nodes;
    let wire = world.run.id();
    let (sleep, app) = (world.sleep.netns().display(), app.display());
    println!("\nIt is left standing. To try:");
    for (name, to) in world.destinations()? {
        println!("  nsenter --net={sleep} {app} get {to}    # sleep asks productpage: {name}");
    }
    println!("  tail -f {} {}", log(node1), log(node2));
    println!("  nsenter --net={} curl -s http://127.0.0.1:15020/metrics", node1.netns().display());
    println!(
        "  nsenter --net=/run/netns/{wire}-wire tcpdump -ni any tcp port {TUNNEL_PORT}    # if you have tcpdump"
    );
    println!(
        "  $EDITOR {} {}    # policies: applied as you save",
        mesh_path(node1)?.display(),
        mesh_path(node2)?.display()
    );
    println!("  nsenter --net={sleep} ip rule");
    println!("To take it down:\n  cargo xtask demo --down");
    world.run.keep().context("marking the run as kept")?;
    let [agent1, agent2] = world.agents;
    agent1.detach();
    agent2.detach();
    world.app.detach();
    Ok(())
}

fn log(node: &harness::Node) -> String {
    node.agent_dir().join("agent.log").display().to_string()
}

/// Takes down every kept run.
pub(crate) fn take_down() {
    let kept = harness::run::kept();
    for id in &kept {
        println!("taking down {id}");
        harness::run::teardown(id);
    }
    if kept.is_empty() {
        println!("nothing was left standing");
    }
}
