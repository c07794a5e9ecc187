//! Two nodes on a wire, each with an agent; pods that are captured, and pods beside them that are not.
//!
//! Meshed and direct traffic take the same bridges and the same wire. Every namespace uses reno: what the host has as its
//! default (bbr, on some) distorts what is measured on a wire without delay. The captured server has addresses beyond its own:
//! a tunnel leads to one of them, so that connections to several of them are tunnels of their own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use harness::inside::{in_netns, set_sysctl};
use harness::{MeshFile, Node, Pod, Run, Wire, command};

use super::cgroup::Group;
use super::load::{Client, Server};
use super::proxy::{Program, Proxy};
use super::slice::{Order, Slice};
use crate::traffic::{Kind, Outcome};

/// The namespace of all pods.
const NAMESPACE: &str = "bench";
/// First port of the servers, and how many there are.
pub(super) const PORT: u16 = 20_000;
pub(super) const PORTS: u16 = 64;
/// Addresses of the server that cold tunnels lead to: 10.200.0.1 and up. A captured pod has 64 addresses at most.
pub(super) const COLD: u8 = 56;
/// Clients that open cold tunnels side by side: so many that what they cost stands out of what else an agent does.
pub(super) const STRANGERS: usize = 4;

/// A client and a server, on two nodes.
#[derive(Debug)]
struct Pair {
    client: Pod,
    server: Pod,
    // Lives as long as the pair.
    _app: Server,
}

/// Which way traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Between pods that nobody captures.
    Direct,
    /// Between captured ones.
    Meshed,
    /// Between captured ones, by clients that nobody has heard of before, each to as many addresses as it makes connections.
    Cold(usize),
}

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Pairs of captured pods, and of others.
    pub(super) pairs: usize,
    /// How often cold tunnels are opened, each time by other clients.
    pub(super) cold: usize,
    /// Workers of each agent; none for its default.
    pub(super) workers: Option<usize>,
}

/// Fields drop in order: processes before the namespaces that they are in.
#[derive(Debug)]
pub(super) struct World {
    meshed: Vec<Pair>,
    direct: Vec<Pair>,
    cold: Vec<Pod>,
    agents: [Proxy; 2],
    load: Group,
    _run: Arc<Run>,
}

impl World {
    pub(super) fn new(program: &Program, size: Size) -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let (near, far) = (wire.add_node("near")?, wire.add_node("far")?);
        let load = Group::new("load")?;
        let direct = pairs(&near, &far, "direct", size.pairs, &load)?;
        let meshed = pairs(&near, &far, "meshed", size.pairs, &load)?;
        let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
        let cold = (0..size.cold * STRANGERS)
            .map(|n| pod(&near, &format!("cold-{n}")))
            .collect::<Result<Vec<_>>>()?;
        for pod in meshed.iter().flat_map(|pair| [&pair.client, &pair.server]).chain(&cold) {
            mesh.add_running(pod);
        }
        if size.cold > 0 {
            let server = &meshed.first().context("there is a server")?.server;
            add_addresses(&near, &far, server)?;
            mesh.workload(server.name()).workload_ips.extend(cold_addresses());
        }
        let start = |node: &Node| {
            let path = run.dir().join(format!("{}.yaml", node.name()));
            mesh.write_for(node, &path)?;
            Proxy::start(program, node, &path, size.workers)
        };
        let agents = [start(&near)?, start(&far)?];
        let world = Self { meshed, direct, cold, agents, load, _run: run };
        world.prove()?;
        Ok(world)
    }

    pub(super) const fn agents(&self) -> &[Proxy; 2] {
        &self.agents
    }

    /// That what is called meshed goes through a tunnel, and what is called direct does not.
    fn prove(&self) -> Result<()> {
        let order = Order { count: Some(1), ..Order::connect(1) };
        for (way, pairs) in [(Way::Direct, &self.direct), (Way::Meshed, &self.meshed)] {
            self.slice(way, &order)?;
            for pair in pairs {
                let has = has_tunnel(pair.server.netns())?;
                ensure!(
                    has == (way == Way::Meshed),
                    "{way:?} traffic to {}: {} tunnel arrived there; the log of its agent ends with:\n{}",
                    pair.server.name(),
                    if has { "a" } else { "no" },
                    self.agents.last().map(Proxy::tail).unwrap_or_default(),
                );
            }
        }
        Ok(())
    }

    /// Does this between all pairs at once, and tells what it was and what it took.
    pub(super) fn slice(&self, way: Way, order: &Order) -> Result<Slice> {
        let mut clients = self.clients(way, order)?;
        let before = self.times()?;
        for client in &mut clients {
            client.go()?;
        }
        let outcomes = clients.into_iter().map(Client::outcome).collect::<Result<Vec<_>>>();
        let after = self.times()?;
        let outcomes = outcomes.with_context(|| {
            let tails: Vec<String> = self.agents.iter().map(Proxy::tail).collect();
            format!("{way:?} {order:?}; the agents' logs end with:\n{}", tails.join("\n--\n"))
        })?;
        Ok(Slice::new(&outcomes, before, after))
    }

    /// Opens connections and leaves them idle.
    pub(super) fn hold(&self, way: Way, streams: usize) -> Result<Client> {
        let order = Order { kind: Kind::Hold, streams, ..Order::connect(1) };
        let mut clients = self.clients(way, &order)?;
        clients.pop().context("there is a client")
    }

    /// Opens connections from all pairs' clients, and leaves them idle.
    pub(super) fn hold_all(&self, streams: usize) -> Result<Vec<Client>> {
        self.clients(Way::Meshed, &Order { kind: Kind::Hold, streams, ..Order::connect(1) })
    }

    /// Does one thing between the first pair and another between the second, and tells what became of each.
    pub(super) fn beside(&self, way: Way, first: &Order, second: &Order) -> Result<[Outcome; 2]> {
        let pairs = if way == Way::Direct { &self.direct } else { &self.meshed };
        let start =
            |pair: &Pair, order| Client::start(&pair.client, &[pair.server.ipv4().into()], order, &self.load);
        let [one, other, ..] = pairs.as_slice() else { bail!("two pairs are needed") };
        let (mut one, mut other) = (start(one, first)?, start(other, second)?);
        other.go()?;
        one.go()?;
        Ok([one.outcome()?, other.outcome()?])
    }

    /// Clients that are ready, whose streams are those of the order together.
    fn clients(&self, way: Way, order: &Order) -> Result<Vec<Client>> {
        if let Way::Cold(turn) = way {
            let strangers =
                self.cold.chunks(STRANGERS).nth(turn).context("no client is left that nobody knows")?;
            let own = Order { streams: 1, ..*order };
            let start = |pod| Client::start(pod, &cold_addresses(), &own, &self.load);
            return strangers.iter().map(start).collect();
        }
        let pairs = if way == Way::Direct { &self.direct } else { &self.meshed };
        let used = order.pairs.unwrap_or(pairs.len()).min(pairs.len()).max(1);
        let streams = order.streams.div_ceil(used);
        let own = Order { streams, rate: order.rate.map(|rate| rate / used as f64), ..*order };
        let clients = pairs
            .iter()
            .take(used)
            .map(|pair| Client::start(&pair.client, &[pair.server.ipv4().into()], &own, &self.load));
        clients.collect()
    }

    /// Seconds on CPUs until now: of the two agents, and of the load.
    fn times(&self) -> Result<[f64; 3]> {
        let [near, far] = &self.agents;
        Ok([near.group.cpu()?, far.group.cpu()?, self.load.cpu()?])
    }

    /// Gives the ports of clients an end within seconds, so that each comes again while its last use is remembered.
    pub(super) fn narrow_ports(&self, range: &str) -> Result<()> {
        for pair in self.meshed.iter().chain(&self.direct) {
            for pod in [&pair.client, &pair.server] {
                set_sysctl(pod.netns(), "net/ipv4/ip_local_port_range", range)?;
            }
        }
        Ok(())
    }
}

fn pairs(near: &Node, far: &Node, name: &str, count: usize, load: &Group) -> Result<Vec<Pair>> {
    let pair = |n| {
        let (client, server) =
            (pod(near, &format!("{name}-client-{n}"))?, pod(far, &format!("{name}-server-{n}"))?);
        let app = Server::start(&server, load)?;
        anyhow::Ok(Pair { client, server, _app: app })
    };
    (0..count).map(pair).collect()
}

fn pod(node: &Node, name: &str) -> Result<Pod> {
    let pod = node.add_plain_pod(name, NAMESPACE)?;
    set_sysctl(pod.netns(), "net/ipv4/tcp_congestion_control", "reno")?;
    Ok(pod)
}

/// The addresses that cold tunnels lead to.
fn cold_addresses() -> Vec<IpAddr> {
    (1..=COLD).map(|n| Ipv4Addr::new(10, 200, 0, n).into()).collect()
}

fn add_addresses(near: &Node, far: &Node, server: &Pod) -> Result<()> {
    for address in cold_addresses() {
        command::ip(&format!("-n {} addr add {address}/32 dev eth0", name_of(server.netns())?))?;
    }
    let net = "10.200.0.0/24";
    command::ip(&format!("-n {} route add {net} via {}", name_of(far.netns())?, server.ipv4()))?;
    command::ip(&format!("-n {} route add {net} via {}", name_of(near.netns())?, far.addresses().0))?;
    Ok(())
}

/// Whether a connection to port 15008 stands in a namespace.
fn has_tunnel(netns: &Path) -> Result<bool> {
    const PORT: &str = ":3AA0 ";
    const ESTABLISHED: &str = "01";
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let tables = in_netns(netns, || Ok::<_, std::io::Error>([read("tcp")?, read("tcp6")?]))??;
    Ok(tables.iter().flat_map(|table| table.lines()).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let own = fields.get(1).is_some_and(|own| format!("{own} ").ends_with(PORT));
        own && fields.get(3) == Some(&ESTABLISHED)
    }))
}

/// The name that `ip` knows a namespace by.
fn name_of(netns: &Path) -> Result<String> {
    Ok(netns.file_name().context("a namespace has a name")?.to_string_lossy().into_owned())
}
