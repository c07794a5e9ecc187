//! An authorization policy, as the control plane describes it.
//!
//! Rules are OR-ed, a rule's clauses AND-ed, a clause's matches OR-ed. Within a match every kind of field that
//! is filled must hold; the values of a field are OR-ed, and of a `not_` field none may match. How this is
//! evaluated is in [`crate::authorize`].

use std::sync::Arc;

use ipnet::IpNet;

/// A policy over who may connect to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// Its Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Which workloads it applies to.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// It is evaluated and reported, never enforced.
    pub dry_run: bool,
    /// Any of these is a match; none at all never is.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// The key that names the policy: `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All.
    Global,
    /// Those of its namespace.
    Namespace,
    /// Those that list it by name.
    WorkloadSelector,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The connection is allowed, if nothing denies it.
    Allow,
    /// The connection is denied.
    Deny,
}

/// All of its clauses must hold. Without clauses it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The clauses.
    pub clauses: Vec<Clause>,
}

/// Any of its matches must hold. Without matches it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// The matches.
    pub matches: Vec<Match>,
}

/// What must be true of a connection. With every field empty it is false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The source's namespace is one of these.
    pub namespaces: Vec<StringMatch>,
    /// The source's namespace is none of these.
    pub not_namespaces: Vec<StringMatch>,
    /// The source's service account is one of these.
    pub service_accounts: Vec<ServiceAccount>,
    /// The source's service account is none of these.
    pub not_service_accounts: Vec<ServiceAccount>,
    /// The source's identity, without `spiffe://`, is one of these.
    pub principals: Vec<StringMatch>,
    /// The source's identity, without `spiffe://`, is none of these.
    pub not_principals: Vec<StringMatch>,
    /// The source's address is in one of these.
    pub source_ips: Vec<IpNet>,
    /// The source's address is in none of these.
    pub not_source_ips: Vec<IpNet>,
    /// The destination's address is in one of these.
    pub destination_ips: Vec<IpNet>,
    /// The destination's address is in none of these.
    pub not_destination_ips: Vec<IpNet>,
    /// The destination's port is one of these.
    pub destination_ports: Vec<u16>,
    /// The destination's port is none of these.
    pub not_destination_ports: Vec<u16>,
}

/// A service account of any trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// How a string is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// It is this.
    Exact(Arc<str>),
    /// It begins with this.
    Prefix(Arc<str>),
    /// It ends with this.
    Suffix(Arc<str>),
    /// It is there, and not empty.
    Presence,
}

impl StringMatch {
    /// Whether a value matches.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == &**exact,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Presence => !value.is_empty(),
        }
    }
}
