//! Authorization policies.
//!
//! A match may carry conditions of extensions, which cannot be judged here. Left out of account they would make an ALLOW
//! policy allow more, and without the match a DENY policy would deny less. So such a match of an ALLOW policy matches
//! nothing, and of a DENY policy whatever its other conditions match.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh::Policy;
use mesh::policy::{Action, Clause, Match, Rule, Scope, ServiceAccount, StringMatch};

use super::Fault;
use super::place::{port, range};
use super::text::{name, text};
use crate::proto::security::string_match::MatchType;
use crate::proto::security::{self as wire, Action as ActionWord, Scope as ScopeWord};

pub(super) fn policy(wire: wire::Authorization) -> Result<Policy, Fault> {
    let action = match ActionWord::try_from(wire.action) {
        Ok(ActionWord::Allow) => Action::Allow,
        Ok(ActionWord::Deny) => Action::Deny,
        Err(_) => return Err(Fault::unknown("action", wire.action)),
    };
    Ok(Policy {
        name: name("name", &wire.name)?,
        namespace: name("namespace", &wire.namespace)?,
        scope: match ScopeWord::try_from(wire.scope) {
            Ok(ScopeWord::Global) => Scope::Global,
            Ok(ScopeWord::Namespace) => Scope::Namespace,
            Ok(ScopeWord::WorkloadSelector) => Scope::WorkloadSelector,
            Err(_) => return Err(Fault::unknown("scope", wire.scope)),
        },
        action,
        dry_run: wire.dry_run,
        rules: wire.rules.iter().map(|wire| rule(wire, action)).collect::<Result<_, _>>()?,
    })
}

fn rule(wire: &wire::Rule, action: Action) -> Result<Rule, Fault> {
    let clause = |wire: &wire::Clause| {
        let matches = wire.matches.iter().map(|wire| condition(wire, action));
        Ok(Clause { matches: matches.collect::<Result<_, _>>()? })
    };
    Ok(Rule { clauses: wire.clauses.iter().map(clause).collect::<Result<_, _>>()? })
}

fn condition(wire: &wire::Match, action: Action) -> Result<Match, Fault> {
    let known = Match {
        namespaces: strings("namespaces", &wire.namespaces)?,
        not_namespaces: strings("not_namespaces", &wire.not_namespaces)?,
        service_accounts: accounts("service_accounts", &wire.service_accounts)?,
        not_service_accounts: accounts("not_service_accounts", &wire.not_service_accounts)?,
        principals: strings("principals", &wire.principals)?,
        not_principals: strings("not_principals", &wire.not_principals)?,
        source_ips: ranges("source_ips", &wire.source_ips)?,
        not_source_ips: ranges("not_source_ips", &wire.not_source_ips)?,
        destination_ips: ranges("destination_ips", &wire.destination_ips)?,
        not_destination_ips: ranges("not_destination_ips", &wire.not_destination_ips)?,
        destination_ports: ports("destination_ports", &wire.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &wire.not_destination_ports)?,
    };
    Ok(match action {
        _ if wire.extensions.is_empty() => known,
        Action::Allow => nothing(),
        // With no condition left it would match nothing.
        Action::Deny if known == nothing() => everything(),
        Action::Deny => known,
    })
}

fn nothing() -> Match {
    Match::default()
}

fn everything() -> Match {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);
    Match { source_ips: vec![v4.into(), v6.into()], ..Match::default() }
}

fn strings(field: &'static str, wire: &[wire::StringMatch]) -> Result<Vec<StringMatch>, Fault> {
    let string = |wire: &wire::StringMatch| match &wire.match_type {
        Some(MatchType::Exact(exact)) => Ok(StringMatch::Exact(text(exact))),
        Some(MatchType::Prefix(prefix)) => Ok(StringMatch::Prefix(text(prefix))),
        Some(MatchType::Suffix(suffix)) => Ok(StringMatch::Suffix(text(suffix))),
        Some(MatchType::Presence(_)) => Ok(StringMatch::Presence),
        None => Err(Fault::new(field, "one says nothing of how it is compared")),
    };
    wire.iter().map(string).collect()
}

fn accounts(field: &'static str, wire: &[wire::ServiceAccountMatch]) -> Result<Vec<ServiceAccount>, Fault> {
    let account = |wire: &wire::ServiceAccountMatch| {
        Ok(ServiceAccount {
            namespace: name(field, &wire.namespace)?,
            name: name(field, &wire.service_account)?,
        })
    };
    wire.iter().map(account).collect()
}

fn ranges(field: &'static str, wire: &[wire::Address]) -> Result<Vec<IpNet>, Fault> {
    wire.iter().map(|wire| range(field, &wire.address, wire.length)).collect()
}

fn ports(field: &'static str, wire: &[u32]) -> Result<Vec<u16>, Fault> {
    wire.iter().map(|value| port(field, *value)).collect()
}
