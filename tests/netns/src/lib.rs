//! The world that the netns tests run in: two nodes with agents, pods on both, a host outside of the mesh.
//!
//! Everything is real: namespaces, eBPF, the agent's and the plugin's binaries, TLS. Each test makes a world of its own,
//! which goes when the test ends, however it ends.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod collector;
pub mod forger;
pub mod istio_cni;
pub mod kernel;
pub mod peer;
pub mod prometheus;
pub mod questions;
pub mod sockets;
pub mod terminator;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use harness::mesh_file::{Enroll, Service, Workload};
use harness::wire::Station;
use harness::{Agent, App, MeshFile, Node, Pod, Run, Wire, eventually};

/// Port of the server pods' HTTP servers.
pub const HTTP: u16 = 8080;
/// Port of the service.
pub const SERVICE: u16 = 80;
/// Longest wait for what should come soon; generous, for the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(20);
/// Addresses of the service `web`, whose endpoint is `server`.
pub const WEB: [&str; 2] = ["10.96.0.10", "2001:db8:96::10"];
/// Addresses of the service `own`, whose endpoint is `client` itself.
pub const OWN: [&str; 2] = ["10.96.0.20", "2001:db8:96::20"];

/// Two nodes in one mesh.
pub struct World {
    /// Agent of the first node. Fields drop in order: agents before the run.
    pub agent1: Agent,
    /// Agent of the second node.
    pub agent2: Agent,
    /// In the mesh, on the first node.
    pub client: Pod,
    /// In the mesh, on the first node, with a server.
    pub neighbour: Pod,
    /// In the mesh, on the second node, with a server.
    pub server: Pod,
    /// Not in the mesh, on the second node.
    pub plain: Pod,
    /// A machine that knows nothing of any mesh.
    pub outside: Station,
    /// What both agents were told.
    pub mesh: MeshFile,
    /// The nodes.
    pub nodes: [Node; 2],
    /// The network between them.
    pub wire: Arc<Wire>,
    /// Servers.
    pub apps: Vec<App>,
    /// Everything's owner.
    pub run: Arc<Run>,
}

/// The nodes and pods of a world, before anybody is captured.
pub struct Bare {
    /// The nodes.
    pub nodes: [Node; 2],
    /// The network between them.
    pub wire: Arc<Wire>,
    /// On the first node.
    pub client: Pod,
    /// On the first node.
    pub neighbour: Pod,
    /// On the second node.
    pub server: Pod,
    /// On the second node.
    pub plain: Pod,
    /// Not in any node.
    pub outside: Station,
    /// Servers.
    pub apps: Vec<App>,
    /// A mesh that knows them all, and enrols none.
    pub mesh: MeshFile,
    /// Everything's owner.
    pub run: Arc<Run>,
}

impl Bare {
    /// Makes nodes and pods.
    pub fn new() -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let nodes = [wire.add_node("n1")?, wire.add_node("n2")?];
        let outside = wire.add_host("outside")?;
        let [n1, n2] = &nodes;
        let (client, neighbour) =
            (n1.add_plain_pod("client", "demo")?, n1.add_plain_pod("neighbour", "demo")?);
        let (server, plain) = (n2.add_plain_pod("server", "demo")?, n2.add_plain_pod("plain", "demo")?);
        let mut apps = Vec::new();
        for pod in [&client, &neighbour, &server, &plain] {
            apps.push(pod.serve_http(HTTP)?);
        }
        let web = Service::new("web", "demo", &ips(WEB), &[(SERVICE, HTTP)]);
        let own = Service::new("own", "demo", &ips(OWN), &[(SERVICE, HTTP)]);
        let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
        mesh.workloads = vec![
            Workload::of_pod(&client).serving(&own),
            Workload::of_pod(&neighbour),
            Workload::of_pod(&server).serving(&web),
        ];
        mesh.services = vec![web, own];
        Ok(Self { nodes, wire, client, neighbour, server, plain, outside, apps, mesh, run })
    }

    /// Addresses of the host outside.
    pub fn outside_ips(&self) -> [IpAddr; 2] {
        let (v4, v6) = self.outside.addresses();
        [v4.into(), v6.into()]
    }

    /// The file that the agent of a node watches.
    pub fn mesh_path(&self, node: &Node) -> PathBuf {
        mesh_path(&self.run, node)
    }

    /// Writes both files.
    pub fn write_mesh(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| self.mesh.write_for(node, &self.mesh_path(node)))
    }

    /// Starts both agents and enrols `client`, `neighbour` and `server`.
    pub fn enrol(self) -> Result<World> {
        self.enrol_with(&[])
    }

    /// The same, with more arguments for both agents.
    pub fn enrol_with(self, arguments: &[&str]) -> Result<World> {
        self.enrol_each([arguments; 2])
    }

    /// The same, with more arguments for each agent.
    pub fn enrol_each(mut self, arguments: [&[&str]; 2]) -> Result<World> {
        self.mesh.enroll.extend([&self.client, &self.neighbour, &self.server].map(Enroll::running));
        self.write_mesh()?;
        let ([n1, n2], [arguments1, arguments2]) = (&self.nodes, arguments);
        let mut agent1 = Agent::spawn(n1, &self.mesh_path(n1), arguments1)?;
        let mut agent2 = Agent::spawn(n2, &self.mesh_path(n2), arguments2)?;
        agent1.wait_ready()?;
        agent2.wait_ready()?;
        for (agent, pod) in [(&agent1, "demo/client"), (&agent1, "demo/neighbour"), (&agent2, "demo/server")]
        {
            agent.wait_for_log(&["pod enrolled", pod], LIMIT)?;
        }
        let Self { nodes, wire, client, neighbour, server, plain, outside, apps, mesh, run } = self;
        Ok(World { agent1, agent2, client, neighbour, server, plain, outside, mesh, nodes, wire, apps, run })
    }
}

impl World {
    /// Makes everything.
    pub fn new() -> Result<Self> {
        Bare::new()?.enrol()
    }

    /// Writes both agents' files anew.
    pub fn write_mesh(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| self.mesh.write_for(node, &mesh_path(&self.run, node)))
    }

    /// Addresses of the host outside.
    pub fn outside_ips(&self) -> [IpAddr; 2] {
        let (v4, v6) = self.outside.addresses();
        [v4.into(), v6.into()]
    }
}

/// The file of a node.
pub fn mesh_path(run: &Run, node: &Node) -> PathBuf {
    run.dir().join(format!("{}.yaml", node.name()))
}

/// The values of a metric, added up over all its series that have the labels given.
pub fn metric_sum(agent: &Agent, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let text = agent.metrics()?;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label.as_str()))
    });
    Ok(series.filter_map(value).sum())
}

/// What a mutex guards, whether or not a thread panicked with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both families of a service.
pub fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])))
}

/// The same port on both families of addresses.
pub fn at(addresses: [IpAddr; 2], port: u16) -> [SocketAddr; 2] {
    addresses.map(|ip| SocketAddr::new(ip, port))
}

/// Asks until the answer is 200.
pub fn until_answered(pod: &Pod, to: SocketAddr) -> Result<harness::Reply> {
    eventually(&format!("{to} to answer {}", pod.name()), LIMIT, || match pod.attempt(to, "/") {
        Ok(harness::Attempt::Answered(reply)) if reply.status == 200 => Some(reply),
        _ => None,
    })
}

/// Waits until what a pod asks of a place is refused: who lets go of a pod closes its listeners a moment later.
pub fn until_refused(pod: &Pod, to: SocketAddr) -> Result<()> {
    eventually(&format!("{to} to be refused to {}", pod.name()), LIMIT, || {
        pod.attempt(to, "/").is_ok_and(|attempt| attempt.is_refused()).then_some(())
    })
}

/// The value of a metric of an agent, by the labels that are given; 0 if it is not there yet.
pub fn metric(agent: &Agent, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let text = agent.metrics()?;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label.as_str()))
    };
    let value = text.lines().find(is_it).and_then(|line| line.split_whitespace().last()?.parse().ok());
    Ok(value.unwrap_or(0.0))
}
