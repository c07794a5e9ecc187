//! The world of a storm: two nodes, a control plane and an authority of processes of their own, pods that may and pods that
//! may not.
//!
//! | Pod | Node | In the mesh | May reach `left` and `right` |
//! |---|---|---|---|
//! | `left` | 1 | yes | yes |
//! | `right` | 2 | yes | yes |
//! | `stranger` | 1 | yes | no: the policy of the namespace allows `left`, `right` and the doomed |
//! | `plain` | 1 | no | no: it has no identity |
//! | `doomed-N` | 1 | yes | yes; its namespace is deleted, and N counts them |

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::inside::in_netns;
use harness::mesh_file::{Enroll, Service, Workload};
use harness::wire::name_of;
use harness::{Agent, App, ControlPlane, MeshFile, Node, Pod, Run, Wire, command, eventually};
use nix::net::if_::if_nametoindex;

use crate::fault::NodeNumber;
use crate::impairment::Impairment;
use crate::slow::Slow;

/// Port of the pods' servers.
pub const HTTP: u16 = 8080;
/// Port of the service.
pub const SERVICE: u16 = 80;
/// Addresses of the service `web`, whose endpoint is `right`.
const WEB: [&str; 2] = ["10.96.0.10", "2001:db8:96::10"];
/// Longest wait for what should come soon; generous, for the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Room for an agent's log and files.
const DISK: &str = "size=96m";
/// By how many seconds an agent's clock is ahead. Its file always has the same length, so that it can be written where no room is left.
const CLOCK: &str = "clock-ahead";
/// So that what a fault has left open is over soon, and that an hour means something to a certificate.
const LIMITS: [&str; 7] = [
    "--secret-ttl=10m",
    "--idle-timeout=20s",
    "--half-close-timeout=10s",
    "--stalled-timeout=10s",
    "--connect-timeout=5s",
    "--answer-timeout=10s",
    "--unused-tunnel-timeout=20s",
];

/// A node, and what can be done to it.
#[derive(Debug)]
pub struct Place {
    /// Its agent. Fields drop in order: agents before the run.
    pub agent: Agent,
    /// The agent that this one took over from, which serves what it had to the end.
    pub old: Option<Agent>,
    /// The node.
    pub node: Node,
    /// Its interface in the wire's namespace.
    pub port: String,
    /// What spoils packets towards it.
    pub impairment: Impairment,
    /// Where those wait that are late.
    pub slow: Slow,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// Both nodes.
    pub places: [Place; 2],
    /// Serves discovery.
    pub plane: ControlPlane,
    /// Signs certificates.
    pub authority: ControlPlane,
    /// In the mesh.
    pub left: Arc<Pod>,
    /// In the mesh.
    pub right: Arc<Pod>,
    /// In the mesh, and allowed nothing.
    pub stranger: Arc<Pod>,
    /// Not in the mesh.
    pub plain: Arc<Pod>,
    /// The pod that is lost.
    pub doomed: Option<Pod>,
    /// How many there were.
    pub dooms: usize,
    mesh: MeshFile,
    enrolled: MeshFile,
    _apps: Vec<App>,
    /// The network.
    pub wire: Arc<Wire>,
    run: Arc<Run>,
}

impl World {
    /// Makes everything, with both agents ready and all pods enrolled. With `disks` an agent's files have little room.
    pub fn new(seed: u64, disks: bool) -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let nodes = [wire.add_node("n1")?, wire.add_node("n2")?];
        let hosts = [wire.add_host("plane")?, wire.add_host("authority")?];
        let [n1, n2] = &nodes;
        let pods = [(n1, "left"), (n2, "right"), (n1, "stranger"), (n1, "plain")];
        let pods = pods.map(|(node, name)| node.add_plain_pod(name, "demo").map(Arc::new));
        let [left, right, stranger, plain] = pods;
        let (left, right, stranger, plain) = (left?, right?, stranger?, plain?);
        let apps = vec![left.serve_http(HTTP)?, right.serve_http(HTTP)?];
        let web = Service::new("web", "demo", &ips(WEB), &[(SERVICE, HTTP)]);
        let mut workloads = [&left, &stranger].map(|pod| Workload::of_pod(pod)).to_vec();
        workloads.push(Workload::of_pod(&right).serving(&web));
        let mut mesh = MeshFile { workloads, services: vec![web], ..MeshFile::default() };
        mesh.allow("only-these", "demo", &["left", "right", "doomed"]);
        let enroll = [&left, &right, &stranger].map(|pod| Enroll::running(pod)).to_vec();
        let enrolled = MeshFile { enroll, ..MeshFile::default() };
        let plane = ControlPlane::start(&run, &hosts[0], &mesh)?;
        // With the same root, which it finds in the same directory.
        let authority = ControlPlane::start(&run, &hosts[1], &mesh)?;
        let token = run.dir().join("token");
        fs::write(&token, "of-the-agent")?;
        let mut places = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            enrolled.write_for(node, &mesh_path(&run, node))?;
            if disks {
                mount_disk(node)?;
                write_clock(node, 0)?;
            }
            let arguments = arguments(node, [&plane, &authority], &token.display().to_string());
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(LIMITS).collect();
            let agent = Agent::spawn(node, &mesh_path(&run, node), &arguments)?;
            let port = format!("port{}", number + 1);
            let slow = Slow::before(wire.netns(), &port, seed.wrapping_add(number as u64))?;
            let index = in_netns(wire.netns(), || if_nametoindex(port.as_str()))??;
            let impairment = Impairment::new(wire.netns(), index, slow.interface)?;
            places.push(Place { agent, old: None, node: node.clone(), port, impairment, slow });
        }
        let Ok(places) = <[Place; 2]>::try_from(places) else { bail!("there are two nodes") };
        let mut world = Self {
            places,
            plane,
            authority,
            left,
            right,
            stranger,
            plain,
            doomed: None,
            dooms: 0,
            mesh,
            enrolled,
            _apps: apps,
            wire,
            run,
        };
        world.add_doomed()?;
        for place in &mut world.places {
            place.agent.wait_ready()?;
        }
        world.until_enrolled()?;
        Ok(world)
    }

    /// Where `right` is reached: by its addresses and by its service's.
    pub fn to_right(&self) -> Vec<SocketAddr> {
        let direct = self.right.addresses().map(|ip| SocketAddr::new(ip, HTTP));
        direct.into_iter().chain(ips(WEB).map(|ip| SocketAddr::new(ip, SERVICE))).collect()
    }

    /// Where `left` is reached.
    pub fn to_left(&self) -> Vec<SocketAddr> {
        self.left.addresses().map(|ip| SocketAddr::new(ip, HTTP)).to_vec()
    }

    /// A node by its number.
    pub fn place(&mut self, number: NodeNumber) -> Result<&mut Place> {
        self.places.get_mut(number).with_context(|| format!("there is no node {number}"))
    }

    /// Brings a new doomed pod, tells control plane and agent of it, and does not wait.
    pub fn add_doomed(&mut self) -> Result<()> {
        self.dooms += 1;
        let node = self.places[0].node.clone();
        let pod = node.add_plain_pod(&format!("doomed-{}", self.dooms), "demo")?;
        let mut workload = Workload::of_pod(&pod);
        workload.service_account = "doomed".to_owned();
        self.mesh.workloads.retain(|own| !own.name.starts_with("doomed"));
        self.mesh.workloads.push(workload);
        self.plane.keep(&self.mesh)?;
        let mut entry = Enroll::running(&pod);
        entry.service_account = Some("doomed".to_owned());
        self.enrolled.enroll.retain(|own| !own.name.starts_with("doomed"));
        self.enrolled.enroll.push(entry);
        self.enrolled.write_for(&node, &mesh_path(&self.run, &node))?;
        self.doomed = Some(pod);
        Ok(())
    }

    /// Lets everybody reach everything, which must then be so.
    pub fn allow_all(&mut self) -> Result<()> {
        self.mesh.policies.clear();
        self.mesh.allow("only-these", "demo", &["left", "right", "doomed", "stranger"]);
        self.plane.keep(&self.mesh)
    }

    /// Waits until both agents say that each of their pods is enrolled.
    pub fn until_enrolled(&self) -> Result<()> {
        for (place, pods) in self.places.iter().zip([3, 1]) {
            let line = format!("culvert_pods{{state=\"enrolled\"}} {pods}");
            let what = format!("{pods} pods of {} to be enrolled", place.node.name());
            let are = || place.agent.metrics().is_ok_and(|text| text.lines().any(|own| own == line));
            eventually(&what, LIMIT, || are().then_some(()))?;
        }
        Ok(())
    }

    /// An agent must not end by itself, nor may a part of it.
    pub fn agents_live(&mut self) -> Result<()> {
        for place in &mut self.places {
            let (ended, name) = (place.agent.exited()?, place.node.name());
            let panics = place.agent.log_lines(&["panicked at"]);
            ensure!(ended.is_none() && panics.is_empty(), "agent of {name}: {ended:?} {panics:?}");
        }
        Ok(())
    }

    /// Copies the agents' logs to a directory.
    pub fn save_logs(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        for place in &self.places {
            fs::copy(place.agent.log_path(), to.join(format!("{}.log", place.node.name())))?;
        }
        Ok(())
    }

    /// The interface of a node, in its own namespace and the wire's, may send packets of that length.
    pub fn set_mtu(&mut self, number: NodeNumber, mtu: u16) -> Result<()> {
        let wire = name_of(self.wire.netns());
        let place = self.place(number)?;
        let node = name_of(place.node.netns());
        command::ip(&format!("-n {wire} link set {} mtu {mtu}", place.port))?;
        command::ip(&format!("-n {node} link set wire0 mtu {mtu}")).map(drop)
    }

    /// Sets the clock of a node's agent, by seconds ahead of the machine's.
    pub fn set_clock(&mut self, number: NodeNumber, ahead: i16) -> Result<()> {
        write_clock(&self.place(number)?.node, ahead)
    }

    /// Takes the carrier from a node's link, or gives it back.
    pub fn set_link(&mut self, number: NodeNumber, up: bool) -> Result<()> {
        let wire = name_of(self.wire.netns());
        let (port, state) = (&self.place(number)?.port, if up { "up" } else { "down" });
        command::ip(&format!("-n {wire} link set {port} {state}")).map(drop)
    }
}

fn arguments(node: &Node, [plane, authority]: [&ControlPlane; 2], token: &str) -> Vec<String> {
    let (ip, pod) = (node.addresses().0.to_string(), format!("agent-{}", node.name()));
    let (of_plane, of_authority) = (plane.address().to_string(), authority.address().to_string());
    let (roots, signers) = (plane.roots().display().to_string(), authority.roots().display().to_string());
    let words = [
        ("--xds-address", of_plane),
        ("--xds-root-ca", roots),
        ("--ca-address", of_authority),
        ("--ca-root-ca", signers),
        ("--auth-token", token.to_owned()),
        ("--instance-ip", ip),
        ("--pod-name", pod),
        ("--pod-namespace", "istio-system".to_owned()),
    ];
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// A file system of its own for an agent's log and files, which the run's teardown unmounts.
fn mount_disk(node: &Node) -> Result<()> {
    let directory = node.agent_dir();
    fs::create_dir_all(&directory)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", DISK, "chaos"]).arg(&directory);
    command::run(&mut mount).map(drop)
}

fn write_clock(node: &Node, ahead: i16) -> Result<()> {
    let path = node.agent_dir().join(CLOCK);
    let mut file = File::options().create(true).truncate(false).write(true).open(&path)?;
    file.write_all(format!("{ahead:+07}\n").as_bytes()).with_context(|| path.display().to_string())
}

fn mesh_path(run: &Run, node: &Node) -> PathBuf {
    run.dir().join(format!("{}.yaml", node.name()))
}

fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])))
}
