//! What becomes of a span, as far as no collector is needed.

use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Message;
use tunnel::{Carriage, Direction, Peer, Span, Spans as _};

use super::*;

fn peer(address: &str, pod: &str) -> Peer {
    Peer {
        address: address.parse().unwrap(),
        pod: pod.into(),
        namespace: "demo".into(),
        cluster: "".into(),
        identity: Some(mesh::Identity::new("cluster.local", "demo", pod)),
    }
}

fn span() -> Span {
    let started = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_007);
    Span {
        trace: 0x0102,
        id: 3,
        parent: None,
        direction: Direction::Outbound,
        started,
        ended: started + Duration::from_millis(5),
        source: peer("10.0.0.1:40000", "client"),
        destination: peer("[fd00::2]:15008", "server"),
        hbone_address: Some("[fd00::2]:8080".to_owned()),
        service: "web.demo.svc.cluster.local".into(),
        carriage: Carriage::Tunnel,
        bytes_sent: 7,
        bytes_received: 9,
        flag: "-",
        error: None,
    }
}

fn written(span: Span) -> Message {
    let mut request = message::request(&message::resource(&[]), &[span]);
    request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

/// An attribute as text.
fn said(span: &Message, name: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_in_the_words_of_conventions_and_of_the_log() {
    let message = written(span());
    assert_eq!((message.name.as_str(), message.kind), ("connection web.demo.svc.cluster.local", 3));
    assert_eq!(message.trace_id, [vec![0; 14], vec![1, 2]].concat());
    assert_eq!((&*message.span_id, &*message.parent_span_id), (&[0, 0, 0, 0, 0, 0, 0, 3][..], &[][..]));
    assert_eq!(
        (message.start_time_unix_nano, message.end_time_unix_nano),
        (1_700_000_000_000_000_007, 1_700_000_000_005_000_007)
    );
    assert_eq!((message.flags, message.status.clone().unwrap().code), (0x101, 0));
    for (name, value) in [
        ("network.transport", "tcp"),
        ("network.type", "ipv6"),
        ("network.peer.address", "fd00::2"),
        ("network.peer.port", "15008"),
        ("source.address", "10.0.0.1"),
        ("source.port", "40000"),
        ("destination.address", "fd00::2"),
        ("destination.port", "15008"),
        ("server.address", "web.demo.svc.cluster.local"),
        ("direction", "outbound"),
        ("transport", "hbone"),
        ("bytes_sent", "7"),
        ("bytes_recv", "9"),
        ("response_flags", "-"),
        ("src.workload", "client"),
        ("src.identity", "spiffe://cluster.local/ns/demo/sa/client"),
        ("dst.workload", "server"),
        ("dst.hbone_addr", "[fd00::2]:8080"),
        ("dst.service", "web.demo.svc.cluster.local"),
    ] {
        assert_eq!(said(&message, name).as_deref(), Some(value), "{name}");
    }
    for absent in ["src.cluster", "error.type"] {
        assert_eq!(said(&message, absent), None, "what is not known is left out");
    }
}

#[test]
fn a_server_goes_on_with_the_trace_and_tells_the_error() {
    let error = Some("explicitly denied by: demo/no-client".to_owned());
    let inbound = Span {
        direction: Direction::Inbound,
        parent: Some(0xabcd),
        flag: "DENY",
        error: error.clone(),
        service: "".into(),
        ..span()
    };
    let message = written(inbound.clone());
    assert_eq!((message.name.as_str(), message.kind, message.flags), ("connection", 2, 0x301));
    assert_eq!(message.parent_span_id, [0, 0, 0, 0, 0, 0, 0xab, 0xcd]);
    let status = message.status.clone().unwrap();
    assert_eq!((status.code, Some(status.message)), (2, error));
    for (name, value) in
        [("error.type", "DENY"), ("network.peer.address", "10.0.0.1"), ("server.address", "fd00::2")]
    {
        assert_eq!(said(&message, name).as_deref(), Some(value), "{name}");
    }
    let other = written(Span { flag: "-", ..inbound });
    assert_eq!(said(&other, "error.type").as_deref(), Some("_OTHER"));
}

#[tokio::test]
async fn what_has_no_room_is_dropped_and_what_is_left_at_the_end_is_counted() {
    let nobody = config::Spans {
        endpoint: control::grpc::Endpoint {
            address: "http://127.0.0.1:9".parse().unwrap(),
            roots: control::grpc::RootsOfTrust::System,
            server_name: None,
            token: None,
            headers: control::grpc::Headers::default(),
            cluster_id: None,
        },
        resource: Vec::new(),
        sampler: Sampler::new(true, 1.0),
        queue: 2,
    };
    let mut registry = Registry::default();
    let exporter = Exporter::start(&nobody, &mut registry);
    // The task has had no turn yet.
    for _ in 0..5 {
        exporter.take(span());
    }
    flush(Some(exporter)).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "culvert_spans_dropped_total{reason=\"queue_full\"} 3",
        "culvert_spans_dropped_total{reason=\"ended\"} 2",
        "culvert_spans_exported_total 0",
        "culvert_span_export_failures_total 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
    }
}
