//! SPIFFE identities of workloads.
//!
//! Invariant: an [`Identity`] always prints as `spiffe://<trust domain>/ns/<namespace>/sa/<account>` and parses
//! back to itself; no part is empty or holds a slash.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// Who a workload is: trust domain, namespace and service account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// A string that is not a workload's SPIFFE identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an identity: write it as spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")]
pub struct IdentityError(String);

impl Identity {
    /// An identity of these parts, which the caller vouches for (they come from typed resources).
    pub fn new(
        trust_domain: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The trust domain, such as `cluster.local`.
    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &Arc<str> {
        &self.service_account
    }

    /// The identity without its scheme, the form in which policies name principals.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Option<Vec<&str>> = text.strip_prefix(SCHEME).map(|rest| rest.split('/').collect());
        match parts.as_deref() {
            Some([trust_domain, "ns", namespace, "sa", account])
                if [trust_domain, namespace, account].iter().all(|part| !part.is_empty()) =>
            {
                Ok(Self::new(*trust_domain, *namespace, *account))
            }
            _ => Err(IdentityError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_back() {
        let identity = Identity::new("cluster.local", "default", "sleep");
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/default/sa/sleep");
        assert_eq!(identity.principal(), "cluster.local/ns/default/sa/sleep");
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }

    #[test]
    fn refuses_what_is_not_an_identity() {
        for text in [
            "",
            "spiffe://",
            "cluster.local/ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
            "SPIFFE://td/ns/a/sa/b",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(IdentityError(text.to_owned())), "{text}");
        }
    }
}
