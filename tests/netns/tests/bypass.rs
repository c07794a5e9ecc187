//! Rows E12 and E14 of the truth table: whatever an application does to its socket, its connection is captured or refused,
//! and never leaves the node in plaintext.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netns_tests::{Bare, HTTP, LIMIT, World, at};
use socket2::{Domain, Protocol, Socket, Type};

/// What an application got.
#[derive(Debug)]
enum Outcome {
    /// Answered, and the agent stood between.
    Captured,
    /// An error, or the end, before an answer.
    Refused(std::io::Error),
    /// Answered, by the client's own pod.
    Itself,
}

/// Uses a connected socket as an HTTP client; that the server saw the very socket is the failure that all this is about.
fn use_socket(socket: Socket) -> Result<Outcome> {
    socket.set_nonblocking(false)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    let own = stream.local_addr()?;
    let mut http = harness::Http::new(stream)?;
    match http.get("/bypass-needle") {
        Ok(reply) if reply.field("app") == "client" => Ok(Outcome::Itself),
        Ok(reply) => {
            ensure!(
                reply.peer()? != plain(own),
                "the server saw the client's own socket {own}: plaintext past the agent"
            );
            Ok(Outcome::Captured)
        }
        Err(error) => Ok(Outcome::Refused(std::io::Error::other(error))),
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes a socket in the pod, has `prepare` do something to it, connects, and uses it; in both families.
fn try_with(prepare: impl Fn(&Socket, SocketAddr) -> std::io::Result<()> + Sync) -> Result<Vec<Outcome>> {
    let world = World::new()?;
    let tap = world.wire.tap()?;
    let mut outcomes = Vec::new();
    for target in at(world.server.addresses(), HTTP) {
        let connected = world.client.inside(|| {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
            prepare(&socket, target)?;
            socket.connect_timeout(&target.into(), LIMIT)?;
            Ok::<_, std::io::Error>(socket)
        })?;
        outcomes.push(match connected {
            Ok(socket) => use_socket(socket)?,
            Err(error) => Outcome::Refused(error),
        });
    }
    tap.settle()?;
    ensure!(!tap.contains(b"bypass-needle")?, "payload was on the wire");
    Ok(outcomes)
}

fn all_captured(outcomes: &[Outcome]) -> Result<()> {
    ensure!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Captured)), "{outcomes:?}");
    Ok(())
}

#[test]
fn e12_bound_to_a_device() -> Result<()> {
    all_captured(&try_with(|socket, _| socket.bind_device(Some(b"eth0")))?)
}

#[test]
fn e12_bound_to_loopbacks_device() -> Result<()> {
    all_captured(&try_with(|socket, _| socket.bind_device(Some(b"lo")))?)
}

#[test]
fn e12_marked_by_the_app_and_its_own_bits_kept() -> Result<()> {
    // With the agent's own mark, with another one in the same bits, and with bits beyond them.
    for mark in [0xc17, 0x539, 0x1000_0000 | 0x111] {
        all_captured(&try_with(move |socket, _| socket.set_mark(mark))?)?;
    }
    let world = World::new()?;
    let target = at(world.server.addresses(), HTTP)[0];
    let mark = world.client.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_mark(0x5_6000)?;
        socket.connect_timeout(&target.into(), LIMIT)?;
        socket.mark()
    })??;
    ensure!(mark == 0x5_6c17, "{mark:#x}");
    Ok(())
}

#[test]
fn e12_marked_and_bound_to_loopback_as_the_agents_sockets_are() -> Result<()> {
    let outcomes = try_with(|socket, _| {
        socket.set_mark(0xc17)?;
        socket.bind_device(Some(b"lo"))
    })?;
    all_captured(&outcomes)
}

#[test]
fn e12_bound_before_connect() -> Result<()> {
    let own = |target: SocketAddr| -> SocketAddr {
        if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
    };
    all_captured(&try_with(move |socket, target| socket.bind(&own(target).into()))?)
}

#[test]
fn e12_with_freebind_or_transparent() -> Result<()> {
    all_captured(&try_with(|socket, target| {
        if target.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) }
    })?)?;
    all_captured(&try_with(|socket, target| {
        if target.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
    })?)
}

#[test]
fn e12_with_a_spoofed_source() -> Result<()> {
    // A transparent socket with a source that is not the pod's: it reaches nobody, least of all past the agent.
    let outcomes = try_with(|socket, target| {
        let source: IpAddr = if target.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
            IpAddr::from([10, 1, 1, 77])
        } else {
            socket.set_ip_transparent_v6(true)?;
            IpAddr::from([0x2001, 0xdb8, 1, 1, 0, 0, 0, 0x77])
        };
        socket.bind(&SocketAddr::new(source, 0).into())
    })?;
    // That nothing was on the wire has been looked at; beyond that, such a socket may reach its own pod at most.
    for outcome in outcomes {
        match outcome {
            Outcome::Refused(error) => ensure!(!error.to_string().is_empty()),
            Outcome::Itself => {}
            Outcome::Captured => anyhow::bail!("captured, with a source that nobody can answer"),
        }
    }
    Ok(())
}

#[test]
fn e12_bound_to_loopbacks_address() -> Result<()> {
    let outcomes = try_with(|socket, target| {
        let source: SocketAddr =
            if target.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
        socket.bind(&source.into())
    })?;
    // Captured, with a source that no peer could answer; what matters is that it was not past the agent.
    ensure!(outcomes.len() == 2);
    Ok(())
}

#[test]
fn e12_non_blocking() -> Result<()> {
    let world = World::new()?;
    for target in at(world.server.addresses(), HTTP) {
        let socket = world.client.inside(|| {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&target.into()) {
                Err(error) if error.raw_os_error() != Some(115) => return Err(error),
                _ => {}
            }
            Ok(socket)
        })??;
        harness::eventually("the connection", LIMIT, || socket.peer_addr().is_ok().then_some(()))?;
        ensure!(matches!(use_socket(socket)?, Outcome::Captured));
    }
    Ok(())
}

#[test]
fn e12_fast_open() -> Result<()> {
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    let world = World::new()?;
    let tap = world.wire.tap()?;
    for target in at(world.server.addresses(), HTTP) {
        for _ in 0..2 {
            let request =
                format!("GET /bypass-needle HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
            let socket = world.client.inside(|| {
                let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
                let sent = socket.send_to_with_flags(request.as_bytes(), &target.into(), MSG_FASTOPEN)?;
                Ok::<_, std::io::Error>((socket, sent))
            })?;
            let (socket, sent) = socket?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(LIMIT))?;
            let rest = request.as_bytes().get(sent..).unwrap_or_default();
            stream.write_all(rest)?;
            let own = stream.local_addr()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.contains("200 OK") && !answer.contains(&own.to_string()), "{answer}");
        }
    }
    tap.settle()?;
    ensure!(!tap.contains(b"bypass-needle")?);
    Ok(())
}

#[test]
fn e12_multipath_tcp() -> Result<()> {
    const IPPROTO_MPTCP: i32 = 262;
    let world = World::new()?;
    let tap = world.wire.tap()?;
    for target in at(world.server.addresses(), HTTP) {
        let connected = world.client.inside(|| {
            let socket =
                Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::from(IPPROTO_MPTCP)))?;
            socket.connect_timeout(&target.into(), LIMIT)?;
            Ok::<_, std::io::Error>(socket)
        })?;
        match connected {
            Ok(socket) => drop(use_socket(socket)?),
            // A kernel without MPTCP, or one where it is switched off.
            Err(error) => ensure!(!matches!(error.kind(), std::io::ErrorKind::TimedOut), "{error}"),
        }
    }
    tap.settle()?;
    ensure!(!tap.contains(b"bypass-needle")?, "payload was on the wire");
    Ok(())
}

#[test]
fn e12_an_ipv4_address_mapped_into_ipv6() -> Result<()> {
    let world = World::new()?;
    let target = SocketAddr::new(IpAddr::V6(world.server.ipv4().to_ipv6_mapped()), HTTP);
    let socket = world.client.inside(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.connect_timeout(&target.into(), LIMIT)?;
        Ok::<_, std::io::Error>(socket)
    })??;
    ensure!(matches!(use_socket(socket)?, Outcome::Captured));
    // And the tricks with loopback: left alone, in every form.
    for own in [
        "127.0.0.1:8080",
        "127.1.2.3:8080",
        "0.0.0.0:8080",
        "[::1]:8080",
        "[::]:8080",
        "[::ffff:127.0.0.1]:8080",
        "[::ffff:0.0.0.0]:8080",
    ] {
        let mut http = world.client.open_http(own.parse()?)?;
        let socket = plain(http.stream().local_addr()?);
        ensure!(http.get("/")?.peer()? == socket, "{own} must be left alone");
    }
    Ok(())
}

#[test]
fn e12_a_link_local_destination_is_refused() -> Result<()> {
    let world = World::new()?;
    // The bridge of the node, which is the pod's neighbour.
    let target: std::net::SocketAddrV6 = "[fe80::1]:8080".parse()?;
    let scoped = std::net::SocketAddrV6::new(*target.ip(), target.port(), 0, 2);
    let error = world.client.inside(|| TcpStream::connect_timeout(&scoped.into(), Duration::from_secs(2)))?;
    let error = error.err().context("it must be refused")?;
    ensure!(error.kind() == std::io::ErrorKind::PermissionDenied, "{error}");
    Ok(())
}

#[test]
fn e12_a_socket_made_before_enrolment_and_connected_after() -> Result<()> {
    let bare = Bare::new()?;
    let targets = at(bare.server.addresses(), HTTP);
    let early = targets
        .map(|target| bare.client.inside(|| Socket::new(Domain::for_address(target), Type::STREAM, None)));
    let world = bare.enrol()?;
    for (target, socket) in targets.into_iter().zip(early) {
        let socket = socket??;
        socket.connect_timeout(&target.into(), LIMIT)?;
        ensure!(matches!(use_socket(socket)?, Outcome::Captured));
    }
    drop(world);
    Ok(())
}

#[test]
fn e12_a_socket_of_the_pod_used_by_a_process_elsewhere() -> Result<()> {
    let world = World::new()?;
    for target in at(world.server.addresses(), HTTP) {
        let socket =
            world.client.inside(|| Socket::new(Domain::for_address(target), Type::STREAM, None))??;
        // Handed over, as SCM_RIGHTS does: another descriptor of the same socket, connected outside of the pod.
        let handed = Socket::from(socket.as_fd().try_clone_to_owned()?);
        drop(socket);
        handed.connect_timeout(&target.into(), LIMIT)?;
        ensure!(matches!(use_socket(handed)?, Outcome::Captured));
    }
    Ok(())
}

#[test]
fn e12_simultaneous_open_is_refused_or_captured() -> Result<()> {
    let world = World::new()?;
    let tap = world.wire.tap()?;
    for target in at(world.plain.addresses(), 7777) {
        let own = if target.is_ipv4() { world.client.addresses()[0] } else { world.client.addresses()[1] };
        let (here, there) = (SocketAddr::new(own, 7777), target);
        // Each end connects to the other with the port that the other expects, again and again.
        let open = |from: SocketAddr, to: SocketAddr| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
            socket.set_nonblocking(true)?;
            match socket.connect(&to.into()) {
                Err(error) if error.raw_os_error() != Some(115) => Err(error),
                _ => Ok(socket),
            }
        };
        for _ in 0..20 {
            let one = world.client.inside(|| open(here, there))?;
            let other = world.plain.inside(|| open(there, here))?;
            if let (Ok(one), Ok(_other)) = (one, other) {
                std::thread::sleep(Duration::from_millis(5));
                // Whatever became of it, what is written does not reach the wire as it is.
                let _ = (&one).write(b"bypass-needle");
            }
        }
    }
    tap.settle()?;
    let from_client = |s: &harness::frame::Segment<'_>| {
        world.client.addresses().contains(&s.source.ip())
            && s.payload.windows(13).any(|w| w == b"bypass-needle")
            && s.source.port() == 7777
    };
    ensure!(!tap.any(from_client), "the client's own socket was on the wire");
    Ok(())
}

#[test]
fn e14_any_process_of_the_namespace_is_captured() -> Result<()> {
    let world = World::new()?;
    for target in at(world.server.addresses(), HTTP) {
        // A program that entered the namespace, as an exec, an nsenter or an ephemeral container does.
        let program = harness::node::binary("POD_APP_BIN", "pod-app")?;
        let mut command = harness::command::in_netns(world.client.netns(), &program);
        let output = harness::command::run(command.args(["get", &target.to_string()]))?;
        ensure!(output.starts_with("200 "), "{output}");
    }
    harness::eventually("both connections in the log", LIMIT, || {
        let lines = world.agent1.log_lines(&["connection complete", "outbound", "sa/client", "sa/server"]);
        (lines.len() == 2).then_some(())
    })?;
    Ok(())
}
