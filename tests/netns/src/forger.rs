//! Every way in which a process of a pod writes TCP by hand, past capture: what is tried with the egress guard and without.
//!
//! Each way writes bytes of its own, by which a tap tells whether it got out.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::forge::{self, Fragment, PSH_ACK, SYN};
use harness::{Attempt, Pod, WireTap, client, command};
use socket2::{Domain, Protocol, Socket, Type};

/// Protocol number of a raw socket to whose packets the kernel adds nothing.
const IPPROTO_RAW: i32 = 255;
/// What a packet socket may say of a frame whatever is in it: `ETH_P_ARP`.
const A_LIE: u16 = 0x0806;
/// Long enough for a first segment to be sent.
const ONE_TRY: Duration = Duration::from_millis(300);
const NEEDLE: &str = "by-hand";

/// A pod's process that writes by hand, and where to.
pub struct Forger<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Somebody far away, of both families.
    pub to: [IpAddr; 2],
    neighbour: [u8; 6],
    own: [u8; 6],
    interface: u32,
}

/// A way, and the bytes by which it is known on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// For people.
    pub name: String,
    /// In the frame, whatever is around them.
    pub bytes: Vec<u8>,
}

impl Way {
    fn new(name: String) -> Self {
        let bytes = format!("{NEEDLE}: {name}.").into_bytes();
        Self { name, bytes }
    }

    /// Whether it was seen.
    pub fn is_seen(&self, tap: &WireTap) -> Result<bool> {
        tap.carries(&self.bytes)
    }
}

impl<'a> Forger<'a> {
    /// In a pod; the addresses are somebody's who is reached by way of the pod's gateway.
    pub fn new(pod: &'a Pod, to: [IpAddr; 2]) -> Result<Self> {
        let name = pod.netns().file_name().context("name")?.to_string_lossy().into_owned();
        // So that the gateway is known.
        for to in to {
            pod.inside(|| harness::ping::ping(to, crate::LIMIT))??;
        }
        let neighbours = command::ip(&format!("-n {name} neigh show dev eth0"))?;
        let neighbour = word_after(&neighbours, "lladdr").with_context(|| neighbours.clone())?;
        let link = command::ip(&format!("-n {name} link show dev eth0"))?;
        let own = word_after(&link, "link/ether").with_context(|| link.clone())?;
        let interface = link.split(':').next().and_then(|index| index.trim().parse().ok());
        Ok(Self { pod, to, neighbour, own, interface: interface.with_context(|| link.clone())? })
    }

    /// Writes in every way, in both families, to a port of its own each; returns the ways.
    pub fn write_all(&self) -> Result<Vec<Way>> {
        let mut ways = Vec::new();
        for to in self.to {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let way = |what: &str| Way::new(format!("{what}, {family}"));
            ways.extend(self.opening(to, family)?);
            ways.push(self.raw(way("a raw socket's segment"), to)?);
            ways.push(self.whole(way("a raw socket's packet"), to)?);
            ways.push(self.frame(way("a packet socket's frame"), to, &[], 0)?);
            ways.push(self.frame(way("a packet socket's frame of another name"), to, &[], A_LIE)?);
            ways.push(self.frame(way("a frame with a VLAN tag"), to, &[7], 0)?);
            ways.push(self.frame(way("a frame with two VLAN tags"), to, &[7, 8], A_LIE)?);
            ways.push(self.fragments(way("the later of two fragments"), to)?);
        }
        ways.push(self.behind_options(Way::new("behind IPv6 options".to_owned()))?);
        Ok(ways)
    }

    /// A SYN by a raw socket and one by a packet socket: known by its first bytes, for it carries nothing.
    fn opening(&self, to: IpAddr, family: &str) -> Result<[Way; 2]> {
        let segment = |port| self.segment(to, port, SYN, &[]);
        let (raw, framed) = (segment(7001), segment(7002));
        self.send_raw(to, Protocol::TCP, &raw)?;
        self.send_frame(&forge::frame(self.own, self.neighbour, &[], &self.packet(to, &framed)), 0)?;
        let head = |tcp: &[u8]| tcp.get(..12).unwrap_or_default().to_vec();
        Ok([
            Way { name: format!("a raw socket's SYN, {family}"), bytes: head(&raw) },
            Way { name: format!("a packet socket's SYN, {family}"), bytes: head(&framed) },
        ])
    }

    /// The kernel puts the IP header before it.
    fn raw(&self, way: Way, to: IpAddr) -> Result<Way> {
        self.send_raw(to, Protocol::TCP, &self.segment(to, 7003, PSH_ACK, &way.bytes))?;
        Ok(way)
    }

    /// With an IP header of its own.
    fn whole(&self, way: Way, to: IpAddr) -> Result<Way> {
        let segment = self.segment(to, 7004, PSH_ACK, &way.bytes);
        self.send_raw(to, Protocol::from(IPPROTO_RAW), &self.packet(to, &segment))?;
        Ok(way)
    }

    fn frame(&self, way: Way, to: IpAddr, vlans: &[u16], protocol: u16) -> Result<Way> {
        let packet = self.packet(to, &self.segment(to, 7005, PSH_ACK, &way.bytes));
        self.send_frame(&forge::frame(self.own, self.neighbour, vlans, &packet), protocol)?;
        Ok(way)
    }

    /// A datagram cut behind the TCP header; the first part has nothing in it.
    fn fragments(&self, way: Way, to: IpAddr) -> Result<Way> {
        let mut segment = self.segment(to, 7006, PSH_ACK, &[0; 4]);
        segment.extend(&way.bytes);
        let (first, later) = segment.split_at(24);
        let own = self.own_address(to);
        let parts =
            [(first, Fragment { offset: 0, more: true }), (later, Fragment { offset: 24, more: false })];
        for (part, place) in parts {
            let packet = if to.is_ipv4() {
                forge::ipv4(own, to, part, place)
            } else {
                let (next, header) = forge::fragment_header(place);
                forge::ipv6(own, to, next, &header, part)
            };
            self.send_frame(&forge::frame(self.own, self.neighbour, &[], &packet), 0)?;
        }
        Ok(way)
    }

    fn behind_options(&self, way: Way) -> Result<Way> {
        let [_, to] = self.to;
        let (next, header) = forge::options_header();
        let segment = self.segment(to, 7007, PSH_ACK, &way.bytes);
        let packet = forge::ipv6(self.own_address(to), to, next, &header, &segment);
        self.send_frame(&forge::frame(self.own, self.neighbour, &[], &packet), 0)?;
        Ok(way)
    }

    /// A reset of nothing, which opens nothing and carries nothing.
    pub fn reset(&self, to: IpAddr) -> Result<Way> {
        let segment = self.segment(to, 7008, forge::RST, &[]);
        self.send_raw(to, Protocol::TCP, &segment)?;
        Ok(Way { name: "a reset".to_owned(), bytes: segment.get(..12).unwrap_or_default().to_vec() })
    }

    /// A segment with something in it.
    pub fn write(&self, text: &str) -> Result<Vec<Way>> {
        let ways = self.to.iter().map(|to| {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            self.raw(Way::new(format!("{text}, {family}")), *to)
        });
        ways.collect()
    }

    /// A frame with something in it that goes past the queues of the interface.
    pub fn write_past_queues(&self, text: &str) -> Result<std::io::Result<Way>> {
        let [to, _] = self.to;
        let way = Way::new(text.to_owned());
        let packet = self.packet(to, &self.segment(to, 7009, PSH_ACK, &way.bytes));
        let frame = forge::frame(self.own, self.neighbour, &[], &packet);
        self.pod.inside(|| {
            let socket = Socket::from(linux::testing::packet_socket(self.interface, 0)?);
            linux::testing::bypass_queues(&socket)?;
            socket.send(&frame)?;
            Ok(way)
        })
    }

    fn own_address(&self, to: IpAddr) -> IpAddr {
        let [v4, v6] = self.pod.addresses();
        if to.is_ipv4() { v4 } else { v6 }
    }

    fn segment(&self, to: IpAddr, port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        forge::segment((self.own_address(to), 7000).into(), (to, port).into(), flags, payload)
    }

    fn packet(&self, to: IpAddr, segment: &[u8]) -> Vec<u8> {
        let own = self.own_address(to);
        if to.is_ipv4() {
            forge::ipv4(own, to, segment, Fragment::default())
        } else {
            forge::plain_ipv6(own, to, segment)
        }
    }

    fn send_raw(&self, to: IpAddr, protocol: Protocol, bytes: &[u8]) -> Result<()> {
        // Raw sockets have no port.
        let to = match to {
            IpAddr::V4(v4) => SocketAddr::from(SocketAddrV4::new(v4, 0)),
            IpAddr::V6(v6) => SocketAddr::from(SocketAddrV6::new(v6, 0, 0, 0)),
        };
        let sent = self.pod.inside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol))?;
            if protocol == Protocol::from(IPPROTO_RAW) && to.is_ipv6() {
                socket.set_header_included_v6(true)?;
            }
            swallow_drop(socket.send_to(bytes, &to.into()))
        })?;
        sent.with_context(|| format!("a raw socket to {to}"))
    }

    fn send_frame(&self, frame: &[u8], protocol: u16) -> Result<()> {
        let sent = self.pod.inside(|| {
            let socket = Socket::from(linux::testing::packet_socket(self.interface, protocol)?);
            swallow_drop(socket.send(frame))
        })?;
        sent.context("a packet socket")
    }
}

/// The sender may be told that its packet was dropped (`ENOBUFS`), which is as good.
fn swallow_drop(sent: std::io::Result<usize>) -> std::io::Result<()> {
    const ENOBUFS: i32 = 105;
    match sent {
        Err(error) if error.raw_os_error() != Some(ENOBUFS) => Err(error),
        _ => Ok(()),
    }
}

fn word_after<'t>(text: &'t str, before: &str) -> Option<[u8; 6]> {
    let mut words = text.split_whitespace().skip_while(|word| *word != before);
    let address: &'t str = words.nth(1)?;
    let bytes: Vec<u8> = address.split(':').filter_map(|hex| u8::from_str_radix(hex, 16).ok()).collect();
    bytes.try_into().ok()
}

/// A namespace inside of a pod, which the pod forwards for.
pub struct Nested {
    netns: std::path::PathBuf,
}

impl Nested {
    /// The pod's interface to it.
    pub const INTERFACE: &str = "inner0";

    /// Makes one.
    pub fn new(pod: &Pod) -> Result<Self> {
        let netns = pod.node().run().add_netns("nested")?;
        let name = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let (inner, outer) = (name(&netns).context("name")?, name(pod.netns()).context("name")?);
        command::ip(&format!("-n {outer} link add inner0 type veth peer name eth0 netns {inner}"))?;
        command::ip(&format!("-n {outer} link set inner0 up"))?;
        command::ip(&format!("-n {inner} link set eth0 up"))?;
        for (family, gateway, address, prefix) in
            [("-4", "192.168.77.1", "192.168.77.2", 24), ("-6", "fd77:77::1", "fd77:77::2", 64)]
        {
            let nodad = if family == "-6" { " nodad" } else { "" };
            command::ip(&format!("-n {outer} addr add {gateway}/{prefix} dev inner0{nodad}"))?;
            command::ip(&format!("-n {inner} addr add {address}/{prefix} dev eth0{nodad}"))?;
            command::ip(&format!("-n {inner} {family} route add default via {gateway}"))?;
        }
        harness::inside::set_sysctl(pod.netns(), "net/ipv4/ip_forward", "1")?;
        harness::inside::set_sysctl(pod.netns(), "net/ipv6/conf/all/forwarding", "1")?;
        Ok(Self { netns })
    }

    /// A request from inside, on a connection of its own.
    pub fn attempt(&self, to: SocketAddr) -> Result<Attempt> {
        let connected = harness::inside::in_netns(&self.netns, || client::connect(to, client::LIMIT))?;
        Ok(client::attempt(connected, "/"))
    }

    /// Tries to connect from inside; nobody answers.
    pub fn knock(&self, to: SocketAddr) -> Result<()> {
        let connected = harness::inside::in_netns(&self.netns, || TcpStream::connect_timeout(&to, ONE_TRY))?;
        ensure!(connected.is_err(), "{to} answered");
        Ok(())
    }
}

/// Has a captured connection's socket lose its mark, and then write.
pub fn write_unmarked(pod: &Pod, to: SocketAddr, bytes: &[u8]) -> Result<()> {
    let mut stream = pod.connect(to, crate::LIMIT)??;
    Socket::set_mark(&socket2::Socket::from(stream.try_clone()?), 0)?;
    stream.write_all(bytes)?;
    // The stream is kept until the segment was sent, and sent again.
    harness::eventually("the segment to be sent", crate::LIMIT, || {
        let sent = pod.inside(|| retransmits(&stream)).ok()?.ok()?;
        sent.then_some(())
    })
}

/// Whether something was sent that is not acknowledged.
fn retransmits(stream: &TcpStream) -> std::io::Result<bool> {
    let own = stream.local_addr()?;
    let port = format!(":{:04X} ", own.port());
    let table = if own.is_ipv4() { "tcp" } else { "tcp6" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
    // Columns: number, local, remote, state, tx:rx queue, timer:when, retransmits.
    let line = text
        .lines()
        .find(|line| line.split_whitespace().nth(1).is_some_and(|l| format!("{l} ").ends_with(&port)));
    let count = line.and_then(|line| line.split_whitespace().nth(6)?.parse::<u32>().ok());
    // Reset meanwhile is as good: the segment went out.
    Ok(count.is_none_or(|count| count > 0))
}
