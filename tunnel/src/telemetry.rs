//! What is told of each connection: one access-log record and the `istio_tcp_*` metrics.
//!
//! Names, labels, words and orders are those that dashboards and log parsers of ambient meshes read.
//! Invariants: a connection that is counted as opened is counted as closed, once, however it ends; the number of series is
//! bounded, and those of workloads that are gone go.

mod connect_times;
mod dry_run;
#[cfg(test)]
mod golden;
mod known;
mod labels;
mod metrics;
mod party;
mod reasons;
mod record;
mod same_node;
mod span;
#[cfg(test)]
mod tests;

pub use connect_times::ConnectTimes;
pub(crate) use labels::Reporter;
pub(crate) use metrics::Metrics;
pub(crate) use party::{Party, ServiceName};
pub(crate) use record::{Details, Record, Transport, failed};
pub(crate) use same_node::SameNodeOutcome;
pub(crate) use span::begin;
pub use span::{Carriage, Peer, Span, Spans};
