//! Connections that are open are judged again when policies or workloads change, and cut within a moment.

#![expect(clippy::print_stdout, reason = "what was measured is for whoever reads the test's output")]

use std::time::Instant;

use anyhow::{Result, ensure};
use harness::{Http, Pod};
use netns_tests::{HTTP, LIMIT, World, at, metric_sum};
use serde_json::{Value, json};

/// A connection that is open and in use.
fn open(pod: &Pod, world: &World) -> Result<Http> {
    let mut http = pod.open_http(at(world.server.addresses(), HTTP)[0])?;
    ensure!(http.get("/live")?.status == 200);
    Ok(http)
}

fn policy(name: &str, scope: &str, action: &str, condition: &Value) -> Value {
    json!({ "name": name, "namespace": "demo", "scope": scope, "action": action, "rules": [[[condition]]] })
}

/// Clients without an identity.
fn anonymous() -> Value {
    json!({ "notPrincipals": [{ "Presence": [] }] })
}

/// Publishes what `change` makes of the mesh, and waits until the connection is cut. Returns how long both took.
fn cut_by(world: &mut World, live: &mut Http, change: impl FnOnce(&mut World)) -> Result<()> {
    change(world);
    let began = Instant::now();
    world.write_mesh()?;
    live.wait_until_cut(LIMIT)?;
    println!("cut {:?} after the mesh file was written", began.elapsed());
    Ok(())
}

fn attach(world: &mut World, policy: &str) {
    for workload in world.mesh.workloads.iter_mut().filter(|workload| workload.name == "server") {
        workload.authorization_policies.push(format!("demo/{policy}"));
    }
}

fn denied(world: &World, reason: &str) -> Result<f64> {
    metric_sum(&world.agent2, "culvert_policy_denials_total", &[("reason", reason)])
}

#[test]
fn a_new_policy_cuts_what_it_denies_and_nothing_else() -> Result<()> {
    let mut world = World::new()?;
    let (client, plain) = (&world.client, &world.plain);
    let (mut tunnelled, mut plaintext) = (open(client, &world)?, open(plain, &world)?);
    cut_by(&mut world, &mut tunnelled, |world| world.mesh.deny("no-client", "demo", "client"))?;
    ensure!(plaintext.get("/still")?.status == 200, "the policy says nothing of who has no identity");
    world.agent2.wait_for_log(&["connection complete", "closed due to policy change", "sa/client"], LIMIT)?;
    ensure!(denied(&world, "policy_change")? == 1.0);
    let attempt = world.client.attempt(at(world.server.addresses(), HTTP)[0], "/")?;
    ensure!(attempt.is_refused(), "{attempt:?}");
    ensure!(denied(&world, "explicit")? == 1.0);
    cut_by(&mut world, &mut plaintext, |world| {
        world.mesh.policies.push(policy(
            "members",
            "Namespace",
            "Allow",
            &json!({ "namespaces": [{ "Exact": "demo" }] }),
        ));
    })
}

#[test]
fn a_policy_that_comes_to_be_named_by_the_workload_cuts_too() -> Result<()> {
    let mut world = World::new()?;
    world.mesh.policies.push(policy(
        "guard",
        "WorkloadSelector",
        "Deny",
        &json!({ "namespaces": [{ "Exact": "demo" }] }),
    ));
    world.write_mesh()?;
    world.agent2.wait_for_log(&["mesh file applied", "policies=1"], LIMIT)?;
    // The policy is there, and nobody's.
    let mut live = open(&world.client, &world)?;
    let mut plaintext = open(&world.plain, &world)?;
    cut_by(&mut world, &mut live, |world| attach(world, "guard"))?;
    ensure!(plaintext.get("/still")?.status == 200);
    Ok(())
}

#[test]
fn when_a_workload_becomes_strict_plaintext_is_cut_and_tunnels_live_on() -> Result<()> {
    let mut world = World::new()?;
    world.mesh.policies.push(policy("strict", "WorkloadSelector", "Deny", &anonymous()));
    world.write_mesh()?;
    world.agent2.wait_for_log(&["mesh file applied", "policies=1"], LIMIT)?;
    let (mut tunnelled, mut plaintext) = (open(&world.client, &world)?, open(&world.plain, &world)?);
    cut_by(&mut world, &mut plaintext, |world| attach(world, "strict"))?;
    ensure!(tunnelled.get("/still")?.status == 200);
    Ok(())
}
