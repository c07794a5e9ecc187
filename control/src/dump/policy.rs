//! A policy as it is shown: rules of clauses of matches, of which what is empty is left out.

use ipnet::IpNet;
use mesh::policy::{Clause, Match, Policy, Rule, ServiceAccount, StringMatch};
use serde::Serialize;

use super::words::{self, Text};

/// A policy in the words of `/config_dump`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: &'static str,
    action: &'static str,
    dry_run: bool,
    rules: Vec<Vec<Vec<MatchView<'a>>>>,
}

impl<'a> From<&'a Policy> for PolicyView<'a> {
    fn from(policy: &'a Policy) -> Self {
        let clause = |clause: &'a Clause| clause.matches.iter().map(MatchView::from).collect();
        let rule = |rule: &'a Rule| rule.clauses.iter().map(clause).collect();
        Self {
            name: &policy.name,
            namespace: &policy.namespace,
            scope: words::policy_scope(policy.scope),
            action: words::action(policy.action),
            dry_run: policy.dry_run,
            rules: policy.rules.iter().map(rule).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchView<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<StringView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_namespaces: Vec<StringView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<AccountView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_service_accounts: Vec<AccountView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    principals: Vec<StringView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_principals: Vec<StringView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<Text<IpNet>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_source_ips: Vec<Text<IpNet>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ips: Vec<Text<IpNet>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_destination_ips: Vec<Text<IpNet>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination_ports: &'a [u16],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_destination_ports: &'a [u16],
}

#[derive(Serialize)]
enum StringView<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    /// There is no value; tools expect an empty list.
    Presence([(); 0]),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountView<'a> {
    namespace: &'a str,
    service_account: &'a str,
}

impl<'a> From<&'a Match> for MatchView<'a> {
    fn from(of: &'a Match) -> Self {
        let strings = |values: &'a [StringMatch]| values.iter().map(StringView::from).collect();
        let accounts = |values: &'a [ServiceAccount]| values.iter().map(AccountView::from).collect();
        let ranges = |values: &[IpNet]| values.iter().copied().map(Text).collect();
        Self {
            namespaces: strings(&of.namespaces),
            not_namespaces: strings(&of.not_namespaces),
            service_accounts: accounts(&of.service_accounts),
            not_service_accounts: accounts(&of.not_service_accounts),
            principals: strings(&of.principals),
            not_principals: strings(&of.not_principals),
            source_ips: ranges(&of.source_ips),
            not_source_ips: ranges(&of.not_source_ips),
            destination_ips: ranges(&of.destination_ips),
            not_destination_ips: ranges(&of.not_destination_ips),
            destination_ports: &of.destination_ports,
            not_destination_ports: &of.not_destination_ports,
        }
    }
}

impl<'a> From<&'a StringMatch> for StringView<'a> {
    fn from(of: &'a StringMatch) -> Self {
        match of {
            StringMatch::Exact(text) => Self::Exact(text),
            StringMatch::Prefix(text) => Self::Prefix(text),
            StringMatch::Suffix(text) => Self::Suffix(text),
            StringMatch::Presence => Self::Presence([]),
        }
    }
}

impl<'a> From<&'a ServiceAccount> for AccountView<'a> {
    fn from(of: &'a ServiceAccount) -> Self {
        Self { namespace: &of.namespace, service_account: &of.name }
    }
}
