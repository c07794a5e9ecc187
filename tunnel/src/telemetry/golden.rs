//! All that is exposed, letter by letter, after one connection; and what the log says of it at its source.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::tests::{logged, tunnelled};
use super::*;
use crate::error::ConnectionError;
use crate::hbone::ConnectError;

fn at_the_source() -> Details {
    let service = ServiceName {
        hostname: "web.default.svc.cluster.local".into(),
        namespace: "default".into(),
        name: "web".into(),
    };
    Details { reporter: Reporter::Source, service: Some(service), ..tunnelled() }
}

#[test]
fn the_exposition() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    let record = Record::open(&metrics, at_the_source());
    record.counters().sent.add(5);
    record.counters().received.add(7);
    record.finish(Some(&ConnectError::Status(http::StatusCode::UNAUTHORIZED).into()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    // Series of one family come in no order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert!(sorted(&text) == sorted(include_str!("golden.txt")), "{text}");
}

#[test]
fn the_log_of_a_connection_that_its_source_tells_of() {
    let lines = logged(|| {
        let record = Record::open(&Metrics::default(), at_the_source());
        record.counters().sent.add(5);
        record.counters().received.add(7);
        record.finish(None);
        let record = Record::open(&Metrics::default(), at_the_source());
        record.finish(Some(&ConnectionError::PolicyChange));
    });
    let who = "src.addr=10.98.1.11:16328 src.workload=\"a1\" src.namespace=\"default\" \
        src.identity=\"spiffe://cluster.local/ns/default/sa/sa-a1\" src.cluster=\"Kubernetes\" \
        dst.addr=10.98.2.11:15008 dst.hbone_addr=10.98.2.11:7009 dst.service=\"web.default.svc.cluster.local\" \
        dst.workload=\"b1\" dst.namespace=\"default\" \
        dst.identity=\"spiffe://cluster.local/ns/default/sa/sa-b1\" dst.cluster=\"Kubernetes\" direction=\"outbound\"";
    let opened = format!("debug\taccess\tconnection opened\t{who}");
    let expected = [
        opened.clone(),
        format!("info\taccess\tconnection complete\t{who} bytes_sent=5 bytes_recv=7"),
        opened,
        format!(
            "error\taccess\tconnection complete\t{who} bytes_sent=0 bytes_recv=0 \
             error=\"connection closed due to policy change\""
        ),
    ];
    assert_eq!(lines, expected);
}
