//! What the peer's resolver was asked in a pod, asked of ours in the same mesh: the same answers, or better ones.

use std::collections::BTreeSet;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use mesh::service::{HealthPolicy, LoadBalancer, LoadBalancerMode};
use mesh::workload::{Health, PortMap};
use mesh::{Service, Snapshot, Workload};
use recordings::agent::Question;
use serde_json::Value;

use super::world::World;
use crate::dns::handler::{Action, handle};
use crate::dns::message::Transport;

/// What ours answers though the peer's passes it on: ports are known, and of Kubernetes' names there is nothing else.
const ANSWERED: [(&str, &str, usize); 2] =
    [("reviews.bookinfo.svc.cluster.local", "SRV", 1), ("reviews.bookinfo.svc.cluster.local", "TXT", 0)];

fn texts<T: std::str::FromStr<Err: std::fmt::Debug>>(of: &Value) -> Vec<T> {
    of.as_array().into_iter().flatten().map(|one| one.as_str().unwrap().parse().unwrap()).collect()
}

fn service(of: &Value) -> Service {
    let text = |key: &str| of[key].as_str().unwrap().into();
    let ports = of["ports"].as_object().unwrap().iter();
    let ranges = of["cidrVips"].as_array().into_iter().flatten();
    let balancer = &of["loadBalancer"];
    let passthrough = balancer["mode"] == "Passthrough";
    Service {
        name: text("name"),
        namespace: text("namespace"),
        hostname: text("hostname"),
        vips: texts(&of["vips"]),
        cidr_vips: ranges
            .map(|range| format!("/{}", range["cidr"].as_str().unwrap()).parse().unwrap())
            .collect(),
        ports: ports
            .map(|(port, target)| (port.parse().unwrap(), target.as_u64().unwrap().try_into().unwrap()))
            .collect(),
        canonical: of["canonical"] == true,
        load_balancer: LoadBalancer {
            mode: if passthrough { LoadBalancerMode::Passthrough } else { LoadBalancerMode::Standard },
            health_policy: match balancer["healthPolicy"].as_str() {
                Some("AllowAll") => HealthPolicy::AllowAll,
                _ => HealthPolicy::OnlyHealthy,
            },
            ..LoadBalancer::default()
        },
        ..Service::default()
    }
}

fn workload(of: &Value) -> Workload {
    let text = |key: &str| of[key].as_str().unwrap_or_default().into();
    Workload {
        uid: text("uid"),
        name: text("name"),
        namespace: text("namespace"),
        hostname: text("hostname"),
        addresses: texts(&of["workloadIps"]).into(),
        status: if of["status"] == "Healthy" { Health::Healthy } else { Health::Unhealthy },
        services: texts(&of["services"]).into_iter().map(|service| (service, PortMap::new())).collect(),
        ..Workload::default()
    }
}

/// The mesh that the peer showed when it was asked.
fn world() -> World {
    let dump: Value =
        serde_json::from_str(&recordings::text("istiod/agent/config_dump.json").unwrap()).unwrap();
    let mut editor = Snapshot::default().edit();
    dump["services"].as_array().unwrap().iter().for_each(|one| editor.insert_service(service(one)));
    dump["workloads"].as_array().unwrap().iter().for_each(|one| editor.insert_workload(workload(one)));
    World { snapshot: editor.finish(), ..World::new() }
}

/// The answer, or none if others are asked.
fn ask(world: &World, asked: &Question) -> Option<Message> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let kind: RecordType = asked.kind.parse().unwrap();
    let name = format!("{}.", asked.name.trim_end_matches('.'));
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let transport = if asked.over == "tcp" { Transport::Tcp } else { Transport::Udp };
    match handle(&world.asker(1), &message.to_vec().unwrap(), transport).action {
        Action::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap()),
        Action::Forward(_) => None,
        other => panic!("{asked:?}: {other:?}"),
    }
}

#[test]
fn the_peers_answers_are_ours() {
    let world = world();
    let (mut same, mut passed_on, mut better) = (0, 0, 0);
    for asked in recordings::agent::dns().unwrap() {
        let ours = ask(&world, &asked);
        if asked.rcode == "SERVFAIL" {
            // The peer passed it on, and nobody was there.
            let answered = ANSWERED
                .iter()
                .find(|(name, kind, _)| (*name, *kind) == (asked.name.as_str(), asked.kind.as_str()));
            match (answered, ours) {
                (None, None) => passed_on += 1,
                (Some((_, _, count)), Some(ours)) => {
                    assert_eq!(ours.answers.len(), *count, "{asked:?}: {ours}");
                    better += 1;
                }
                (_, ours) => panic!("{asked:?}: {ours:?}"),
            }
            continue;
        }
        let ours = ours.unwrap_or_else(|| panic!("{asked:?} is passed on"));
        assert_eq!((asked.rcode.as_str(), asked.flags.as_str()), ("NOERROR", "QR AA RD RA"));
        let flags = &ours.metadata;
        assert_eq!(flags.response_code, ResponseCode::NoError, "{asked:?}");
        assert!(flags.authoritative && flags.recursion_desired && flags.recursion_available, "{asked:?}");
        let theirs: BTreeSet<String> =
            asked.answers.iter().flat_map(|set| set.lines()).map(str::to_ascii_lowercase).collect();
        let records: BTreeSet<String> =
            ours.answers.iter().map(|record| record.to_string().to_ascii_lowercase()).collect();
        assert_eq!(records, theirs, "{asked:?}");
        // Better: letters are as they were asked for, and "nothing" says how long it holds.
        let name = format!("{}.", asked.name.trim_end_matches('.'));
        assert!(ours.answers.iter().all(|record| record.name.to_ascii() == name), "{asked:?}: {ours}");
        assert_eq!(ours.answers.is_empty(), !ours.authorities.is_empty(), "{asked:?}: {ours}");
        same += 1;
    }
    assert_eq!((same, passed_on, better), (29, 15, 2));
}
