//! Why connections are denied, cut or turned away: the reasons as labels, each of a fixed set, and the families that count
//! them. What the log says in words, these say in numbers.

use std::fmt;

use mesh::DenyReason;
use mesh::inbound::InboundRefusal;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::error::ConnectionError;
use crate::relay::RelayError;

/// One label, `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Because {
    reason: Word,
}

/// One of the words below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// The families.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reasons {
    denials: Family<Because, Counter>,
    cuts: Family<Because, Counter>,
    inbound: Family<Because, Counter>,
}

impl Reasons {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let reasons = Self::default();
        registry.register(
            "culvert_policy_denials",
            "Connections that policy denied, or cut when it came to deny them",
            reasons.denials.clone(),
        );
        registry.register(
            "culvert_connections_cut",
            "Connections that were ended by the agent while they were open",
            reasons.cuts.clone(),
        );
        registry.register(
            "culvert_inbound_refusals",
            "Tunnels and requests for connections that were turned away before policy was asked",
            reasons.inbound.clone(),
        );
        reasons
    }

    /// Counts how a connection ended, if that has a reason to be counted under.
    pub(super) fn ended(&self, error: &ConnectionError) {
        if let Some(reason) = denial(error) {
            self.denials.get_or_create(&because(reason)).inc();
        }
        if let Some(reason) = cut(error) {
            self.cuts.get_or_create(&because(reason)).inc();
        }
    }

    /// Counts a tunnel that was not accepted; `reason` is one of a fixed set.
    pub(crate) fn tunnel_refused(&self, reason: &'static str) {
        self.inbound.get_or_create(&because(reason)).inc();
    }

    /// Counts a request for a connection that is not this workload's to serve.
    pub(crate) fn request_refused(&self, refusal: &InboundRefusal) {
        let reason = match refusal {
            InboundRefusal::Mismatch { .. } => "mismatch",
            InboundRefusal::UnknownService { .. } => "unknown_service",
            InboundRefusal::UnknownPort { .. } => "unknown_port",
            InboundRefusal::ReservedPort(_) => "reserved_port",
        };
        self.tunnel_refused(reason);
    }
}

fn because(reason: &'static str) -> Because {
    Because { reason: Word(reason) }
}

fn denial(error: &ConnectionError) -> Option<&'static str> {
    Some(match error {
        ConnectionError::Denied(DenyReason::Explicit { .. }) => "explicit",
        ConnectionError::Denied(DenyReason::NotAllowed) => "not_allowed",
        ConnectionError::Denied(DenyReason::UnknownPolicy { .. }) => "unknown_policy",
        ConnectionError::WorkloadGone => "workload_gone",
        ConnectionError::PolicyChange => "policy_change",
        ConnectionError::Connect(_)
        | ConnectionError::Relay(_)
        | ConnectionError::ClientGone(_)
        | ConnectionError::Abandoned(_)
        | ConnectionError::GaveUp
        | ConnectionError::Revoked => return None,
    })
}

fn cut(error: &ConnectionError) -> Option<&'static str> {
    Some(match error {
        ConnectionError::PolicyChange => "policy_change",
        ConnectionError::Revoked => "certificate_revoked",
        ConnectionError::Relay(RelayError::Idle(_)) => "idle",
        ConnectionError::Relay(RelayError::HalfClosed(_)) => "half_closed",
        ConnectionError::Relay(RelayError::Stalled(_)) => "stalled",
        _ => return None,
    })
}
