//! Packets, whole and broken, over both transports.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use mesh::workload::PortMap;
use mesh::{Service, Workload};

use super::world::World;
use crate::dns::handler::{Action, Handled, handle};
use crate::dns::message::{Transport, is_answer, is_truncated};

const REVIEWS: &str = "Reviews.BOOKINFO.svc.cluster.local.";

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(mut message: Message, payload: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(version).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

fn handled(world: &World, packet: &[u8], transport: Transport) -> Handled {
    handle(&world.asker(1), packet, transport)
}

fn reply(world: &World, message: &Message, transport: Transport) -> (Vec<u8>, Message) {
    let packet = message.to_vec().unwrap();
    match handled(world, &packet, transport).action {
        Action::Reply(bytes) => {
            assert!(is_answer(&bytes, &packet));
            let message = Message::from_vec(&bytes).unwrap();
            (bytes, message)
        }
        other => panic!("{other:?}"),
    }
}

/// A headless service with many endpoints.
fn crowded(endpoints: u16) -> World {
    let mut world = World::new();
    let mut editor = world.snapshot.edit();
    let service = Service { hostname: "crowd.example".into(), namespace: "vm".into(), ..Service::default() };
    for n in 0..endpoints {
        let [high, low] = n.to_be_bytes();
        editor.insert_workload(Workload {
            uid: format!("crowd/{n}").into(),
            addresses: [std::net::Ipv4Addr::new(10, 9, high, low).into()].into(),
            services: [(service.key(), PortMap::new())].into(),
            ..Workload::default()
        });
    }
    editor.insert_service(service);
    world.snapshot = editor.finish();
    world
}

#[test]
fn an_answer_echoes_the_question_and_says_who_it_is_from() {
    let (bytes, answer) = reply(&World::new(), &query(REVIEWS, RecordType::A), Transport::Udp);
    let asked = query(REVIEWS, RecordType::A).to_vec().unwrap();
    assert_eq!(&bytes[12..asked.len()], &asked[12..], "the question, letter by letter");
    let flags = &answer.metadata;
    assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired);
    assert!(flags.checking_disabled && !flags.truncation && !flags.authentic_data);
    let [record] = &answer.answers[..] else { panic!("{answer}") };
    assert_eq!((record.name.to_ascii().as_str(), record.ttl), (REVIEWS, 30));
    assert_eq!(record.data, RData::A(A::new(10, 96, 213, 85)));
    assert!(answer.edns.is_none() && answer.authorities.is_empty() && answer.additionals.is_empty());
}

#[test]
fn nothing_is_told_with_the_zone_and_for_how_long() {
    let (_, answer) = reply(&World::new(), &query(REVIEWS, RecordType::AAAA), Transport::Udp);
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    let [Record { name, ttl: 30, data: RData::SOA(soa), .. }] = &answer.authorities[..] else {
        panic!("{answer}")
    };
    assert_eq!((name.to_ascii().as_str(), soa.minimum), ("cluster.local.", 30));
}

#[test]
fn a_searched_name_is_an_alias() {
    let asked = query("API.external.example.bookinfo.svc.cluster.local.", RecordType::A);
    let (_, answer) = reply(&World::new(), &asked, Transport::Udp);
    let text: Vec<String> = answer.answers.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "API.external.example.bookinfo.svc.cluster.local. 30 IN CNAME api.external.example.",
            "api.external.example. 30 IN A 240.240.0.1"
        ]
    );
}

#[test]
fn ports_come_with_addresses_beside_them() {
    let (_, answer) = reply(&World::new(), &query("mysql.corp.example.", RecordType::SRV), Transport::Udp);
    assert_eq!(answer.answers[0].to_string(), "mysql.corp.example. 30 IN SRV 0 100 3306 mysql.corp.example.");
    assert_eq!(answer.additionals[0].to_string(), "mysql.corp.example. 30 IN A 240.0.0.9");
}

#[test]
fn answers_are_as_long_as_the_client_takes() {
    let world = crowded(3000);
    let asked = query("crowd.example.", RecordType::A);
    for (asked, transport, limit, truncated) in [
        (asked.clone(), Transport::Udp, 512, true),
        (with_edns(asked.clone(), 100, 0), Transport::Udp, 512, true),
        (with_edns(asked.clone(), 1000, 0), Transport::Udp, 1000, true),
        (with_edns(asked.clone(), 4096, 0), Transport::Udp, 1232, true),
        (with_edns(asked.clone(), 512, 0), Transport::Tcp, 65_535, false),
        (asked, Transport::Tcp, 65_535, false),
    ] {
        let (bytes, answer) = reply(&world, &asked, transport);
        assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
        // Filled; a long message less well, since names far into it are not abbreviated.
        let filled = limit - bytes.len() < 32 || limit == 65_535 && answer.answers.len() > 2000;
        assert!(filled, "{} of {limit}", bytes.len());
        assert_eq!((answer.metadata.truncation, is_truncated(&bytes)), (truncated, truncated));
        assert_eq!(answer.edns.is_some(), asked.edns.is_some());
    }
}

#[test]
fn edns_is_answered_in_kind() {
    let (_, answer) =
        reply(&World::new(), &with_edns(query(REVIEWS, RecordType::A), 4096, 0), Transport::Udp);
    let edns = answer.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, 1232, true));
    let future = with_edns(query(REVIEWS, RecordType::A), 4096, 1);
    let (_, answer) = reply(&World::new(), &future, Transport::Udp);
    // BADVERS, which has its number in common with BADSIG.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!((answer.edns.unwrap().version(), answer.answers.len()), (0, 0));
}

#[test]
fn what_is_no_question_is_passed_on_or_dropped() {
    let world = World::new();
    let good = query(REVIEWS, RecordType::A);
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    let mut two = good.clone();
    two.add_query(Query::query(Name::from_ascii("a.").unwrap(), RecordType::A));
    let mut chaos = good.clone();
    chaos.queries[0].query_class = DNSClass::CH;
    let mut none = good.clone();
    none.queries.clear();
    for foreign in [update, two, chaos, none] {
        let packet = foreign.to_vec().unwrap();
        let Action::Forward(forward) = handled(&world, &packet, Transport::Udp).action else {
            panic!("{foreign}")
        };
        let failed = Message::from_vec(&forward.failed(&packet).unwrap()).unwrap();
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
        assert_eq!((failed.metadata.id, failed.metadata.op_code), (0x1234, foreign.metadata.op_code));
    }
    let answer = good.clone().into_response().to_vec().unwrap();
    for noise in [&answer[..], &[], &[0; 11]] {
        assert!(matches!(handled(&world, noise, Transport::Udp).action, Action::Drop));
    }
    let packet = good.to_vec().unwrap();
    for end in 12..packet.len() {
        let Action::Reply(reply) = handled(&world, &packet[..end], Transport::Udp).action else {
            panic!("{end}")
        };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.response_code, reply.metadata.id), (ResponseCode::FormErr, 0x1234));
    }
}

#[test]
fn replies_are_passed_on_unchanged_but_for_names_that_the_mesh_knows() {
    let world = World::new();
    let packet = query("mysql.corp.example.", RecordType::MX).to_vec().unwrap();
    let Action::Forward(forward) = handled(&world, &packet, Transport::Udp).action else { panic!() };
    let mut reply = query("mysql.corp.example.", RecordType::MX).into_response();
    reply.add_additional(Record::from_rdata(
        Name::from_ascii("x.").unwrap(),
        5,
        RData::A(A::new(1, 2, 3, 4)),
    ));
    let bytes = reply.to_vec().unwrap();
    assert_eq!(forward.pass_on(bytes.clone()), bytes);
    reply.metadata.response_code = ResponseCode::NXDomain;
    let passed = Message::from_vec(&forward.pass_on(reply.to_vec().unwrap())).unwrap();
    assert_eq!((passed.metadata.response_code, passed.authorities.len()), (ResponseCode::NoError, 1));
    let packet = query("unknown.example.", RecordType::A).to_vec().unwrap();
    let Action::Forward(forward) = handled(&world, &packet, Transport::Udp).action else { panic!() };
    assert_eq!(forward.pass_on(reply.to_vec().unwrap()), reply.to_vec().unwrap());
}

#[test]
fn answers_to_other_questions_are_told_apart() {
    let asked = query("a.example.", RecordType::A);
    let packet = asked.to_vec().unwrap();
    let answer = |change: fn(&mut Message)| {
        let mut message = query("A.Example.", RecordType::A).into_response();
        change(&mut message);
        is_answer(&message.to_vec().unwrap(), &packet)
    };
    assert!(answer(|_| {}));
    assert!(answer(|message| message.queries.clear()), "a resolver that gave up");
    assert!(!answer(|message| message.metadata.id = 1));
    assert!(!answer(|message| message.metadata.message_type = MessageType::Query));
    assert!(!answer(|message| message.metadata.op_code = OpCode::Notify));
    assert!(!answer(|message| message.queries[0].query_type = RecordType::AAAA));
    assert!(!answer(|message| message.queries[0].name = Name::from_ascii("b.example.").unwrap()));
    assert!(!is_answer(&[], &packet));
}

#[test]
fn types_are_named_in_metrics() {
    let kind = |kind| handled(&World::new(), &query("a.", kind).to_vec().unwrap(), Transport::Udp).kind;
    assert_eq!(kind(RecordType::AAAA), "aaaa");
    assert_eq!(kind(RecordType::NSEC3), "nsec3");
    assert_eq!(kind(RecordType::Unknown(4711)), "other");
}
