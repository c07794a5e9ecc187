//! What the demo's steps act on: two nodes, their agents, three pods, the mesh file, the tap.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use harness::mesh_file::{Enroll, Service, Workload};
use harness::{Agent, App, Http, MeshFile, Narrator, Node, Pod, Run, Wire, WireTap};

use crate::binaries::Binaries;

/// Where productpage listens, and where its service does.
pub(crate) const PORT: u16 = 8080;
pub(crate) const SERVICE_PORT: u16 = 80;
/// HBONE, the mesh's tunnel.
pub(crate) const TUNNEL_PORT: u16 = 15008;
/// The Kubernetes namespace of all pods.
pub(crate) const NAMESPACE: &str = "default";

/// Everything that is standing. Fields drop in this order: clients, apps, agents, the network at last.
pub(crate) struct World {
    pub(crate) tap: WireTap,
    /// The connection that was open before anything was captured.
    pub(crate) open: Option<Http>,
    pub(crate) app: App,
    pub(crate) agents: [Agent; 2],
    pub(crate) sleep: Pod,
    pub(crate) notsleep: Option<Pod>,
    pub(crate) productpage: Pod,
    pub(crate) service: Service,
    pub(crate) mesh: MeshFile,
    pub(crate) nodes: [Node; 2],
    pub(crate) plugin: PathBuf,
    pub(crate) run: Arc<Run>,
}

impl World {
    /// The first step: the network, the agents with a mesh that has nobody in it, two pods.
    pub(crate) fn build(say: &mut Narrator, binaries: &Binaries) -> Result<Self> {
        binaries.announce();
        say.step("Two nodes on a wire, each with an agent; two pods that are not in the mesh");
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let nodes = [wire.add_node("node1")?, wire.add_node("node2")?];
        let tap = wire.tap()?;
        say.saw(&format!("network namespaces {}-*: a bridge, two nodes joined to it, pods routed", run.id()));

        let ca = run.dir().join("ca");
        std::fs::create_dir_all(&ca)?;
        let mesh = MeshFile::with_ca(&ca);
        let [node1, node2] = &nodes;
        for node in &nodes {
            mesh.write_for(node, &mesh_path(node)?)?;
        }
        let agents = [Agent::start(node1, &mesh_path(node1)?)?, Agent::start(node2, &mesh_path(node2)?)?];
        for agent in &agents {
            say.ran(&agent.command_line()?.join(" "));
        }
        say.claim(true, "both agents say that they are ready (/healthz/ready)");

        say.saw("conflist of node1, run as a container runtime does:");
        node1.conflist()?.plugins.iter().for_each(|plugin| say.saw(&plugin.to_string()));
        let sleep = node1.add_pod("sleep", NAMESPACE).context("CNI ADD of sleep")?;
        let productpage = node2.add_pod("productpage", NAMESPACE).context("CNI ADD of productpage")?;
        for pod in [&sleep, &productpage] {
            say.saw(&format!("pod {} on {}: {} {}", pod.name(), pod.node().name(), pod.ipv4(), pod.ipv6()));
        }
        say.claim(true, "culvert-cni let both start: the agent says that they are not in the mesh");
        let app = productpage.serve_http(PORT)?;
        let service = Service::new("productpage", NAMESPACE, &vips()?, &[(SERVICE_PORT, PORT)]);
        let plugin = binaries.plugin.clone();
        let (open, notsleep) = (None, None);
        Ok(Self { tap, open, app, agents, sleep, notsleep, productpage, service, mesh, nodes, plugin, run })
    }

    /// Everybody becomes a member; `notsleep` before it is there, by the address that it will get.
    pub(crate) fn fill_mesh(&mut self) {
        let [node1, _] = &self.nodes;
        let (v4, v6) = node1.pod_addresses(2);
        self.mesh.services.push(self.service.clone());
        self.mesh.enroll.push(Enroll::running(&self.sleep));
        self.mesh.enroll.push(Enroll::running(&self.productpage));
        self.mesh.enroll.push(Enroll::by_cni("notsleep", NAMESPACE, node1));
        self.mesh.workloads.push(Workload::of_pod(&self.sleep));
        self.mesh.workloads.push(Workload::of_pod(&self.productpage).serving(&self.service));
        self.mesh.workloads.push(Workload::hbone("notsleep", NAMESPACE, node1, &[v4.into(), v6.into()]));
    }

    /// Writes both nodes' files.
    pub(crate) fn write_mesh(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| self.mesh.write_for(node, &mesh_path(node)?))
    }

    /// productpage by its addresses, and by its service's.
    pub(crate) fn destinations(&self) -> Result<Vec<(&'static str, SocketAddr)>> {
        let [v4, v6] = self.productpage.addresses();
        let [vip4, vip6] = vips()?;
        Ok(vec![
            ("pod IPv4", SocketAddr::new(v4, PORT)),
            ("pod IPv6", SocketAddr::new(v6, PORT)),
            ("service IPv4", SocketAddr::new(vip4, SERVICE_PORT)),
            ("service IPv6", SocketAddr::new(vip6, SERVICE_PORT)),
        ])
    }

    /// productpage's IPv4 address and port.
    pub(crate) fn page(&self) -> SocketAddr {
        SocketAddr::new(self.productpage.ipv4().into(), PORT)
    }

    /// The pod that came through CNI as a member.
    pub(crate) fn notsleep(&self) -> Result<&Pod> {
        self.notsleep.as_ref().context("notsleep was not created")
    }

    /// All pods that are there.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        [&self.sleep, &self.productpage].into_iter().chain(&self.notsleep)
    }

    /// What the agents last wrote, for whoever wonders why the demo broke.
    pub(crate) fn show_logs(&self) {
        for agent in &self.agents {
            println!("\nlast lines of {}:", agent.log_path().display());
            let log = agent.log();
            let skip = log.lines().count().saturating_sub(25);
            log.lines().skip(skip).for_each(|line| println!("  {line}"));
        }
    }
}

/// The file that a node's agent watches.
pub(crate) fn mesh_path(node: &Node) -> Result<PathBuf> {
    std::fs::create_dir_all(node.agent_dir())?;
    Ok(node.agent_dir().join("mesh.yaml"))
}

fn vips() -> Result<[IpAddr; 2]> {
    Ok(["10.96.0.10".parse()?, "2001:db8:96::10".parse()?])
}
