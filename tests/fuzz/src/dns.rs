//! DNS packets of a pod.

use std::sync::LazyLock;

use hickory_proto::op::{Message, MessageType};
use mesh::service::Visibility;
use mesh::workload::PortMap;
use mesh::{NamespacedHostname, Service, Snapshot, Workload};
use tunnel::fuzzing::{self, DnsClient, DnsOutcome};

/// Longer than any answer to a datagram.
const UDP: usize = 1232;
const RESOLV_CONF: &str =
    "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

static CLIENT: LazyLock<Option<DnsClient>> = LazyLock::new(|| DnsClient::new(mesh(), RESOLV_CONF));

fn service(namespace: &str, hostname: &str, vips: &[&str]) -> Service {
    Service {
        namespace: namespace.into(),
        hostname: hostname.into(),
        vips: vips.iter().filter_map(|vip| vip.parse().ok()).collect(),
        ports: PortMap::from([(80, 8080), (443, 8443)]),
        ..Service::default()
    }
}

/// A little of everything, under short names.
fn mesh() -> Snapshot {
    let mut editor = Snapshot::default().edit();
    let headless = NamespacedHostname::new("default", "h.example");
    for service in [
        service("default", "a.default.svc.cluster.local", &["/10.96.0.1", "/fd00::1"]),
        service("b", "a.b.svc.cluster.local", &["/10.96.0.2"]),
        service("default", "h.example", &[]),
        service("default", "h.default.svc.cluster.local", &[]),
        service("default", "*.w.example", &["/240.240.0.1"]),
        service("default", "e.example", &["/240.240.0.2", "/2001:2::1"]),
        Service { visibility: Visibility::Namespace, ..service("b", "s.example", &["/240.240.0.3"]) },
    ] {
        editor.insert_service(service);
    }
    for n in 1..=200_u8 {
        editor.insert_workload(Workload {
            uid: format!("w{n}").into(),
            hostname: format!("w{n}.example").into(),
            addresses: [[10, 0, 0, n].into(), [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)].into()].into(),
            services: [(headless.clone(), PortMap::from([(80, 80)]))].into(),
            ..Workload::default()
        });
    }
    editor.finish()
}

/// The first byte says how the packet travels, and is the random number; the rest is the packet.
///
/// # Panics
/// When something does not hold.
pub fn dns(data: &[u8]) {
    let (Some((first, packet)), Some(client)) = (data.split_first(), &*CLIENT) else { return };
    let tcp = first & 1 != 0;
    match client.handle(packet, tcp, u64::from(first >> 1)) {
        DnsOutcome::Dropped => {}
        DnsOutcome::Reply(reply) => {
            check(&reply, packet);
            assert!(tcp || reply.len() <= UDP);
        }
        DnsOutcome::Forwarded { failure, passed } => {
            if let Some(failure) = failure {
                check(&failure, packet);
            }
            assert!(passed.len() >= packet.len().min(12));
        }
    }
    let mut stream = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    stream.extend(packet);
    let whole = fuzzing::begins_with_question(&stream);
    for end in [2, 14, stream.len() / 2] {
        // What is decided early is not decided otherwise later.
        let early = fuzzing::begins_with_question(&stream[..end.min(stream.len())]);
        assert!(early.is_none() || early == whole);
    }
    let (query, reply) = packet.split_at(packet.len() / 2);
    let _ = fuzzing::is_dns_answer(reply, query);
}

/// Holds for every answer: it is one, and it can be read.
fn check(reply: &[u8], packet: &[u8]) {
    let message = Message::from_vec(reply);
    let message = message.unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(reply[..2], packet[..2], "the id");
    assert!(fuzzing::is_dns_answer(reply, packet), "{reply:?} to {packet:?}");
}
