//! DNS of a pod: datagrams and connections, answered from the mesh and by a resolver.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mesh::workload::{PortMap, Protocol};
use mesh::{NamespacedHostname, Service, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::world::{RESOLVER, World, soon};

/// A resolver that knows everything: each name has the address 192.0.2.1, for a time that the name says.
struct Resolver {
    by_datagram: Arc<AtomicUsize>,
    by_connection: Arc<AtomicUsize>,
}

impl Resolver {
    /// Starts it where the pods' applications believe it to be.
    async fn start(world: &World) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The same port of the other protocol may be somebody else's.
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, socket);
            }
        };
        world.places.place((RESOLVER, 53).into(), listener.local_addr().unwrap());
        let resolver = Self { by_datagram: Arc::default(), by_connection: Arc::default() };
        let asked = Arc::clone(&resolver.by_datagram);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                asked.fetch_add(1, Ordering::Relaxed);
                if let Some(reply) = reply(&buffer[..length], true) {
                    // What somebody else could slip in comes first.
                    let mut forged = reply.clone();
                    forged[0] ^= 1;
                    socket.send_to(&forged, client).await.unwrap();
                    socket.send_to(&reply, client).await.unwrap();
                }
            }
        });
        let asked = Arc::clone(&resolver.by_connection);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                asked.fetch_add(1, Ordering::Relaxed);
                while let Ok(length) = stream.read_u16().await {
                    let mut packet = vec![0; usize::from(length)];
                    if stream.read_exact(&mut packet).await.is_err() {
                        break;
                    }
                    let Some(reply) = reply(&packet, false) else { break };
                    stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        });
        resolver
    }

    fn asked(&self) -> (usize, usize) {
        (self.by_datagram.load(Ordering::Relaxed), self.by_connection.load(Ordering::Relaxed))
    }
}

/// Names that begin with `silent` get no answer, those with `long` none that fits into a datagram.
fn reply(packet: &[u8], datagram: bool) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(packet).unwrap().into_response();
    let name = message.queries[0].name.clone();
    let text = name.to_ascii();
    if text.starts_with("silent") {
        return None;
    }
    if text.starts_with("long") && datagram {
        message.metadata.truncation = true;
        return message.to_vec().ok();
    }
    let ttl = text.split('.').next()?.strip_prefix("ttl-").map_or(7, |ttl| ttl.parse().unwrap());
    if message.queries[0].query_type != RecordType::AAAA {
        message.add_answer(Record::from_rdata(name.clone(), ttl, RData::A(A::new(192, 0, 2, 1))));
    }
    message.add_additional(Record::from_rdata(name, 9, RData::A(A::new(192, 0, 2, 9))));
    message.to_vec().ok()
}

fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// Makes `web.default.svc.cluster.local` known.
fn with_web(world: &World) {
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_service(Service {
            name: "web".into(),
            namespace: "default".into(),
            hostname: "web.default.svc.cluster.local".into(),
            vips: vec!["/10.96.0.10".parse().unwrap()],
            ..Service::default()
        });
        Some(editor.finish())
    });
}

async fn by_datagram(way: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(way).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = [0; 4096];
    let length = soon(socket.recv(&mut buffer)).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn send(stream: &mut TcpStream, packet: &[u8]) {
    stream.write_u16(packet.len().try_into().unwrap()).await.unwrap();
    stream.write_all(packet).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Message {
    let length = soon(stream.read_u16()).await.unwrap();
    let mut packet = vec![0; usize::from(length)];
    soon(stream.read_exact(&mut packet)).await.unwrap();
    Message::from_vec(&packet).unwrap()
}

fn address(message: &Message) -> Option<Ipv4Addr> {
    message.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    })
}

#[tokio::test]
async fn datagrams_are_answered_by_the_mesh_or_by_the_resolver() {
    let mut world = World::new();
    with_web(&world);
    let resolver = Resolver::start(&world).await;
    let (way, _) = world.way_to_resolver();
    let answer = by_datagram(way, &query(1, "web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 96, 0, 10)));
    let answer = by_datagram(way, &query(2, "web.", RecordType::A)).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 96, 0, 10)));
    assert_eq!(resolver.asked(), (0, 0));
    let answer = by_datagram(way, &query(3, "Other.Example.", RecordType::A)).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!((answer.additionals.len(), answer.metadata.id), (1, 3));
    let answer = by_datagram(way, &query(4, "long.example.", RecordType::A)).await;
    assert!(answer.metadata.truncation);
    let mut update = Message::from_vec(&query(5, "example.", RecordType::SOA)).unwrap();
    update.metadata.op_code = OpCode::Update;
    let answer = by_datagram(way, &update.to_vec().unwrap()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(resolver.asked(), (3, 0));
    let labels =
        "request_protocol=\"udp\",source_canonical_service=\"client\",source_canonical_revision=\"v1\"} ";
    let line = |name: &str, kind: &str, value: &str| {
        format!("{name}{{request_query_type=\"{kind}\",{labels}{value}")
    };
    world.client.metric(&[&line("istio_dns_requests_total", "a", "4")]).await;
    world.client.metric(&[&line("istio_dns_requests_total", "other", "1")]).await;
    world.client.metric(&[&line("istio_dns_upstream_requests_total", "a", "2")]).await;
    world.client.metric(&[&line("istio_dns_upstream_request_duration_seconds_count", "a", "2")]).await;
}

#[tokio::test]
async fn a_resolver_that_fails_is_told_as_failure() {
    let mut world = World::new();
    let (way, _) = world.way_to_resolver();
    // Nobody is there: told at once. Somebody says nothing: within the limit.
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.places.place((RESOLVER, 53).into(), gone);
    let answer = by_datagram(way, &query(1, "a.example.", RecordType::A)).await;
    assert_eq!((answer.metadata.response_code, answer.metadata.id), (ResponseCode::ServFail, 1));
    let resolver = Resolver::start(&world).await;
    let answer = by_datagram(way, &query(2, "silent.example.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(resolver.asked(), (3, 0));
    world.client.metric(&["istio_dns_upstream_failures_total{request_query_type=\"a\"", "} 2"]).await;
}

#[tokio::test]
async fn questions_on_a_connection_are_answered_as_they_are_ready() {
    let mut world = World::new();
    with_web(&world);
    let resolver = Resolver::start(&world).await;
    let (_, way) = world.way_to_resolver();
    let mut stream = TcpStream::connect(way).await.unwrap();
    let names = ["long.example.", "web.default.svc.cluster.local.", "other.example."];
    for (id, name) in (1..).zip(names) {
        send(&mut stream, &query(id, name, RecordType::A)).await;
    }
    // Nothing more is asked: what is under way is answered all the same, then it ends.
    stream.shutdown().await.unwrap();
    let mut answers = [receive(&mut stream).await, receive(&mut stream).await, receive(&mut stream).await];
    answers.sort_by_key(|answer| answer.metadata.id);
    let found = answers.each_ref().map(|answer| (address(answer).unwrap(), answer.metadata.truncation));
    let upstream = (Ipv4Addr::new(192, 0, 2, 1), false);
    assert_eq!(found, [upstream, (Ipv4Addr::new(10, 96, 0, 10), false), upstream]);
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(resolver.asked(), (2, 1), "once more over a connection, for what did not fit");
    world.client.metric(&["istio_dns_requests_total{", "request_protocol=\"tcp\"", "} 3"]).await;
}

#[tokio::test]
async fn what_is_no_question_is_carried_as_any_connection() {
    let mut world = World::new();
    with_web(&world);
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place((RESOLVER, 53).into(), server.local_addr().unwrap());
    let (_, way) = world.way_to_resolver();
    let mut transfer = vec![0, 29];
    transfer.extend(query(1, "example.com.", RecordType::AXFR));
    for first in [&b"SSH-2.0-client\r\n"[..], &transfer] {
        let mut client = TcpStream::connect(way).await.unwrap();
        client.write_all(first).await.unwrap();
        let (mut accepted, _) = soon(server.accept()).await.unwrap();
        let mut read = vec![0; first.len()];
        soon(accepted.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, first);
        accepted.write_all(b"as it is").await.unwrap();
        let mut read = [0; 8];
        soon(client.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, b"as it is");
    }
}

#[tokio::test]
async fn a_pod_without_dns_capture_asks_for_itself() {
    let mut world = World::new();
    with_web(&world);
    let resolver = Resolver::start(&world).await;
    let way = world.way_to((RESOLVER, 53));
    let mut stream = TcpStream::connect(way).await.unwrap();
    send(&mut stream, &query(1, "web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(address(&receive(&mut stream).await), Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(resolver.asked(), (0, 1));
}

/// A service whose endpoint is known by this name only.
fn by_name(world: &World, vip: &str, hostname: &str) {
    let key = NamespacedHostname::new("default", format!("{hostname}.service"));
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_service(Service {
            namespace: "default".into(),
            hostname: Arc::clone(&key.hostname),
            vips: vec![format!("/{vip}").parse().unwrap()],
            ports: PortMap::from([(80, 8080)]),
            ..Service::default()
        });
        editor.insert_workload(Workload {
            uid: hostname.into(),
            hostname: hostname.into(),
            protocol: Protocol::Tcp,
            services: [(key.clone(), PortMap::from([(80, 8080)]))].into(),
            ..Workload::default()
        });
        Some(editor.finish())
    });
}

#[tokio::test]
async fn destinations_known_by_name_are_asked_of_the_pods_own_resolver() {
    let mut world = World::new();
    let resolver = Resolver::start(&world).await;
    world.places.set_resolv_conf(&format!("nameserver {RESOLVER}\n"));
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place("192.0.2.1:8080".parse().unwrap(), app.local_addr().unwrap());
    // Asked for both families each time it is asked for.
    for (vip, hostname, asked) in [("10.96.1.1", "ttl-60.example", 2), ("10.96.1.2", "ttl-0.example", 8)] {
        by_name(&world, vip, hostname);
        let way = world.way_to(SocketAddr::new(vip.parse().unwrap(), 80));
        for _ in 0..3 {
            let client = TcpStream::connect(way).await.unwrap();
            soon(app.accept()).await.unwrap();
            drop(client);
        }
        assert_eq!(resolver.asked(), (asked, 0), "{hostname}");
        let hostname = format!("hostname=\"{hostname}\"");
        let parts = ["istio_on_demand_dns_total{source_workload=\"client\"", &hostname, "} 3"];
        world.client.metric(&parts).await;
    }
}
