//! CHECK, GC and STATUS, which containerd of this release does not send: by hand, on pods in real namespaces.

use anyhow::{Context as _, Result, bail, ensure};
use cri_tests::LIMIT;
use harness::mesh_file::Enroll;
use harness::wait::eventually_ok;
use harness::{Agent, CniError, MeshFile, Run, Wire, cni};

/// Of the agent: capture is not whole.
const NOT_INTACT: u64 = 102;

#[test]
fn check_gc_and_status_do_what_the_specification_says() -> Result<()> {
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let node = wire.add_node("n1")?;
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.enroll = ["kept", "unused", "elsewhere"].map(|name| Enroll::by_cni(name, "demo", &node)).into();
    let path = run.dir().join("n1.yaml");
    mesh.write_for(&node, &path)?;
    let mut agent = Agent::start(&node, &path)?;

    let mut ours = node.conflist()?;
    ours.cni_version = "1.1.0".to_owned();
    ours.plugins = vec![cni::culvert_entry(&node.cni_socket())];
    ours.status()?;

    let (kept, unused) = (node.add_pod("kept", "demo")?, node.add_pod("unused", "demo")?);
    let mut other = node.conflist()?;
    other.name = "another-network".to_owned();
    let elsewhere = node.add_pod_with("elsewhere", "demo", other)?;
    for pod in [&kept, &unused, &elsewhere] {
        pod.check()?;
    }
    // Of a network only what its runtime does not name any more, and that again is fine.
    ours.gc(&[kept.sandbox()])?;
    agent.wait_for_log(&["pod released", "demo/unused"], LIMIT)?;
    ours.gc(&[kept.sandbox()])?;
    kept.check()?;
    elsewhere.check()?;
    let error = unused.check().err().context("CHECK finds a pod whole that GC has released")?;
    let CniError::Plugin { plugin, code: NOT_INTACT, .. } = &error else { bail!("{error}") };
    ensure!(plugin == "culvert-cni", "{error}");

    // Neither STATUS nor GC depends on the agent; CHECK of a pod of the mesh does.
    agent.kill9()?;
    ours.status()?;
    ours.gc(&[])?;
    ensure!(kept.check().is_err(), "CHECK says that a pod is whole whose agent is not there");
    agent.restart()?;
    eventually_ok("the pod to be whole again", LIMIT, || Ok(kept.check()?))?;
    elsewhere.check()?;
    for pod in [kept, unused, elsewhere] {
        pod.remove()?;
    }
    Ok(())
}
