//! What a walk-through is played on: nodes on a wire, pods with their servers, an agent a node, and the mesh that the agents are told of.
//!
//! Everything is real but the cluster around it. Whatever stands goes with the handle, agents before the network.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use harness::mesh_file::{Enroll, Service, Workload};
use harness::wire::Station;
use harness::{Agent, App, MeshFile, Narrator, Node, Pod, Run, Wire};
use interop_tests::{Credentials, LIMIT, NAMESPACE, Signer, identity};

/// A stage.
pub(crate) struct Stage {
    agents: Vec<Agent>,
    apps: Vec<(String, App)>,
    pods: Vec<Pod>,
    /// What the agents are told.
    pub(crate) mesh: MeshFile,
    nodes: Vec<Node>,
    /// A machine that knows nothing of any mesh.
    pub(crate) outside: Station,
    /// The network between the nodes.
    pub(crate) wire: Arc<Wire>,
    /// Everything's owner.
    pub(crate) run: Arc<Run>,
}

impl Stage {
    /// One with so many nodes, and nobody on them.
    pub(crate) fn new(nodes: usize) -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let nodes =
            (1..=nodes).map(|number| wire.add_node(&format!("node{number}"))).collect::<Result<_>>()?;
        let outside = wire.add_host("outside")?;
        let mesh = MeshFile::with_ca(&run.dir().join("ca"));
        let (agents, apps, pods) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { agents, apps, pods, mesh, nodes, outside, wire, run })
    }

    /// A pod on a node (from 1) that will be in the mesh, and its account.
    pub(crate) fn member(&mut self, name: &str, account: &str, node: usize) -> Result<&mut Workload> {
        let pod = self.outsider(name, account, node)?;
        pod.protocol = "HBONE".to_owned();
        let pod = self.pod(name)?;
        let entry = Enroll { service_account: Some(account.to_owned()), ..Enroll::running(pod) };
        self.mesh.enroll.push(entry);
        Ok(self.mesh.workload(name))
    }

    /// A pod that the mesh knows and nobody captures.
    pub(crate) fn outsider(&mut self, name: &str, account: &str, node: usize) -> Result<&mut Workload> {
        let pod = self.node(node)?.add_plain_pod(name, NAMESPACE)?;
        let mut workload = Workload::of_pod(&pod).plain();
        workload.service_account = account.to_owned();
        self.mesh.workloads.push(workload);
        self.pods.push(pod);
        Ok(self.mesh.workload(name))
    }

    /// A service with these last octets, and the same port in front and behind. Who serves it says so with [`Workload::serving`].
    pub(crate) fn service(&mut self, name: &str, octet: u8, port: u16) -> Service {
        let service = Service::new(name, NAMESPACE, &vips(octet), &[(port, port)]);
        self.mesh.services.push(service.clone());
        service
    }

    /// Starts a pod's server, which asks others before it answers.
    pub(crate) fn serve(&mut self, name: &str, port: u16, calls: &[(&str, SocketAddr)]) -> Result<()> {
        let mut words = vec!["serve-http".to_owned(), "--name".to_owned(), name.to_owned()];
        words.extend(["--port".to_owned(), port.to_string()]);
        for (called, to) in calls {
            words.extend(["--call".to_owned(), format!("{called}={to}")]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let app = App::listening(self.pod(name)?, &words, port)?;
        self.apps.push((name.to_owned(), app));
        Ok(())
    }

    /// Starts an agent on each node with the mesh as it is, and waits until the members are captured.
    pub(crate) fn open(&mut self, say: &mut Narrator) -> Result<()> {
        self.start_agents(&[])?;
        for node in &self.nodes {
            let on_it = self.pods.iter().filter(|pod| pod.node().name() == node.name());
            let on_it: Vec<_> = on_it.map(|pod| format!("{} {}", pod.name(), pod.ipv4())).collect();
            say.saw(&format!("{}: an agent; pods {}", node.name(), on_it.join(", ")));
        }
        let members = self.mesh.enroll.iter();
        let mut enrolled = members.map(|entry| {
            let pod = format!("{}/{}", entry.namespace, entry.name);
            self.agent(&entry.name)?.wait_for_log(&["pod enrolled", &format!("pod={pod} ")], LIMIT)
        });
        let outcome = enrolled.try_for_each(|line| line.map(drop));
        say.check("every member of the mesh is captured, and that is proven by a connection", outcome);
        Ok(())
    }

    /// Starts the agents, with more arguments.
    pub(crate) fn start_agents(&mut self, arguments: &[&str]) -> Result<()> {
        self.tell_of(&self.mesh)?;
        for node in &self.nodes {
            self.agents.push(Agent::spawn(node, &self.file(node), arguments)?);
        }
        self.agents.iter_mut().try_for_each(Agent::wait_ready)
    }

    /// Tells the agents of a mesh.
    pub(crate) fn tell_of(&self, mesh: &MeshFile) -> Result<()> {
        self.nodes.iter().try_for_each(|node| mesh.write_for(node, &self.file(node)))
    }

    fn file(&self, node: &Node) -> PathBuf {
        self.run.dir().join(format!("{}.yaml", node.name()))
    }

    /// A pod by its name.
    pub(crate) fn pod(&self, name: &str) -> Result<&Pod> {
        let found = self.pods.iter().find(|pod| pod.name() == name);
        found.with_context(|| format!("there is no pod {name} on this stage"))
    }

    /// The server of a pod.
    pub(crate) fn app(&self, pod: &str) -> Result<&App> {
        let found = self.apps.iter().find(|(name, _)| name == pod);
        Ok(&found.with_context(|| format!("{pod} has no server on this stage"))?.1)
    }

    /// A node by its number, from 1.
    pub(crate) fn node(&self, number: usize) -> Result<&Node> {
        let found = number.checked_sub(1).and_then(|place| self.nodes.get(place));
        found.with_context(|| format!("there is no node {number} on this stage"))
    }

    /// The agent of the node that a pod is on.
    pub(crate) fn agent(&self, pod: &str) -> Result<&Agent> {
        let node = self.pod(pod)?.node().name();
        let place = self.nodes.iter().position(|known| known.name() == node);
        place.and_then(|place| self.agents.get(place)).with_context(|| format!("{node} has no agent yet"))
    }

    /// All agents.
    pub(crate) fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Certificate and key of an account, for an Envoy. The agents have made the authority by then.
    pub(crate) fn credentials(&self, account: &str) -> Result<Credentials> {
        let dir = self.run.dir();
        Credentials::issue(&dir, account, &dir.join("ca"), Signer::Mesh, &identity(account))
    }
}

/// The addresses of a service, by their last octet.
pub(crate) fn vips(octet: u8) -> [IpAddr; 2] {
    [IpAddr::from([10, 96, 0, octet]), IpAddr::from([0x2001, 0xdb8, 0x96, 0, 0, 0, 0, u16::from(octet)])]
}

/// The same port of both.
pub(crate) fn at(addresses: [IpAddr; 2], port: u16) -> [SocketAddr; 2] {
    addresses.map(|ip| SocketAddr::new(ip, port))
}
