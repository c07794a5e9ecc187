//! Settings that users of other node agents set, and what is different then.

use anyhow::{Context as _, Result, ensure};
use netns_tests::{Bare, HTTP, LIMIT, at};

const NEXT: &str = "captured pods are refused until the next one starts";

#[test]
fn without_the_original_source_applications_see_their_own_pod() -> Result<()> {
    let world = Bare::new()?.enrol_with(&["--enable-orig-src", "false"])?;
    for target in at(world.server.addresses(), HTTP) {
        // In a tunnel from the mesh, and in plaintext from outside of it.
        for reply in [world.client.get(target, "/")?, world.plain.get(target, "/")?] {
            ensure!(reply.status == 200 && reply.field("app") == "server", "{}", reply.body);
            ensure!(reply.peer()?.ip() == target.ip(), "{} instead of {target}", reply.body);
        }
    }
    Ok(())
}

#[test]
fn open_connections_are_served_to_their_end_after_the_agent_was_told_to_end() -> Result<()> {
    let mut world = Bare::new()?.enrol_with(&["--connection-termination-deadline", "1h"])?;
    let target = at(world.server.addresses(), HTTP).into_iter().next().context("no address")?;
    let mut http = world.client.open_http(target)?;
    ensure!(http.get("/before")?.status == 200);
    world.agent1.terminate()?;
    world.agent1.wait_for_log(&["told to end"], LIMIT)?;
    ensure!(http.get("/after")?.status == 200, "what is open goes on");
    drop(http);
    let status = world.agent1.wait_exit(LIMIT)?;
    ensure!(status.success(), "{status}");
    world.agent1.wait_for_log(&[NEXT], LIMIT)?;
    Ok(())
}

#[test]
fn an_agent_does_not_wait_longer_than_its_deadline_for_open_connections() -> Result<()> {
    let mut world = Bare::new()?.enrol_with(&["--connection-termination-deadline", "100ms"])?;
    let target = at(world.server.addresses(), HTTP).into_iter().next().context("no address")?;
    let mut http = world.client.open_http(target)?;
    ensure!(http.get("/before")?.status == 200);
    let status = world.agent1.stop()?;
    ensure!(status.success(), "{status}");
    world.agent1.wait_for_log(&["longer than --connection-termination-deadline allows"], LIMIT)?;
    http.wait_until_cut(LIMIT)
}

#[test]
fn an_agent_that_is_asked_to_quit_ends_as_one_that_is_terminated() -> Result<()> {
    let mut world = Bare::new()?.enrol()?;
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], 15000));
    let node = world.nodes.first().context("no node")?.netns().to_owned();
    let ask = |method: &str| -> Result<harness::Reply> {
        let stream = harness::inside::in_netns(&node, || harness::client::connect(admin, LIMIT))??;
        harness::Http::new(stream)?.request(method, "/quitquitquit", &[])
    };
    ensure!(ask("GET")?.status == 405);
    ensure!(ask("POST")?.status == 200);
    let status = world.agent1.wait_exit(LIMIT)?;
    ensure!(status.success(), "{status}");
    world.agent1.wait_for_log(&[NEXT], LIMIT)?;
    // Captured pods are refused until the next one is there.
    for to in at(world.server.addresses(), HTTP) {
        ensure!(world.client.attempt(to, "/")?.is_refused(), "{to}");
    }
    world.agent1.restart()?;
    for to in at(world.server.addresses(), HTTP) {
        netns_tests::until_answered(&world.client, to)?;
    }
    Ok(())
}
