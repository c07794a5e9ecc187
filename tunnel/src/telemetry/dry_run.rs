//! Counts what dry-run policies would have decided.
//!
//! Invariant: policies come and go, and the series do not grow with them without bound: beyond a number of policies the rest
//! are counted together.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use mesh::authorize::DryRunMatch;
use mesh::policy::Action;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Policies that are counted by name.
const NAMED: usize = 1000;
/// The name of all others.
const OTHERS: &str = "others";

/// The labels of the counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Matched {
    policy: String,
    action: &'static str,
}

/// The matches of dry-run policies.
#[derive(Debug, Clone, Default)]
pub(crate) struct DryRuns {
    matches: Family<Matched, Counter>,
    named: Arc<Mutex<HashSet<Arc<str>>>>,
}

impl DryRuns {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let dry_runs = Self::default();
        registry.register(
            "culvert_dry_run_matches",
            "Connections that a dry-run policy matches; action is what it would mean if it were enforced",
            dry_runs.matches.clone(),
        );
        dry_runs
    }

    /// Counts one match.
    pub(crate) fn count(&self, matched: &DryRunMatch) {
        let action = match matched.action {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
        };
        let policy = if self.is_named(&matched.policy) { &matched.policy } else { OTHERS };
        self.matches.get_or_create(&Matched { policy: policy.to_owned(), action }).inc();
    }

    fn is_named(&self, policy: &Arc<str>) -> bool {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.contains(policy) || (named.len() < NAMED && named.insert(Arc::clone(policy)))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn policies_beyond_a_number_are_counted_together() {
        let mut registry = Registry::default();
        let dry_runs = DryRuns::register(&mut registry);
        for n in 0..NAMED + 5 {
            let policy = format!("ns/p{n}").into();
            dry_runs.count(&DryRunMatch { policy, action: Action::Deny });
        }
        dry_runs.count(&DryRunMatch { policy: "ns/p0".into(), action: Action::Deny });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("culvert_dry_run")).collect();
        assert_eq!(lines.len(), NAMED + 1);
        for line in [
            "culvert_dry_run_matches_total{policy=\"ns/p0\",action=\"DENY\"} 2",
            "culvert_dry_run_matches_total{policy=\"others\",action=\"DENY\"} 5",
        ] {
            assert!(lines.contains(&line), "{line}");
        }
    }
}
