//! The log's fields and the metrics' labels, against lines that the peer wrote.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;
use std::time::Duration;

use mesh::Workload;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;
use crate::error::ConnectionError;
use crate::relay::RelayError;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Writes events as the plain log does, strings quoted, the rest as it is; for each thread its own.
struct Lines;

#[derive(Default)]
struct Line(String, String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0 = format!("{value:?}"),
            "duration" => {}
            name => self.1 += &format!(" {name}={value:?}"),
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let meta = event.metadata();
        let level = meta.level().to_string().to_lowercase();
        let line = format!("{level}\t{}\t{}\t{}", meta.target(), line.0, line.1.trim());
        LINES.with_borrow_mut(|lines| lines.push(line));
    }
}

fn workload(name: &str) -> Workload {
    Workload {
        name: name.into(),
        namespace: "default".into(),
        service_account: format!("sa-{name}").into(),
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        locality: mesh::workload::Locality { region: "r1".into(), zone: "z1".into(), ..Default::default() }
            .into(),
        ..Workload::default()
    }
}

fn party(name: &str, proven: bool) -> Party {
    let workload = workload(name);
    Party::of(&workload, proven.then(|| workload.identity()))
}

pub(super) fn tunnelled() -> Details {
    Details {
        reporter: Reporter::Destination,
        source_address: "10.98.1.11:16328".parse().unwrap(),
        source: Some(party("a1", true)),
        destination_address: "10.98.2.11:15008".parse().unwrap(),
        hbone_address: Some("10.98.2.11:7009".into()),
        destination: Some(party("b1", true)),
        service: None,
        transport: Transport::MutualTls,
    }
}

/// What `act` logs. The subscriber is the process's, since the interest in an event is cached for all threads.
pub(super) fn logged(act: impl FnOnce()) -> Vec<String> {
    static SUBSCRIBE: Once = Once::new();
    SUBSCRIBE.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Lines)).unwrap();
    });
    act();
    LINES.take()
}

#[test]
fn a_denied_tunnel_is_logged_in_the_peers_words() {
    let lines = logged(|| {
        let record = Record::open(&Metrics::default(), tunnelled());
        record.finish(Some(&ConnectionError::Denied(mesh::DenyReason::NotAllowed)));
    });
    assert_eq!(
        lines[1],
        "error\taccess\tconnection complete\tsrc.addr=10.98.1.11:16328 src.workload=\"a1\" \
         src.namespace=\"default\" src.identity=\"spiffe://cluster.local/ns/default/sa/sa-a1\" \
         src.cluster=\"Kubernetes\" dst.addr=10.98.2.11:15008 dst.hbone_addr=10.98.2.11:7009 \
         dst.workload=\"b1\" dst.namespace=\"default\" \
         dst.identity=\"spiffe://cluster.local/ns/default/sa/sa-b1\" dst.cluster=\"Kubernetes\" \
         direction=\"inbound\" bytes_sent=0 bytes_recv=0 \
         error=\"connection closed due to policy rejection: allow policies exist, but none allowed\""
    );
    assert!(lines[0].starts_with("debug\taccess\tconnection opened\tsrc.addr="), "{}", lines[0]);
}

#[test]
fn a_plain_connection_has_no_identities_in_the_log_but_one_in_the_metrics() {
    let details = Details {
        source: Some(party("a0", false)),
        hbone_address: None,
        destination_address: "10.98.2.11:7000".parse().unwrap(),
        transport: Transport::Plain,
        ..tunnelled()
    };
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    let lines = logged(|| Record::open(&metrics, details).finish(None));
    assert!(lines[1].starts_with("info\taccess\tconnection complete\t"), "{}", lines[1]);
    assert!(!lines[1].contains("identity") && !lines[1].contains("error="), "{}", lines[1]);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let expected = "istio_tcp_connections_opened_total{reporter=\"destination\",source_workload=\"a0\",\
        source_canonical_service=\"a0\",source_canonical_revision=\"v1\",\
        source_workload_namespace=\"default\",source_principal=\"unknown\",source_app=\"a0\",\
        source_version=\"v1\",source_cluster=\"Kubernetes\",destination_service=\"unknown\",\
        destination_service_namespace=\"unknown\",destination_service_name=\"unknown\",\
        destination_workload=\"b1\",destination_canonical_service=\"b1\",\
        destination_canonical_revision=\"v1\",destination_workload_namespace=\"default\",\
        destination_principal=\"spiffe://cluster.local/ns/default/sa/sa-b1\",destination_app=\"b1\",\
        destination_version=\"v1\",destination_cluster=\"Kubernetes\",request_protocol=\"tcp\",\
        response_flags=\"-\",connection_security_policy=\"unknown\",source_region=\"r1\",\
        source_zone=\"z1\",destination_region=\"r1\",destination_zone=\"z1\"} 1";
    assert!(text.lines().any(|line| line == expected), "{text}");
}

#[test]
fn a_direct_connection_has_identities_and_says_that_it_is_no_tunnel() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    let details = Details { transport: Transport::Direct, ..tunnelled() };
    let lines = logged(|| Record::open(&metrics, details).finish(None));
    for part in ["src.identity=", "dst.identity=", "dst.hbone_addr=10.98.2.11:7009"] {
        assert!(lines[1].contains(part), "{}", lines[1]);
    }
    // After what peers write, so that nobody who counts fields is misled.
    assert!(lines[1].ends_with("bytes_recv=0 transport=\"direct\""), "{}", lines[1]);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let unknown = "connection_security_policy=\"unknown\"";
    let known = "source_principal=\"spiffe://cluster.local/ns/default/sa/sa-a1\"";
    assert!(text.lines().any(|line| line.contains(unknown) && line.contains(known)), "{text}");
}

#[test]
fn a_connection_that_got_nowhere_is_a_warning() {
    let lines = logged(|| {
        let source = "10.98.1.11:1".parse().unwrap();
        let destination = "10.96.0.1:443".parse().unwrap();
        failed(Reporter::Source, source, destination, &"no healthy upstream: 10.96.0.1:443");
    });
    assert_eq!(
        lines,
        ["warn\taccess\tconnection failed\tsrc.addr=10.98.1.11:1 dst.addr=10.96.0.1:443 \
          direction=\"outbound\" error=\"no healthy upstream: 10.96.0.1:443\""]
    );
}

#[test]
fn a_dropped_record_still_closes_the_books() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    drop(Record::open(&metrics, tunnelled()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("istio_tcp_sockets_open{reporter=\"destination\"} 0"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("istio_tcp_connections_closed_total{") && l.ends_with(" 1")));
}

/// The lines of a registry, without comments.
fn series(registry: &Registry) -> Vec<String> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn store(names: &[&str]) -> mesh::Store {
    let store = mesh::Store::new();
    store.update(|snapshot| {
        let mut editor = snapshot.edit();
        names
            .iter()
            .for_each(|name| editor.insert_workload(Workload { uid: (*name).into(), ..workload(name) }));
        Some(editor.finish())
    });
    store
}

#[test]
fn pods_of_one_workload_share_their_series() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    for pod in ["a1-x", "a1-y"] {
        let source = Some(Party { pod: pod.into(), ..party("a1", true) });
        drop(Record::open(&metrics, Details { source, ..tunnelled() }));
    }
    let opened: Vec<_> = series(&registry)
        .into_iter()
        .filter(|line| line.starts_with("istio_tcp_connections_opened"))
        .collect();
    assert!(opened.len() == 1 && opened[0].ends_with("} 2"), "{opened:#?}");
}

#[test]
fn the_series_of_workloads_that_are_gone_go_once_nobody_uses_them() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    let open = |name| Record::open(&metrics, Details { source: Some(party(name, true)), ..tunnelled() });
    let live = open("live");
    open("gone").finish(Some(&ConnectionError::Denied(mesh::DenyReason::NotAllowed)));
    open("gone").finish(None);
    open("there").finish(None);
    drop(Record::open(&metrics, Details { source: None, ..tunnelled() }));
    let named = |name: &str| {
        let name = format!("source_workload=\"{name}\"");
        series(&registry).iter().filter(|line| line.contains(&name)).count()
    };
    let store = store(&["there", "b1"]);
    metrics.release(Duration::from_secs(60), &store.load());
    assert!(
        ["live", "gone", "there", "unknown"].map(named).iter().all(|count| *count > 0),
        "not before its time"
    );
    metrics.release(Duration::ZERO, &store.load());
    assert_eq!(named("gone"), 0, "{:#?}", series(&registry));
    assert!(
        ["live", "there", "unknown"].map(named).iter().all(|count| *count > 0),
        "{:#?}",
        series(&registry)
    );
    live.finish(None);
    metrics.release(Duration::ZERO, &store.load());
    assert_eq!(named("live"), 0, "{:#?}", series(&registry));
    // It comes back as a new counter, and there is room for others in the meantime.
    open("gone").finish(None);
    assert_eq!(named("gone"), 4, "{:#?}", series(&registry));
}

#[test]
fn each_reason_for_a_denial_or_a_cut_is_counted_under_its_name() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 10);
    let limit = Duration::from_secs(1);
    let endings = [
        ConnectionError::Denied(mesh::DenyReason::Explicit { policy: "ns/a".into() }),
        ConnectionError::Denied(mesh::DenyReason::Explicit { policy: "ns/b".into() }),
        ConnectionError::Denied(mesh::DenyReason::NotAllowed),
        ConnectionError::Denied(mesh::DenyReason::UnknownPolicy { name: "ns/c".into() }),
        ConnectionError::WorkloadGone,
        ConnectionError::PolicyChange,
        ConnectionError::Relay(RelayError::Idle(limit)),
        ConnectionError::Relay(RelayError::HalfClosed(limit)),
        ConnectionError::Relay(RelayError::Stalled(limit)),
    ];
    for ending in &endings {
        Record::open(&metrics, tunnelled()).finish(Some(ending));
    }
    let refusal = mesh::inbound::InboundRefusal::ReservedPort(15008);
    metrics.reasons.request_refused(&refusal);
    let counted: Vec<String> = series(&registry)
        .into_iter()
        .filter(|line| line.starts_with("culvert_") && !line.ends_with(" 0"))
        .collect();
    for expected in [
        "culvert_policy_denials_total{reason=\"explicit\"} 2",
        "culvert_policy_denials_total{reason=\"not_allowed\"} 1",
        "culvert_policy_denials_total{reason=\"unknown_policy\"} 1",
        "culvert_policy_denials_total{reason=\"workload_gone\"} 1",
        "culvert_policy_denials_total{reason=\"policy_change\"} 1",
        "culvert_connections_cut_total{reason=\"policy_change\"} 1",
        "culvert_connections_cut_total{reason=\"idle\"} 1",
        "culvert_connections_cut_total{reason=\"half_closed\"} 1",
        "culvert_connections_cut_total{reason=\"stalled\"} 1",
        "culvert_inbound_refusals_total{reason=\"reserved_port\"} 1",
    ] {
        assert!(counted.iter().any(|line| line == expected), "{expected} in {counted:#?}");
    }
    assert_eq!(counted.len(), 10, "{counted:#?}");
}

#[test]
fn every_way_a_connection_can_fail_has_its_flag() {
    use crate::hbone::ConnectError;
    use crate::tls::{CertificateError, HandshakeError};
    let limit = Duration::from_secs(1);
    let identity = workload("a").identity();
    for (error, flag, failed) in [
        (ConnectionError::Denied(mesh::DenyReason::NotAllowed), "DENY", true),
        (ConnectionError::PolicyChange, "DENY", true),
        (ConnectError::Timeout(limit).into(), "CONNECT", true),
        (ConnectError::NoAnswer(limit).into(), "CONNECT", true),
        (ConnectError::Status(http::StatusCode::UNAUTHORIZED).into(), "CONNECT", true),
        (ConnectError::Blocked(limit).into(), "NETWORK_POLICY", true),
        (ConnectError::Tls(HandshakeError::Expired).into(), "TLS_FAILURE", true),
        (ConnectError::Http2("gone".into()).into(), "H2_HANDSHAKE_FAILURE", true),
        (
            ConnectError::Certificate(CertificateError { identity, reason: "no".into() }).into(),
            "IDENTITY_ERROR",
            true,
        ),
        (ConnectError::Tls(HandshakeError::OwnCertificate("no".into())).into(), "IDENTITY_ERROR", true),
        (ConnectError::Tls(HandshakeError::Revoked).into(), "CERT_REVOKED", true),
        (ConnectionError::Revoked, "CERT_REVOKED", false),
        (RelayError::Idle(limit).into(), "-", false),
        (RelayError::CutByPeer.into(), "CONNECT", true),
        (RelayError::StreamReset(h2::Reason::CONNECT_ERROR).into(), "-", false),
    ] {
        assert_eq!((error.flag().label(), error.is_failure()), (flag, failed), "{error}");
    }
}

#[test]
fn beyond_the_limit_connections_are_counted_without_names() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, 2);
    for name in ["a", "b", "c", "d", "a", "c"] {
        drop(Record::open(&metrics, Details { source: Some(party(name, true)), ..tunnelled() }));
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let closed = |source: &str| {
        let source = format!("source_workload=\"{source}\"");
        text.lines()
            .find(|l| l.starts_with("istio_tcp_connections_closed_total{") && l.contains(&source))
            .and_then(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(
        ["a", "b", "c", "d", "unknown"].map(closed),
        [Some(2), Some(1), None, None, Some(3)],
        "{text}"
    );
    assert!(text.contains("culvert_connections_unlabelled_total 3"), "{text}");
}
