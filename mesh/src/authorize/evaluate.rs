//! Whether one policy matches one connection.
//!
//! Invariant: a client without an identity matches no positive condition on who it is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Connection;
use crate::identity::Identity;
use crate::policy::{Clause, Match, Policy, Rule, ServiceAccount, StringMatch};

/// Bits that all mapped addresses (`::ffff:0:0/96`, RFC 4291 §2.5.5.2) have in common.
const MAPPED_PREFIX: u8 = 96;

/// A connection, in the form that conditions are compared with.
pub(super) struct Subject<'a> {
    identity: Option<&'a Identity>,
    principal: Option<&'a str>,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl<'a> Subject<'a> {
    /// `principal` is the identity without its scheme.
    pub(super) fn new(connection: &Connection<'a>, principal: Option<&'a str>) -> Self {
        Self {
            identity: connection.source_identity,
            principal,
            source: connection.source_ip.to_canonical(),
            destination: connection.destination.ip().to_canonical(),
            port: connection.destination.port(),
        }
    }

    /// The first rule of a policy that matches.
    pub(super) fn matching_rule(&self, policy: &Policy) -> Option<usize> {
        policy.rules.iter().position(|rule| self.matches_rule(rule))
    }

    fn matches_rule(&self, rule: &Rule) -> bool {
        rule.clauses.iter().all(|clause| self.matches_clause(clause))
    }

    fn matches_clause(&self, clause: &Clause) -> bool {
        clause.matches.is_empty() || clause.matches.iter().any(|condition| self.matches(condition))
    }

    fn matches(&self, m: &Match) -> bool {
        if *m == Match::default() {
            return false;
        }
        let namespace = self.identity.map(|identity| &**identity.namespace());
        let account = |a: &ServiceAccount| {
            self.identity.is_some_and(|i| *i.namespace() == a.namespace && *i.service_account() == a.name)
        };
        let port = |port: &u16| *port == self.port;
        holds(&m.namespaces, &m.not_namespaces, |wanted| text(wanted, namespace))
            && holds(&m.principals, &m.not_principals, |wanted| text(wanted, self.principal))
            && holds(&m.service_accounts, &m.not_service_accounts, account)
            && holds(&m.source_ips, &m.not_source_ips, |net| covers(net, self.source))
            && holds(&m.destination_ips, &m.not_destination_ips, |net| covers(net, self.destination))
            && holds(&m.destination_ports, &m.not_destination_ports, port)
    }
}

/// One kind of field: some value of the positive list matches, if it has any, and none of the negative.
fn holds<T>(positive: &[T], negative: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&matches)) && !negative.iter().any(&matches)
}

/// Whether a range holds a canonical address. A range of mapped addresses (`::ffff:10.0.0.0/104`) means the IPv4 addresses
/// that they stand for.
fn covers(net: &IpNet, address: IpAddr) -> bool {
    match (net, address) {
        (IpNet::V6(net), IpAddr::V4(address)) => {
            net.network().to_ipv4_mapped().is_some()
                && net.prefix_len() >= MAPPED_PREFIX
                && net.contains(&address.to_ipv6_mapped())
        }
        _ => net.contains(&address),
    }
}

fn text(wanted: &StringMatch, value: Option<&str>) -> bool {
    value.is_some_and(|value| wanted.matches(value))
}
