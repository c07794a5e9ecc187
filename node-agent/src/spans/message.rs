//! A span as OTLP writes it.
//!
//! Names are those of OpenTelemetry's conventions where there is one, and those of the access log where there is none.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, SpanFlags, Status};
use tunnel::{Carriage, Direction, Peer, Span};

/// The flag of W3C's trace context that says that a trace is sampled.
const SAMPLED: u32 = 1;

/// What is said of the agent with its spans.
pub(super) fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().map(|(name, value)| text(name, value)).collect();
    Resource { attributes, ..Resource::default() }
}

/// A request with spans.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "culvert".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = spans.iter().map(span).collect();
    let of_scope = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let of_resource = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![of_scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}

fn span(span: &Span) -> otlp::Span {
    let kind = match span.direction {
        Direction::Outbound => SpanKind::Client,
        Direction::Inbound => SpanKind::Server,
    };
    let name = match &*span.service {
        "" => "connection".to_owned(),
        service => format!("connection {service}"),
    };
    let remote = SpanFlags::ContextHasIsRemoteMask as u32
        | span.parent.map_or(0, |_| SpanFlags::ContextIsRemoteMask as u32);
    let status =
        span.error.as_ref().map(|error| Status { message: error.clone(), code: StatusCode::Error.into() });
    otlp::Span {
        trace_id: span.trace.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED | remote,
        name,
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(span.started),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: attributes(span),
        status: Some(status.unwrap_or_default()),
        ..otlp::Span::default()
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let (source, destination) = (&span.source, &span.destination);
    let family = if destination.address.is_ipv4() { "ipv4" } else { "ipv6" };
    let (direction, peer) = match span.direction {
        Direction::Outbound => ("outbound", destination.address),
        Direction::Inbound => ("inbound", source.address),
    };
    let carriage = match span.carriage {
        Carriage::Plain => "plain",
        Carriage::Tunnel => "hbone",
        Carriage::Direct => "direct",
    };
    let address = |peer: &Peer| peer.address.ip().to_string();
    let port = |name, port: u16| number(name, port.into());
    let server = if span.service.is_empty() { address(destination) } else { span.service.to_string() };
    let mut all = vec![
        text("network.transport", "tcp"),
        text("network.type", family),
        text("network.peer.address", &peer.ip().to_string()),
        port("network.peer.port", peer.port()),
        text("source.address", &address(source)),
        port("source.port", source.address.port()),
        text("destination.address", &address(destination)),
        port("destination.port", destination.address.port()),
        text("server.address", &server),
        text("direction", direction),
        text("transport", carriage),
        number("bytes_sent", span.bytes_sent),
        number("bytes_recv", span.bytes_received),
        text("response_flags", span.flag),
    ];
    let sides = [("src", source), ("dst", destination)];
    for (side, peer) in sides {
        let identity = peer.identity.as_ref().map(ToString::to_string).unwrap_or_default();
        let known = [
            ("workload", &*peer.pod),
            ("namespace", &*peer.namespace),
            ("identity", identity.as_str()),
            ("cluster", &*peer.cluster),
        ];
        let known = known.into_iter().filter(|(_, value)| !value.is_empty());
        all.extend(known.map(|(name, value)| text(&format!("{side}.{name}"), value)));
    }
    all.extend(span.hbone_address.as_ref().map(|asked| text("dst.hbone_addr", asked)));
    all.extend((!span.service.is_empty()).then(|| text("dst.service", &span.service)));
    // A word of few, as the convention wants it; the whole reason is the status.
    let kind = if span.flag == "-" { "_OTHER" } else { span.flag };
    all.extend(span.error.as_ref().map(|_| text("error.type", kind)));
    all
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::StringValue(value.to_owned()))
}

fn number(name: &str, value: u64) -> KeyValue {
    attribute(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: name.to_owned(), value, ..KeyValue::default() }
}

/// Since 1970; a clock before that is 0.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
