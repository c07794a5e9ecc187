//! A pod's namespace, and another one for everything beyond it, on a wire.
//!
//! The pod's default route leads over the wire, so that every destination is routable from it, as iptables wants it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, Result};
use harness::{Run, command};
use linux::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

/// As many as the agent's own listeners queue.
const BACKLOG: i32 = 4096;

/// A pod and its peer.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) pod: Netns,
    pub(crate) peer: Netns,
    pub(crate) pod_address: IpAddr,
    pub(crate) peer_address: IpAddr,
    path: std::path::PathBuf,
    peer_path: std::path::PathBuf,
}

impl Site {
    /// The `number`-th of a run.
    pub(crate) fn new(run: &Run, name: &str, number: u8) -> Result<Self> {
        let pod = run.add_netns(name)?;
        let peer = run.add_netns(&format!("{name}-beyond"))?;
        let far = file_name(&peer)?;
        let [subnet4, subnet6] = [format!("10.200.{number}"), format!("2001:db8:200:{number:x}:")];
        batch(
            &pod,
            &format!(
                "link add eth0 type veth peer name eth0 netns {far}\n\
                 address add {subnet4}.2/24 dev eth0\naddress add {subnet6}:2/64 dev eth0 nodad\n\
                 link set eth0 up\nroute add default via {subnet4}.1\n"
            ),
        )?;
        batch(
            &peer,
            &format!(
                "address add {subnet4}.1/24 dev eth0\naddress add {subnet6}:1/64 dev eth0 nodad\nlink set eth0 up\n"
            ),
        )?;
        Ok(Self {
            pod: Netns::open(&pod)?,
            peer: Netns::open(&peer)?,
            pod_address: Ipv4Addr::new(10, 200, number, 2).into(),
            peer_address: Ipv4Addr::new(10, 200, number, 1).into(),
            path: pod,
            peer_path: peer,
        })
    }

    /// Where the pod's namespace is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the namespace beyond it is mounted.
    pub(crate) fn peer_path(&self) -> &Path {
        &self.peer_path
    }
}

/// A pod that nothing is beyond of: enough to be enrolled.
pub(crate) fn lone_pod(run: &Run, number: usize) -> Result<Netns> {
    let path = run.add_netns(&format!("lone{number}"))?;
    let (high, low) = (number / 250, number % 250 + 2);
    batch(
        &path,
        &format!(
            "link add eth0 type veth peer name other\naddress add 10.201.{high}.{low}/16 dev eth0\n\
             address add 2001:db8:201::{number:x}:2/64 dev eth0 nodad\nlink set eth0 up\nlink set other up\n"
        ),
    )?;
    Ok(Netns::open(&path)?)
}

/// A listener without capture, with the options that the agent's have.
pub(crate) fn listen(netns: &Netns, address: IpAddr, port: u16) -> Result<TcpListener> {
    let at = SocketAddr::new(address, port);
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    netns.run(open)?.with_context(|| format!("listening at {at}"))
}

/// Many commands of `ip` in one process, in the namespace at `netns`.
fn batch(netns: &Path, commands: &str) -> Result<()> {
    let name = file_name(netns)?;
    let mut ip = std::process::Command::new("ip");
    let ended = command::finish(ip.args(["-n", &name, "-batch", "-"]), commands.as_bytes())?;
    anyhow::ensure!(ended.status.success(), "ip -n {name} -batch: {}", ended.stderr.trim());
    Ok(())
}

fn file_name(path: &Path) -> Result<String> {
    Ok(path.file_name().context("a namespace's path has a name")?.to_string_lossy().into_owned())
}
