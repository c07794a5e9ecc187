//! What is told of certificates: what became of fetches, and when what is there ends.
//!
//! One series an identity: a node has as many as its pods have accounts, and one goes when it is forgotten. The soonest to
//! end are told when there are more than [`MOST`].

use std::fmt;
use std::sync::Weak;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::manager::Entries;
use super::{AuthorityError, CertificateError, State, answer};
use crate::clock::Clock;

/// Identities whose expiry is told.
const MOST: usize = 1000;

/// Counts fetches.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    fetches: Family<Outcome, Counter>,
    failures: Family<Because, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

/// The reasons of failures, as labels.
const REASONS: [&str; 5] = ["refused", "unreachable", "bad_answer", "timeout", "request"];

fn reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Authority(AuthorityError::Refused { .. }) => "refused",
        CertificateError::Authority(AuthorityError::Unreachable { .. }) => "unreachable",
        CertificateError::Authority(AuthorityError::Garbled { .. }) | CertificateError::BadAnswer { .. } => {
            "bad_answer"
        }
        CertificateError::TimedOut { .. } => "timeout",
        CertificateError::Request { .. } | CertificateError::Forgotten { .. } => "request",
    }
}

impl Metrics {
    /// Counts what became of one fetch.
    pub(super) fn fetched(&self, error: Option<&CertificateError>) {
        let result = if error.is_none() { "issued" } else { "failed" };
        self.fetches.get_or_create(&Outcome { result }).inc();
        if let Some(error) = error {
            self.failures.get_or_create(&Because { reason: reason(error) }).inc();
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for result in ["issued", "failed"] {
            drop(self.fetches.get_or_create(&Outcome { result }));
        }
        for reason in REASONS {
            drop(self.failures.get_or_create(&Because { reason }));
        }
        registry.register(
            "culvert_certificate_fetches",
            "Certificates that were asked of the authority",
            self.fetches.clone(),
        );
        registry.register(
            "culvert_certificate_fetch_failures",
            "Certificates that were asked for in vain",
            self.failures.clone(),
        );
    }
}

/// Tells of what is there.
pub(super) struct Held(pub(super) Weak<Entries>, pub(super) Clock);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(..)")
    }
}

impl Collector for Held {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(entries) = self.0.upgrade() else { return Ok(()) };
        let (mut ends, mut roots) = (Vec::new(), Vec::new());
        let now = self.1.now();
        let (mut identities, mut overdue) = (0, 0);
        for (identity, state, due) in entries.view() {
            identities += 1;
            if due.is_some_and(|due| due < now) {
                overdue += 1;
            }
            if let State::Available(certificate) = state {
                ends.push((seconds(certificate.not_after), identity.to_string()));
                // One set for all, but for the moment in which it changes.
                if roots.is_empty() {
                    roots.clone_from(&certificate.roots);
                }
            }
        }
        ends.sort();
        let help = "When the certificate of an identity ends";
        let name = "culvert_certificate_expiry_timestamp_seconds";
        let mut expiry = encoder.encode_descriptor(name, help, None, ConstGauge::new(0_i64).metric_type())?;
        for (end, identity) in ends.into_iter().take(MOST) {
            ConstGauge::new(end).encode(expiry.encode_family(&[("identity", identity)])?)?;
        }
        let root_end = roots.iter().filter_map(answer::end_of).min().map(seconds);
        for (name, help, value) in [
            ("culvert_certificate_identities", "Identities that certificates are kept of", Some(identities)),
            (
                "culvert_certificate_renewals_overdue",
                "Certificates whose renewal is due and has not succeeded",
                Some(overdue),
            ),
            (
                "culvert_root_certificates",
                "Roots of trust of the mesh, those that are leaving included",
                i64::try_from(roots.len()).ok(),
            ),
            (
                "culvert_root_certificate_expiry_timestamp_seconds",
                "When the first of the roots of trust ends",
                root_end,
            ),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
