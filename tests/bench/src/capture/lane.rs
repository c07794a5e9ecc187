//! A lane: one way of a connection, with a client's end and a server that answers.
//!
//! The lanes of one leg have the same sockets and cross the same wires; they differ in capture alone.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use anyhow::Result;
use linux::netns::Netns;
use linux::sockopt;
use redirect::{Attachment, Direction, Listeners, NodeCapture};
use socket2::{Domain, Protocol, Socket, Type};

use super::iptables;
use super::site::{Site, listen};
use super::switch::Part;
use crate::load::{Origin, Server};

/// A part of the way of a connection through a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Application to agent, over lo. Without capture: the application to a server in its own pod.
    Outbound,
    /// Agent to the network, over the wire, from a socket of the pod that is exempt.
    Network,
    /// The network to the agent, over the wire.
    Inbound,
    /// Agent to application, over lo, from the client's address.
    Deliver,
    /// The kubelet's to the application, over the wire.
    Probe,
    /// Over the wire, from a pod that is not enrolled, on a node that captures others.
    Bystander,
}

impl Leg {
    pub(crate) const ALL: [Self; 6] =
        [Self::Outbound, Self::Network, Self::Inbound, Self::Deliver, Self::Probe, Self::Bystander];

    /// What this process, which is the client of every lane, is to capture.
    pub(crate) fn part(self) -> Part {
        match self {
            Self::Network | Self::Deliver => Part::Agent,
            Self::Probe => Part::Kubelet,
            Self::Outbound | Self::Inbound | Self::Bystander => Part::Application,
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outbound => "outbound",
            Self::Network => "network",
            Self::Inbound => "inbound",
            Self::Deliver => "deliver",
            Self::Probe => "probe",
            Self::Bystander => "bystander",
        })
    }
}

/// By what connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    None,
    Culvert,
    Iptables,
}

impl Variant {
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Culvert, Self::Iptables];
}

/// Makes a connection.
pub(crate) type Connect = Box<dyn Fn() -> io::Result<TcpStream>>;

/// One way of a connection.
pub(crate) struct Lane {
    pub(crate) leg: Leg,
    pub(crate) variant: Variant,
    /// Where the client's thread stands; its own namespace if none.
    pub(crate) stand: Option<Netns>,
    pub(crate) connect: Connect,
}

/// Lanes, and the servers at their ends.
#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) lanes: Vec<Lane>,
    servers: Vec<Server>,
}

/// The application's port, and that of servers beyond.
const PORT: u16 = 8080;
/// Somewhere beyond the peer; of a block for documentation (RFC 5737), so that it is nobody.
const BEYOND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), PORT);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Lanes {
    /// Without capture.
    pub(crate) fn add_none(&mut self, site: &Site) -> Result<()> {
        let (pod, peer) = (SocketAddr::new(site.pod_address, PORT), SocketAddr::new(site.peer_address, PORT));
        self.serve(site, false)?;
        self.serve(site, true)?;
        self.add(Leg::Outbound, Variant::None, Some(&site.pod), plain(pod))?;
        self.add(Leg::Inbound, Variant::None, Some(&site.peer), plain(pod))?;
        self.add(Leg::Probe, Variant::None, Some(&site.peer), plain(pod))?;
        self.add(Leg::Network, Variant::None, None, made(&site.pod, peer, |_| Ok(()))?)?;
        self.add(Leg::Deliver, Variant::None, None, made(&site.pod, pod, |_| Ok(()))?)?;
        // The same lane twice: what differs is whether the node captures anybody.
        for variant in [Variant::None, Variant::Culvert] {
            self.add(Leg::Bystander, variant, Some(&site.pod), plain(peer))?;
        }
        Ok(())
    }

    /// Captured by the product.
    pub(crate) fn add_culvert(&mut self, site: &Site, node: &NodeCapture) -> Result<Attachment> {
        let (attachment, mut listeners) = Attachment::attach(node, site.pod.try_clone()?)?;
        self.add_captured(site, &mut listeners)?;
        self.serve(site, false)?;
        self.serve(site, true)?;
        let (sockets, peer) = (attachment.sockets(), SocketAddr::new(site.peer_address, PORT));
        self.add(Leg::Network, Variant::Culvert, None, connected(peer, move || sockets.to_network(peer)))?;
        let (sockets, pod) = (attachment.sockets(), SocketAddr::new(site.pod_address, PORT));
        self.add(Leg::Probe, Variant::Culvert, Some(&site.peer), plain(pod))?;
        let client = SocketAddr::new(site.peer_address, 0);
        self.add(
            Leg::Deliver,
            Variant::Culvert,
            None,
            connected(pod, move || sockets.to_app(client, pod, 0)),
        )?;
        Ok(attachment)
    }

    /// The legs that end at the agent's listeners.
    pub(crate) fn add_captured(&mut self, site: &Site, listeners: &mut Listeners) -> Result<()> {
        for direction in [Direction::Outbound, Direction::Plaintext] {
            if let Some(listener) = listeners.take(direction) {
                self.servers.push(Server::start(listener, Origin::LocalAddress)?);
            }
        }
        self.add(Leg::Outbound, Variant::Culvert, Some(&site.pod), plain(BEYOND))?;
        let pod = SocketAddr::new(site.pod_address, PORT);
        self.add(Leg::Inbound, Variant::Culvert, Some(&site.peer), plain(pod))
    }

    /// Captured by netfilter; the rules lie already.
    pub(crate) fn add_iptables(&mut self, site: &Site) -> Result<()> {
        for port in [iptables::OUTBOUND, iptables::INBOUND] {
            self.servers.push(Server::start(listen(&site.pod, ANY, port)?, Origin::Tracked)?);
        }
        self.serve(site, false)?;
        self.serve(site, true)?;
        let (pod, peer) = (SocketAddr::new(site.pod_address, PORT), SocketAddr::new(site.peer_address, PORT));
        self.add(Leg::Outbound, Variant::Iptables, Some(&site.pod), plain(BEYOND))?;
        self.add(Leg::Inbound, Variant::Iptables, Some(&site.peer), plain(pod))?;
        let probed = SocketAddr::new(site.pod_address, iptables::PROBED);
        self.servers.push(Server::start(listen(&site.pod, probed.ip(), probed.port())?, Origin::Own)?);
        self.add(Leg::Probe, Variant::Iptables, Some(&site.peer), plain(probed))?;
        let marked = |socket: &Socket| socket.set_mark(iptables::PROXY_MARK);
        self.add(Leg::Network, Variant::Iptables, None, made(&site.pod, peer, marked)?)?;
        let client = SocketAddr::new(site.peer_address, 0);
        let spoofed = move |socket: &Socket| {
            socket.set_ip_transparent_v4(true)?;
            socket.set_mark(iptables::PROXY_MARK)?;
            sockopt::set_bind_address_no_port(socket)?;
            socket.bind(&client.into())
        };
        self.add(Leg::Deliver, Variant::Iptables, None, made(&site.pod, pod, spoofed)?)
    }

    /// The application, or a server beyond.
    fn serve(&mut self, site: &Site, beyond: bool) -> Result<()> {
        let listener = if beyond {
            listen(&site.peer, site.peer_address, PORT)?
        } else {
            listen(&site.pod, site.pod_address, PORT)?
        };
        self.servers.push(Server::start(listener, Origin::Own)?);
        Ok(())
    }

    fn add(&mut self, leg: Leg, variant: Variant, stand: Option<&Netns>, connect: Connect) -> Result<()> {
        let stand = stand.map(Netns::try_clone).transpose()?;
        self.lanes.push(Lane { leg, variant, stand, connect });
        Ok(())
    }

    /// The lane of a leg and variant.
    pub(crate) fn find(&self, leg: Leg, variant: Variant) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.leg == leg && lane.variant == variant)
    }
}

/// As an application connects.
fn plain(to: SocketAddr) -> Connect {
    Box::new(move || TcpStream::connect(to))
}

/// As a process connects that is not in the pod: its thread enters the pod for the making of the socket.
fn made(
    netns: &Netns,
    to: SocketAddr,
    prepare: impl Fn(&Socket) -> io::Result<()> + 'static,
) -> Result<Connect> {
    let netns = netns.try_clone()?;
    Ok(connected(to, move || {
        let kind = Type::STREAM.nonblocking().cloexec();
        let open = || Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP));
        let socket = netns.run(open).map_err(io::Error::other)??;
        prepare(&socket)?;
        Ok(socket)
    }))
}

fn connected(to: SocketAddr, make: impl Fn() -> io::Result<Socket> + 'static) -> Connect {
    Box::new(move || {
        let socket = make()?;
        socket.set_nonblocking(false)?;
        socket.connect(&to.into())?;
        Ok(socket.into())
    })
}
