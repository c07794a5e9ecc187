//! What is told of each connection: one access-log record and the `istio_tcp_*` metrics.
//!
//! Names, labels, words and orders are those that dashboards and log parsers of ambient meshes read.
//! Invariant: a connection that is counted as opened is counted as closed, once, however it ends.

mod dry_run;
mod labels;
mod metrics;
mod party;
mod record;
mod same_node;
#[cfg(test)]
mod tests;

pub(crate) use labels::Reporter;
pub(crate) use metrics::Metrics;
pub(crate) use party::{Party, ServiceName};
pub(crate) use record::{Details, Record, Transport, failed};
pub(crate) use same_node::SameNodeOutcome;
