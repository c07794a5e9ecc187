//! A node whose agent is not there: pods of the mesh wait and say why, others start.

use anyhow::{Context as _, Result, anyhow, ensure};
use cri_tests::leftovers::Empty;
use cri_tests::{LIMIT, PodSpec};
use harness::wait::eventually_ok;

use crate::node;

#[test]
fn without_an_agent_pods_of_the_mesh_wait_and_others_start() -> Result<()> {
    let (n1, mut mesh) = node()?;
    mesh.enroll = vec![n1.enrol("inside")];
    mesh.write_for(&n1.node, &n1.mesh_path())?;

    // Before there ever was an agent nobody can tell who is in the mesh.
    let error =
        n1.sandbox(&PodSpec::named("outside")).err().context("a pod of which nothing is known starts")?;
    ensure!(format!("{error:#}").contains("nobody can tell"), "{error:#}");
    let system = n1.sandbox(&PodSpec { namespace: "kube-system".to_owned(), ..PodSpec::named("dns") })?;

    let mut agent = n1.start_agent()?;
    let list = n1.node.agent_dir().join("ambient.json");
    eventually_ok("the agent to leave its list", LIMIT, || Ok(std::fs::metadata(&list)?))?;
    n1.remove(&system)?;
    let empty = Empty::look(&n1)?;
    agent.kill9()?;

    // What a kubelet shows as the pod's event.
    let error =
        n1.sandbox(&PodSpec::named("inside")).err().context("a pod of the mesh starts without an agent")?;
    let event = format!("{error:#}");
    for words in [
        "failed to create pod sandbox",
        "plugin type=\"culvert-cni\"",
        "failed (add)",
        "pod demo/inside is held back, so that it cannot send in plaintext: start the culvert agent on this node",
        "it is in the mesh",
    ] {
        ensure!(event.contains(words), "{words:?} in {event}");
    }
    // The runtime tells of a sidecar, which is another data plane's.
    let sidecar = [("sidecar.istio.io/status".to_owned(), "{}".to_owned())].into();
    let injected = n1.sandbox(&PodSpec { annotations: sidecar, ..PodSpec::named("inside") })?;
    n1.remove(&injected)?;
    let outside = n1.pod_with_server(&PodSpec::named("outside"))?;
    n1.remove(&outside)?;

    // A kubelet tries again, and nobody has to do anything else.
    let again = std::thread::scope(|scope| -> Result<_> {
        let kubelet = scope.spawn(|| {
            eventually_ok("the pod to start by itself", LIMIT, || n1.sandbox(&PodSpec::named("inside")))
        });
        agent.restart()?;
        kubelet.join().map_err(|_| anyhow!("the kubelet panicked"))?
    })?;
    agent.wait_for_log(&["pod enrolled", "demo/inside"], LIMIT)?;
    let cookie = again.cookie()?;
    n1.remove(&again)?;
    empty.wait(&n1, &[cookie])
}
