//! Policy evaluation a second time, as naively as can be: everything is text, every rule of the language is spelled out,
//! nothing is shared with the real one but the resources. Slow and obvious.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::policy::{Action, Clause, Match, Rule, Scope, StringMatch};
use crate::{Connection, Policy};

/// What must come out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Enforced DENY policies that match.
    pub(super) denying: BTreeSet<String>,
    /// Enforced ALLOW policies that apply, and those of them that match.
    pub(super) allow: BTreeSet<String>,
    pub(super) allowing: BTreeSet<String>,
    /// Listed names that nothing answers to.
    pub(super) unknown: BTreeSet<String>,
    /// Dry-run policies that match.
    pub(super) dry: BTreeSet<String>,
}

/// A client and where it connects to, in words.
struct Facts {
    principal: Option<String>,
    namespace: Option<String>,
    account: Option<String>,
    source: String,
    destination: String,
    port: String,
}

/// Judges a connection to a workload of `namespace` that lists these names.
pub(super) fn expect(
    policies: &[Policy],
    namespace: &str,
    listed: &[String],
    connection: &Connection<'_>,
) -> Expected {
    let facts = Facts::of(connection);
    let mut expected = Expected::default();
    for policy in policies {
        let key = format!("{}/{}", policy.namespace, policy.name);
        let applies = match policy.scope {
            Scope::Global => true,
            Scope::Namespace => &*policy.namespace == namespace || listed.contains(&key),
            Scope::WorkloadSelector => listed.contains(&key),
        };
        if !applies {
            continue;
        }
        let mut matched = false;
        for rule in &policy.rules {
            matched = matched || facts.rule(rule);
        }
        if policy.dry_run {
            if matched {
                expected.dry.insert(key);
            }
        } else if policy.action == Action::Deny {
            if matched {
                expected.denying.insert(key);
            }
        } else {
            expected.allow.insert(key.clone());
            if matched {
                expected.allowing.insert(key);
            }
        }
    }
    for name in listed {
        if !policies.iter().any(|policy| *name == format!("{}/{}", policy.namespace, policy.name)) {
            expected.unknown.insert(name.clone());
        }
    }
    expected
}

impl Facts {
    fn of(connection: &Connection<'_>) -> Self {
        let spiffe = connection.source_identity.map(ToString::to_string);
        let part = |n: usize| spiffe.as_ref().map(|uri| uri.split('/').nth(n).unwrap().to_owned());
        Self {
            principal: spiffe.as_ref().map(|uri| uri.replace("spiffe://", "")),
            namespace: part(4),
            account: part(6),
            source: bits(connection.source_ip, 128),
            destination: bits(connection.destination.ip(), 128),
            port: connection.destination.port().to_string(),
        }
    }

    fn rule(&self, rule: &Rule) -> bool {
        let mut all = true;
        for clause in &rule.clauses {
            all = all && self.clause(clause);
        }
        all
    }

    fn clause(&self, clause: &Clause) -> bool {
        if clause.matches.is_empty() {
            return true;
        }
        let mut any = false;
        for condition in &clause.matches {
            any = any || self.condition(condition);
        }
        any
    }

    fn condition(&self, m: &Match) -> bool {
        let text = |wanted: &StringMatch, value: &Option<String>| match (wanted, value) {
            (_, None) => false,
            (StringMatch::Exact(text), Some(value)) => value.as_str() == &**text,
            (StringMatch::Prefix(text), Some(value)) => value.find(&**text) == Some(0),
            (StringMatch::Suffix(text), Some(value)) => {
                value.len() >= text.len() && value[value.len() - text.len()..] == **text
            }
            (StringMatch::Presence, Some(value)) => !value.is_empty(),
        };
        // A range by the leading bits of its addresses.
        let inside = |range: &ipnet::IpNet, address: &String| {
            address.starts_with(&bits(range.network(), usize::from(range.prefix_len())))
        };
        let account = |wanted: &crate::policy::ServiceAccount| {
            self.namespace.as_deref() == Some(&*wanted.namespace)
                && self.account.as_deref() == Some(&*wanted.name)
        };
        // Each kind of field: what it says yes to, what it says no to.
        let kinds: [(Vec<bool>, Vec<bool>); 6] = [
            (
                m.namespaces.iter().map(|s| text(s, &self.namespace)).collect(),
                m.not_namespaces.iter().map(|s| text(s, &self.namespace)).collect(),
            ),
            (
                m.principals.iter().map(|s| text(s, &self.principal)).collect(),
                m.not_principals.iter().map(|s| text(s, &self.principal)).collect(),
            ),
            (
                m.service_accounts.iter().map(account).collect(),
                m.not_service_accounts.iter().map(account).collect(),
            ),
            (
                m.source_ips.iter().map(|range| inside(range, &self.source)).collect(),
                m.not_source_ips.iter().map(|range| inside(range, &self.source)).collect(),
            ),
            (
                m.destination_ips.iter().map(|range| inside(range, &self.destination)).collect(),
                m.not_destination_ips.iter().map(|range| inside(range, &self.destination)).collect(),
            ),
            (
                m.destination_ports.iter().map(|port| port.to_string() == self.port).collect(),
                m.not_destination_ports.iter().map(|port| port.to_string() == self.port).collect(),
            ),
        ];
        let mut empty = true;
        for (yes, no) in kinds {
            empty = empty && yes.is_empty() && no.is_empty();
            if !yes.is_empty() && !yes.contains(&true) {
                return false;
            }
            if no.contains(&true) {
                return false;
            }
        }
        !empty
    }
}

/// The first bits of an address, with its family in front. What is mapped is IPv4.
fn bits(address: IpAddr, length: usize) -> String {
    match address {
        IpAddr::V4(ip) => {
            let all = format!("{:032b}", u32::from(ip));
            format!("4:{}", &all[..length.min(32)])
        }
        IpAddr::V6(ip) => {
            let all = format!("{:0128b}", u128::from(ip));
            let mapped = format!("{}{}", "0".repeat(80), "1".repeat(16));
            match all.strip_prefix(&mapped) {
                Some(low) if length >= 96 => format!("4:{}", &low[..length - 96]),
                _ => format!("6:{}", &all[..length]),
            }
        }
    }
}
