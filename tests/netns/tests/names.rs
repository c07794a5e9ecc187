//! Names, asked for by `dig` in a captured pod: in the mesh and outside of it, over every transport.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use harness::mesh_file::Service;
use harness::{Pod, command, eventually};
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, ips, metric};

const PORT: u16 = 53;
/// What the resolver outside says of every name.
const ELSEWHERE: &str = "192.0.2.77";
/// Addresses of a host with a wildcard.
const WILD: [&str; 2] = ["10.96.0.50", "2001:db8:96::50"];

/// A resolver outside, by datagram and by connection. Answers to questions for names that begin with `long` are cut short in
/// datagrams.
fn start_resolver(world: &World) -> Result<()> {
    for address in world.outside_ips() {
        let target = SocketAddr::new(address, PORT);
        let (socket, listener) = in_netns(&world.outside.netns, || {
            Ok::<_, std::io::Error>((UdpSocket::bind(target)?, TcpListener::bind(target)?))
        })??;
        // Both end with the test's process.
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Some(answer) = reply(buffer.get(..length).unwrap_or_default(), true) else { continue };
                if socket.send_to(&answer, from).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut asked = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut asked).is_err() {
                    continue;
                }
                let Some(answer) = reply(&asked, false) else { continue };
                let mut message = (answer.len() as u16).to_be_bytes().to_vec();
                message.extend(answer);
                // A client that is gone has no use for it.
                let _ = stream.write_all(&message);
            }
        });
    }
    Ok(())
}

fn reply(asked: &[u8], datagram: bool) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(asked).ok()?.into_response();
    let query = message.queries.first()?.clone();
    if datagram && query.name.to_ascii().starts_with("long") {
        message.metadata.truncation = true;
    } else if query.query_type == RecordType::A {
        message.add_answer(Record::from_rdata(query.name.clone(), 5, RData::A(A(ELSEWHERE.parse().ok()?))));
        message.add_additional(Record::from_rdata(query.name, 5, RData::A(A(ELSEWHERE.parse().ok()?))));
    }
    message.to_vec().ok()
}

/// What `dig` prints, asking one of the resolver's addresses.
fn dig(pod: &Pod, server: IpAddr, words: &[&str]) -> Result<String> {
    let mut dig = pod.command("dig")?;
    dig.arg(format!("@{server}")).args(["+tries=1", "+time=10", "+nocookie", "+noadflag"]).args(words);
    command::run(&mut dig)
}

#[test]
fn names_of_the_mesh_and_others_over_each_transport() -> Result<()> {
    let world = World::new()?;
    start_resolver(&world)?;
    let web = "web.demo.svc.cluster.local";
    ensure!(world.mesh.services.iter().any(|service| service.hostname == web), "the service's name");
    let [web4, web6] = WEB;
    for server in world.outside_ips() {
        for transport in ["+notcp", "+tcp"] {
            for (words, expected) in [
                (&[web, "A"][..], web4),
                (&[web, "AAAA"], web6),
                (&["web", "A"], web4),
                (&["web.demo", "AAAA"], web6),
                (&["elsewhere.example", "A"], ELSEWHERE),
                (&["elsewhere.example", "AAAA"], ""),
                (&["long.example", "A"], ELSEWHERE),
                (&[web, "MX"], ""),
                (&[web, "SRV"], "0 100 80 web.demo.svc.cluster.local."),
            ] {
                let words: Vec<&str> = words.iter().copied().chain([transport, "+short"]).collect();
                let answer = dig(&world.client, server, &words)?;
                ensure!(answer.trim() == expected, "{words:?} of {server}: {answer}");
            }
        }
    }
    let labels = [
        ("request_query_type", "a"),
        ("request_protocol", "tcp"),
        ("source_canonical_service", "client"),
        ("source_canonical_revision", "v1"),
    ];
    eventually("queries over connections to be counted", LIMIT, || {
        let asked = metric(&world.agent1, "istio_dns_requests_total", &labels).ok()?;
        let upstream = metric(&world.agent1, "istio_dns_upstream_requests_total", &labels).ok()?;
        // `long` comes over a connection, too, where datagrams do not do.
        (asked > upstream && upstream >= 4.0).then_some(())
    })?;
    Ok(())
}

#[test]
fn answers_look_as_they_should() -> Result<()> {
    let world = World::new()?;
    start_resolver(&world)?;
    let [server, _] = world.outside_ips();
    for (words, expected) in [
        // The question's letters stay as they were, and the answer is the mesh's own.
        (&["WEB.demo.svc.cluster.local", "A"][..], "flags: qr aa rd ra;"),
        (&["WEB.demo.svc.cluster.local", "A"], "\nWEB.demo.svc.cluster.local. 30 IN A 10.96.0.10"),
        (&["web.demo.svc.cluster.local", "TXT"], "status: NOERROR"),
        (&["web.demo.svc.cluster.local", "TXT"], "\ncluster.local. 30 IN SOA"),
        // What a library with the usual search list asks first.
        (
            &["web.demo.svc.cluster.local.demo.svc.cluster.local", "A"],
            "\nweb.demo.svc.cluster.local.demo.svc.cluster.local. 30 IN CNAME web.demo.svc.cluster.local.",
        ),
        (&["web.demo.svc.cluster.local", "A", "+bufsize=4096"], "EDNS: version: 0, flags:; udp: 1232"),
        (&["web.demo.svc.cluster.local", "A", "+edns=1", "+noednsnegotiation"], "status: BADVERS"),
        (&["web.demo.svc.cluster.local", "A", "+noedns"], "ADDITIONAL: 0"),
        // The resolver's answer is passed on whole, and not taken for the mesh's.
        (
            &["elsewhere.example", "A", "+noedns"],
            "flags: qr rd; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1",
        ),
        (&["long.example", "A", "+ignore"], "flags: qr tc rd;"),
        (&["version.bind", "CH", "A"], "status: NOERROR"),
        (&["elsewhere.example", "A", "+opcode=NOTIFY"], "opcode: NOTIFY, status: NOERROR"),
    ] {
        let answer = dig(&world.client, server, words)?;
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let answer: String = answer.lines().map(|text| format!("\n{}", line(text))).collect();
        ensure!(answer.contains(expected), "{words:?}: no {expected:?} in {answer}");
    }
    Ok(())
}

#[test]
fn a_host_with_a_wildcard_answers_in_the_letters_of_the_question() -> Result<()> {
    let mut bare = Bare::new()?;
    let wild = Service::new("wild", "demo", &ips(WILD), &[(SERVICE, HTTP)]);
    bare.mesh.services.push(Service { hostname: "*.corp.example".to_owned(), ..wild });
    let world = bare.enrol()?;
    start_resolver(&world)?;
    let [wild4, wild6] = WILD;
    for server in world.outside_ips() {
        for (name, kind, expected) in [
            ("ApI.Corp.EXAMPLE", "A", format!("ApI.Corp.EXAMPLE. 30 IN A {wild4}")),
            ("a.b.corp.example", "AAAA", format!("a.b.corp.example. 30 IN AAAA {wild6}")),
            // Not the domain itself: that is the resolver's.
            ("corp.example", "A", format!("corp.example. 5 IN A {ELSEWHERE}")),
        ] {
            let answer = dig(&world.client, server, &[name, kind, "+noall", "+answer"])?;
            let answer = answer.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(answer == expected, "{name} {kind} of {server}: {answer}");
        }
    }
    Ok(())
}

#[test]
fn a_pods_own_search_list_counts() -> Result<()> {
    let mut world = World::new()?;
    start_resolver(&world)?;
    let [server, _] = world.outside_ips();
    // A container: mounts of its own, with a file of its own.
    let file = world.run.dir().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {server}\nsearch corp.example\noptions ndots:1\n"))?;
    let mut container = world.client.command("unshare")?;
    let script = "mount --bind \"$0\" /etc/resolv.conf && echo ready && exec sleep 600";
    container.args(["--mount", "sh", "-c", script]).arg(&file).stdout(std::process::Stdio::piped());
    let mut container = container.spawn()?;
    let mut ready = [0; 6];
    container.stdout.as_mut().context("stdout")?.read_exact(&mut ready)?;
    let service = world.mesh.services.first().context("a service")?.clone();
    let [web4, _] = WEB;
    let outcome = (|| {
        let other = Service { hostname: "api.corp.example".into(), ..service };
        world.mesh.services.push(other);
        world.write_mesh()?;
        eventually("the service to be known", LIMIT, || {
            let answer = dig(&world.client, server, &["api.corp.example", "A", "+short"]).ok()?;
            (answer.trim() == web4).then_some(())
        })?;
        for (name, expected) in [("api", web4), ("web", ELSEWHERE), ("web.demo.svc.cluster.local", web4)] {
            let answer = dig(&world.client, server, &[name, "A", "+short"])?;
            ensure!(answer.trim() == expected, "{name}: {answer}");
        }
        Ok(())
    })();
    container.kill()?;
    container.wait()?;
    outcome
}
