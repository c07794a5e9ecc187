//! podman on a node of the mesh: its containers are nobody's pods, and never wait for an agent.

use anyhow::{Result, ensure};
use cri_tests::podman::Podman;

use crate::node;

#[test]
fn containers_of_podman_start_with_and_without_an_agent() -> Result<()> {
    let (n1, mesh) = node()?;
    let podman = Podman::new(&n1)?;
    mesh.write_for(&n1.node, &n1.mesh_path())?;
    for name in ["alone", "beside"] {
        let agent = (name == "beside").then(|| n1.start_agent()).transpose()?;
        let ended = podman.run(name)?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        let id = ended.stdout.trim().to_owned();
        let calls = podman.calls.of(None)?;
        let ours: Vec<_> = calls.iter().filter(|call| call.plugin == "culvert-cni").collect();
        ensure!(
            ours.first().is_some_and(|call| call.verb == "VERSION"),
            "first asked for versions: {ours:?}"
        );
        let add = ours.iter().find(|call| call.verb == "ADD" && call.container == id);
        let arguments = add.map(|call| call.arguments.as_str()).unwrap_or_default();
        ensure!(arguments.contains(&format!("K8S_POD_NAME={name}")), "{ours:?}");
        ensure!(!arguments.contains("K8S_POD_NAMESPACE"), "{ours:?}");
        let ended = podman.call(&["rm", "--force", "--time", "0", name])?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        let removed = podman.calls.order("DEL", &id)?;
        ensure!(removed.iter().any(|plugin| plugin == "culvert-cni"), "{removed:?}");
        drop(agent);
    }
    Ok(())
}
