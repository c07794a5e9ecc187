//! The world that the tests run in: two nodes with agents, captured pods on both, two pods for Envoys, a host outside.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use harness::mesh_file::{Enroll, Gateway, Service, Workload};
use harness::wait::eventually_ok;
use harness::wire::Station;
use harness::{Agent, App, MeshFile, Pod, Run, Wire};

use crate::config::{Fronted, Waypoint};
use crate::{Credentials, ECHO, Envoy, HBONE, HTTP, LIMIT, NAMESPACE, Signer, envoy, identity};

/// Addresses of the service `web`, whose endpoints are `v1` and `v2`.
const WEB: [&str; 2] = ["10.96.0.10", "2001:db8:96::10"];
/// Addresses of the service of the waypoints.
const WAYPOINT: [&str; 2] = ["10.96.0.20", "2001:db8:96::20"];
/// Port of the service `web` over HTTP.
const WEB_PORT: u16 = 80;
/// The account of waypoints.
pub const WAYPOINT_ACCOUNT: &str = "waypoint";
/// Lines of each log in the error of a failed test.
const LOG_LINES: usize = 60;

/// Who lives in a world.
#[derive(Debug)]
pub struct Pods {
    /// Captured, on the first node.
    pub client: Pod,
    /// Captured, on the first node.
    pub other: Pod,
    /// Captured, on the second node, with an HTTP and an echo server.
    pub v1: Pod,
    /// Captured, on the second node, with an HTTP and an echo server.
    pub v2: Pod,
    /// Not captured, on the first node: for an Envoy.
    pub gate: Pod,
    /// Not captured, on the second node: for another Envoy.
    pub spare: Pod,
}

/// Two nodes in one mesh.
pub struct World {
    /// Agent of the first node. Fields drop in order: agents before the run.
    pub agent1: Agent,
    /// Agent of the second node.
    pub agent2: Agent,
    /// Who lives there.
    pub pods: Pods,
    /// A machine that knows nothing of any mesh.
    pub outside: Station,
    /// The network between the nodes.
    pub wire: Arc<Wire>,
    /// Servers.
    _apps: Vec<App>,
    /// Everything's owner.
    pub run: Arc<Run>,
}

impl World {
    /// Makes everything. `shape` may change the mesh, in which all pods are workloads, before the agents are told of it.
    pub fn new(shape: impl FnOnce(&Pods, &mut MeshFile)) -> Result<Self> {
        Self::with_arguments([&[], &[]], shape)
    }

    /// The same, with more arguments for the agent of each node.
    pub fn with_arguments(arguments: [&[&str]; 2], shape: impl FnOnce(&Pods, &mut MeshFile)) -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let (n1, n2) = (wire.add_node("n1")?, wire.add_node("n2")?);
        let outside = wire.add_host("outside")?;
        let pods = Pods {
            client: n1.add_plain_pod("client", NAMESPACE)?,
            other: n1.add_plain_pod("other", NAMESPACE)?,
            v1: n2.add_plain_pod("v1", NAMESPACE)?,
            v2: n2.add_plain_pod("v2", NAMESPACE)?,
            gate: n1.add_plain_pod("gate", NAMESPACE)?,
            spare: n2.add_plain_pod("spare", NAMESPACE)?,
        };
        let mut apps = Vec::new();
        for pod in [&pods.v1, &pods.v2] {
            apps.push(pod.serve_http(HTTP)?);
            apps.push(pod.serve_echo(ECHO)?);
        }
        let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
        let captured = [&pods.client, &pods.other, &pods.v1, &pods.v2];
        mesh.enroll = captured.map(Enroll::running).into();
        mesh.workloads = captured.map(Workload::of_pod).into();
        shape(&pods, &mut mesh);
        let start = |node, arguments| -> Result<Agent> {
            let path = run.dir().join(format!("{}.yaml", harness::Node::name(node)));
            mesh.write_for(node, &path)?;
            let mut agent = Agent::spawn(node, &path, arguments)?;
            agent.wait_ready()?;
            Ok(agent)
        };
        let (agent1, agent2) = (start(&n1, arguments[0])?, start(&n2, arguments[1])?);
        for pod in captured {
            let agent = if pod.node().name() == n1.name() { &agent1 } else { &agent2 };
            agent.wait_for_log(&["pod enrolled", &format!("{NAMESPACE}/{}", pod.name())], LIMIT)?;
        }
        Ok(Self { agent1, agent2, pods, outside, wire, _apps: apps, run })
    }

    /// A world with a service `web`, in front of which is a waypoint: in `gate`, or there and in `spare`. The endpoints take
    /// tunnels of the waypoint only. `v2` has the waypoint in front of its own address too.
    pub fn with_waypoint(spare: bool) -> Result<Self> {
        Self::new(|pods, mesh| {
            let waypoint = Service::new("waypoint", NAMESPACE, &ips(WAYPOINT), &[(HBONE, HBONE)]);
            let mut web = Service::new("web", NAMESPACE, &ips(WEB), &[(WEB_PORT, HTTP), (ECHO, ECHO)]);
            web.waypoint = Some(Gateway::of(&waypoint));
            for workload in &mut mesh.workloads {
                if !["v1", "v2"].contains(&workload.name.as_str()) {
                    continue;
                }
                workload.services.insert(web.key(), web.ports.clone());
                workload.authorization_policies = vec![format!("{NAMESPACE}/only-waypoint")];
                if workload.name == "v2" {
                    workload.waypoint = Some(Gateway::at("", pods.gate.ipv4().into()));
                }
            }
            mesh.policies.push(only(WAYPOINT_ACCOUNT));
            let places: &[&Pod] = if spare { &[&pods.gate, &pods.spare] } else { &[&pods.gate] };
            for pod in places {
                let mut workload = Workload::of_pod(pod).plain().serving(&waypoint);
                workload.service_account = WAYPOINT_ACCOUNT.to_owned();
                mesh.workloads.push(workload);
            }
            mesh.services = vec![web, waypoint];
        })
    }

    /// Certificate and key of an account, signed by the mesh's authority.
    pub fn credentials(&self, account: &str) -> Result<Credentials> {
        self.issue(account, Signer::Mesh, &identity(account))
    }

    /// Certificate and key of any identity, in files called `name`.
    pub fn issue(&self, name: &str, signer: Signer, identity: &str) -> Result<Credentials> {
        Credentials::issue(&self.run.dir(), name, &self.ca(), signer, identity)
    }

    fn ca(&self) -> PathBuf {
        self.run.dir().join("ca")
    }

    /// The service `web` over HTTP.
    pub fn web(&self) -> [SocketAddr; 2] {
        ips(WEB).map(|ip| SocketAddr::new(ip, WEB_PORT))
    }

    /// The service `web` over TCP.
    pub fn echo(&self) -> [SocketAddr; 2] {
        ips(WEB).map(|ip| SocketAddr::new(ip, ECHO))
    }

    /// Starts a waypoint in a pod, that takes so many streams a connection.
    pub fn start_waypoint(&self, pod: &Pod, streams: u32) -> Result<Envoy> {
        let own = self.credentials(WAYPOINT_ACCOUNT)?;
        let Pods { v1, v2, .. } = &self.pods;
        let mut fronted = Vec::new();
        for family in 0..2 {
            let of = |addresses: [IpAddr; 2], port| addresses.map(|ip| SocketAddr::new(ip, port));
            let pick = |all: [SocketAddr; 2]| if family == 0 { all[0] } else { all[1] };
            let (first, second) = (pick(of(v1.addresses(), HTTP)), pick(of(v2.addresses(), HTTP)));
            fronted.push(Fronted::Http { destination: pick(self.web()), versions: [first, second] });
            fronted.push(Fronted::Http { destination: second, versions: [second, second] });
            let endpoint = pick(of(v1.addresses(), ECHO));
            fronted.push(Fronted::Tcp { destination: pick(self.echo()), endpoint });
        }
        let waypoint = Waypoint {
            addresses: pod.addresses(),
            own: &own,
            clients: vec!["spiffe://cluster.local/".to_owned()],
            destinations: [v1, v2].map(|pod| identity(pod.name())).into(),
            readers: Some(vec![identity("client")]),
            streams,
            fronted,
        };
        Envoy::start(pod, &waypoint.bootstrap())
    }

    /// Waits until a metric of an agent has a line with all of these parts.
    pub fn wait_metric(agent: &Agent, parts: &[&str]) -> Result<String> {
        eventually_ok(&format!("a metric with {parts:?}"), LIMIT, || {
            let metrics = agent.metrics()?;
            let line = metrics.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned).context("there is none")
        })
    }

    /// Runs a test. If it fails, what agents and Envoys have written is in its error.
    pub fn tell(&mut self, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let outcome = catch_unwind(AssertUnwindSafe(|| test(self)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("the test panicked, as is written above")));
        outcome.map_err(|error| anyhow!("{error:?}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        let mut logs = vec![
            ("agent of n1".to_owned(), self.agent1.log()),
            ("agent of n2".to_owned(), self.agent2.log()),
        ];
        logs.extend(envoy::logs(&self.run.dir()));
        let shown = logs.iter().map(|(name, log)| {
            let lines: Vec<_> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
            format!("\n--- the {name} wrote last:\n{}\n", tail.join("\n"))
        });
        shown.collect()
    }
}

/// Allows one account, where it is selected.
pub fn only(account: &str) -> serde_json::Value {
    let principal = format!("cluster.local/ns/{NAMESPACE}/sa/{account}");
    serde_json::json!({
        "name": format!("only-{account}"), "namespace": NAMESPACE, "scope": "WorkloadSelector", "action": "Allow",
        "rules": [[[{ "principals": [{ "Exact": principal }] }]]],
    })
}

/// Both families of a service.
fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])))
}
