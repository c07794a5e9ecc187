//! The recorded network: two nodes and a host outside on one wire, and pods behind the nodes, routed and with nothing translated.
//!
//! A pod has an address of its own and the way out by 169.254.1.1 at its node's end of the pair, as in the recording: what a
//! node sends to a pod of its own comes from there. Who has no route is told so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use harness::inside::set_sysctl;
use harness::wire::Station;
use harness::{Node, Run, command};
use recordings::parity::{Pod, World as Recorded};

use crate::place::Place;

/// The host outside on the wire; its recorded addresses are behind these.
const OUTSIDE: ([u8; 4], &str) = ([100, 64, 1, 1], "fd00:ff::1");
/// A pod's way out.
const GATEWAY: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

/// The network, with nobody captured yet.
pub struct World {
    /// The nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// Every place, by name: pods, nodes, `outside`.
    pub places: BTreeMap<String, Place>,
    /// The host outside, where the control plane is, too.
    pub outside: Station,
    /// What was recorded.
    pub recorded: Recorded,
    /// Everything's owner.
    pub run: Arc<Run>,
    wire: PathBuf,
}

impl World {
    /// Makes all of it.
    pub fn new(recorded: Recorded) -> Result<Self> {
        let run = Run::start()?;
        let wire = run.add_netns("wire")?;
        batch(&wire, "link add br0 type bridge mcast_snooping 0\nlink set br0 up")?;
        let (ip, ip6) = (OUTSIDE.0.into(), OUTSIDE.1.parse()?);
        let outside = Station { number: 0, netns: run.add_netns("outside")?, ips: (ip, ip6) };
        let mut world =
            Self { nodes: BTreeMap::new(), places: BTreeMap::new(), outside, recorded, run, wire };
        world.add_outside()?;
        for (number, name) in world.recorded.nodes.keys().cloned().collect::<Vec<_>>().iter().enumerate() {
            world.add_node(number, name).with_context(|| format!("make {name}"))?;
        }
        for (number, name) in world.recorded.pods.keys().cloned().collect::<Vec<_>>().iter().enumerate() {
            world.add_pod(number, name).with_context(|| format!("make pod {name}"))?;
        }
        Ok(world)
    }

    /// The place of a name.
    pub fn place(&self, name: &str) -> Result<&Place> {
        self.places.get(name).with_context(|| format!("there is no {name} in the world"))
    }

    /// The pods of a node that are captured, by name.
    pub fn captured<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a String, &'a Pod)> {
        self.recorded.pods.iter().filter(move |(_, pod)| pod.node == node && pod.captured)
    }

    fn add_outside(&mut self) -> Result<()> {
        let outside = self.outside.clone();
        self.plug(&outside, "outside")?;
        let mut words = String::new();
        for ip in &self.recorded.outside.addresses {
            words += &format!("addr add {ip} dev wire0\n");
        }
        for (name, node) in &self.recorded.nodes {
            words += &ways_to_pods(&self.recorded, name, (node.ip.into(), node.ip6.into()))?;
        }
        batch(&outside.netns, &words)?;
        let ips = self.recorded.outside.addresses.clone();
        self.place_of("outside", outside.netns, ips, None);
        Ok(())
    }

    fn add_node(&mut self, number: usize, name: &str) -> Result<()> {
        let own = self.recorded.nodes.get(name).context("a node that is recorded")?;
        let netns = self.run.add_netns(name)?;
        let station = Station { number: u8::try_from(number)?, netns: netns.clone(), ips: (own.ip, own.ip6) };
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            set_sysctl(&netns, forwarding, "1")?;
        }
        self.plug(&station, name)?;
        let mut words = String::new();
        for ip in &self.recorded.outside.addresses {
            words += &format!("route add {ip} via {}\n", self.outside.addresses().0);
        }
        for (other, node) in self.recorded.nodes.iter().filter(|(other, _)| *other != name) {
            words += &ways_to_pods(&self.recorded, other, (node.ip.into(), node.ip6.into()))?;
        }
        batch(&netns, &words)?;
        let ips = vec![own.ip.into(), own.ip6.into(), GATEWAY.parse()?];
        self.place_of(name, netns, ips, None);
        self.nodes.insert(name.to_owned(), Node::new(&self.run, name, station));
        Ok(())
    }

    fn add_pod(&mut self, number: usize, name: &str) -> Result<()> {
        let pod = self.recorded.pods.get(name).context("a pod that is recorded")?;
        let node = self.nodes.get(&pod.node).with_context(|| format!("no node {}", pod.node))?;
        let netns = self.run.add_netns(&format!("{}-{name}", pod.node))?;
        let (link, inner, ip) = (format!("pod{number}"), harness::wire::name_of(&netns), pod.ip);
        let mut outside = format!(
            "link add {link} type veth peer name eth0 netns {inner}\naddr add {GATEWAY}/32 dev {link}\n\
             link set {link} up\nroute add {ip}/32 dev {link}\n"
        );
        let mut inside = format!(
            "addr add {ip}/32 dev eth0\nlink set eth0 up\nroute add {GATEWAY} dev eth0 scope link\n\
             route add default via {GATEWAY}\n"
        );
        if let Some(ip6) = pod.ip6 {
            outside += &format!("addr add {GATEWAY6}/64 dev {link} nodad\nroute add {ip6}/128 dev {link}\n");
            inside +=
                &format!("addr add {ip6}/128 dev eth0 nodad\nroute add default via {GATEWAY6} dev eth0\n");
        }
        batch(node.netns(), &outside)?;
        batch(&netns, &inside)?;
        let ips = [Some(pod.ip.into()), pod.ip6.map(IpAddr::from)].into_iter().flatten().collect();
        let pod = pod.clone();
        self.place_of(name, netns, ips, Some(&pod));
        Ok(())
    }

    fn place_of(&mut self, name: &str, netns: PathBuf, ips: Vec<IpAddr>, pod: Option<&Pod>) {
        let workload = pod.map_or("unknown", |pod| workload_of(&pod.name)).to_owned();
        let captured = pod.is_some_and(|pod| pod.captured);
        let place = Place { name: name.to_owned(), netns, ips, captured, workload };
        self.places.insert(name.to_owned(), place);
    }

    /// Puts a station on the wire.
    fn plug(&self, station: &Station, name: &str) -> Result<()> {
        let (own, (ip, ip6)) = (harness::wire::name_of(&station.netns), station.addresses());
        let words =
            format!("link add {name} type veth peer name wire0 netns {own}\nlink set {name} master br0 up");
        batch(&self.wire, &words)?;
        let words =
            format!("link set wire0 up\naddr add {ip}/24 dev wire0\naddr add {ip6}/64 dev wire0 nodad");
        batch(&station.netns, &words)
    }
}

/// The Deployment that a pod's name tells of; a pod of nobody's is its own workload.
fn workload_of(pod: &str) -> &str {
    let mut parts = pod.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(own), Some(set), Some(workload)) if own.len() == 5 && set.len() == 10 => workload,
        _ => pod,
    }
}

/// Routes to the pods of a node, by its addresses on the wire.
fn ways_to_pods(recorded: &Recorded, node: &str, (ip, ip6): (IpAddr, IpAddr)) -> Result<String> {
    let mut words = String::new();
    for pod in recorded.pods.values().filter(|pod| pod.node == node) {
        words += &format!("route add {}/32 via {ip}\n", pod.ip);
        if let Some(own) = pod.ip6 {
            words += &format!("route add {own}/128 via {ip6}\n");
        }
    }
    ensure!(!words.is_empty(), "{node} has no pods");
    Ok(words)
}

/// Runs several commands of iproute2 in a namespace.
fn batch(netns: &std::path::Path, words: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-n", &harness::wire::name_of(netns), "-batch", "-"]);
    let ended = command::finish(&mut ip, words.as_bytes())?;
    ensure!(ended.status.success(), "ip -batch: {}: {}\n{words}", ended.status, ended.stderr.trim());
    Ok(())
}
