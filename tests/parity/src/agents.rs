//! The agents of both nodes, the control plane that is played to them, and the pods that they capture.
//!
//! The control plane is on the host outside. Its authority signs whatever the agents ask for, and the waypoint's certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::mesh_file::Enroll;
use harness::{Agent, ControlPlane, MeshFile, Node};
use netns_tests::terminator::Terminator;

use crate::world::World;

/// How many agents have to accept what is played.
pub const AGENTS: usize = 2;
/// Longest wait for what should come soon.
const LIMIT: Duration = Duration::from_secs(60);
const WAYPOINT: &str = "waypoint";

/// Everything that runs besides servers and clients. Fields drop in order.
pub struct Agents {
    /// With the letter that the recording has for its node.
    pub all: Vec<(String, Agent)>,
    /// What feeds them.
    pub plane: ControlPlane,
    /// The shop's.
    pub waypoint: Terminator,
}

impl Agents {
    /// Starts all, with `responses` of a recording told, and waits until every captured pod is.
    pub fn start(world: &World, recording: &Path, responses: usize) -> Result<Self> {
        let mut plane = ControlPlane::replaying(&world.run, &world.outside, recording)?;
        let token = world.run.dir().join("token");
        fs::write(&token, "of-the-agent")?;
        let mut all = Vec::new();
        for (name, node) in &world.nodes {
            let words = arguments(&plane, node, &token);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // node-a is `a`.
            let letter = name.rsplit('-').next().context("a name has an end")?.to_owned();
            all.push((letter, Agent::spawn(node, &mesh_file(world, name, node)?, &words)?));
        }
        plane.play(responses, AGENTS)?;
        for (_, agent) in &mut all {
            agent.wait_ready()?;
        }
        for (name, (_, agent)) in world.nodes.keys().zip(&all) {
            for (_, pod) in world.captured(name) {
                agent.wait_for_log(&["pod enrolled", &format!("{}/{}", pod.namespace, pod.name)], LIMIT)?;
            }
        }
        let waypoint = world.recorded.pods.get(WAYPOINT).context("a waypoint is recorded")?;
        let identity =
            format!("spiffe://cluster.local/ns/{}/sa/{}", waypoint.namespace, waypoint.service_account);
        let netns = world.place(WAYPOINT)?.netns();
        let waypoint = Terminator::answering(netns, plane.authority(), &identity, WAYPOINT)?;
        Ok(Self { all, plane, waypoint })
    }
}

/// Captures the pods of the node, and knows nothing else: the rest comes from the control plane.
fn mesh_file(world: &World, name: &str, node: &Node) -> Result<PathBuf> {
    let mut mesh = MeshFile::default();
    for (place, pod) in world.captured(name) {
        mesh.enroll.push(Enroll {
            service_account: Some(pod.service_account.clone()),
            netns: Some(world.place(place)?.netns.clone()),
            ..Enroll::by_cni(&pod.name, &pod.namespace, node)
        });
    }
    let path = world.run.dir().join(format!("{name}.yaml"));
    mesh.write(&path)?;
    Ok(path)
}

fn arguments(plane: &ControlPlane, node: &Node, token: &Path) -> Vec<String> {
    let (address, roots) = (plane.address().to_string(), plane.roots().display().to_string());
    let pairs = [
        ("--xds-address", address.clone()),
        ("--xds-root-ca", roots.clone()),
        ("--ca-address", address),
        ("--ca-root-ca", roots),
        ("--auth-token", token.display().to_string()),
        ("--instance-ip", node.addresses().0.to_string()),
        ("--pod-name", format!("ztunnel-{}", node.name())),
        ("--pod-namespace", "istio-system".to_owned()),
        ("--log-format", "json".to_owned()),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}
