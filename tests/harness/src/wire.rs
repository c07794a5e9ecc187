//! The network between nodes: a namespace with a bridge, and a veth pair to each node.
//!
//! All addresses are of documentation or private ranges and exist only inside the namespaces: the wire is 198.51.100.0/24
//! and 2001:db8:ffff::/64, node N's pods are 10.1.N.0/24 and 2001:db8:1:N::/64. Each node has routes to the pods of the
//! others and nothing is translated, so that what the tap sees is what the pods sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};

use crate::command::ip;
use crate::inside::set_sysctl;
use crate::node::Node;
use crate::run::Run;
use crate::tap::WireTap;

/// A network with nodes on it.
#[derive(Debug)]
pub struct Wire {
    run: Arc<Run>,
    netns: PathBuf,
    stations: Mutex<Vec<Station>>,
}

/// Something with an address on the wire.
#[derive(Debug, Clone)]
pub struct Station {
    /// Number on the wire, from 1.
    pub number: u8,
    /// Its namespace.
    pub netns: PathBuf,
    /// Its addresses there.
    pub ips: (Ipv4Addr, Ipv6Addr),
}

impl Station {
    /// Addresses on the wire.
    pub fn addresses(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.ips
    }

    /// Subnets of its pods.
    pub fn pod_subnets(&self) -> (String, String) {
        (format!("10.1.{}.0/24", self.number), format!("2001:db8:1:{:x}::/64", self.number))
    }

    fn name(&self) -> String {
        name_of(&self.netns)
    }
}

impl Wire {
    /// Makes an empty network.
    pub fn new(run: &Arc<Run>) -> Result<Arc<Self>> {
        let netns = run.add_netns("wire")?;
        let name = name_of(&netns);
        ip(&format!("-n {name} link add br0 type bridge mcast_snooping 0"))
            .context("making a bridge: does the kernel have CONFIG_BRIDGE?")?;
        ip(&format!("-n {name} link set br0 up"))?;
        Ok(Arc::new(Self { run: Arc::clone(run), netns, stations: Mutex::default() }))
    }

    /// The namespace of the bridge.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Begins to record all frames.
    pub fn tap(&self) -> Result<WireTap> {
        WireTap::start(&self.netns)
    }

    /// Joins a node.
    pub fn add_node(&self, name: &str) -> Result<Node> {
        let station = self.join(name)?;
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            set_sysctl(&station.netns, forwarding, "1")?;
        }
        Ok(Node::new(&self.run, name, station))
    }

    /// Joins a machine that is no node: a peer outside of the mesh, at [`Station::addresses`].
    pub fn add_host(&self, name: &str) -> Result<Station> {
        self.join(name)
    }

    fn join(&self, name: &str) -> Result<Station> {
        let mut stations = self.stations.lock().unwrap_or_else(PoisonError::into_inner);
        let number =
            u8::try_from(stations.len() + 1).map_err(|_| anyhow!("a wire has at most 255 stations"))?;
        let host = u16::from(number);
        let ips =
            (Ipv4Addr::new(198, 51, 100, number), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, host));
        let station = Station { number, netns: self.run.add_netns(name)?, ips };
        let (wire, own) = (name_of(&self.netns), station.name());
        let (v4, v6) = station.addresses();
        ip(&format!("-n {wire} link add port{number} type veth peer name wire0 netns {own}"))?;
        ip(&format!("-n {wire} link set port{number} master br0 up"))?;
        ip(&format!("-n {own} link set wire0 up"))?;
        ip(&format!("-n {own} addr add {v4}/24 dev wire0"))?;
        ip(&format!("-n {own} addr add {v6}/64 dev wire0 nodad"))?;
        for other in stations.iter() {
            add_routes(&station, other)?;
            add_routes(other, &station)?;
        }
        stations.push(station.clone());
        Ok(station)
    }
}

/// Routes at `from` to the pods of `to`.
fn add_routes(from: &Station, to: &Station) -> Result<()> {
    let (gateway4, gateway6) = to.addresses();
    let (pods4, pods6) = to.pod_subnets();
    let add =
        |subnet: &str, gateway: IpAddr| ip(&format!("-n {} route add {subnet} via {gateway}", from.name()));
    add(&pods4, gateway4.into())?;
    add(&pods6, gateway6.into())?;
    Ok(())
}

/// The name that `ip netns` knows a namespace by.
pub fn name_of(netns: &Path) -> String {
    netns.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
