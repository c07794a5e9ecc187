//! What a path of the API names: `/api/v1/namespaces/NS/pods/NAME/status` and its like.

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// Group and version, such as `v1` or `apps/v1`.
    pub(crate) api_version: &'static str,
    /// As paths have it.
    pub(crate) plural: &'static str,
    /// As objects have it.
    pub(crate) kind: &'static str,
}

/// All that are served.
pub(crate) const KNOWN: [Resource; 8] = [
    crate::PODS,
    crate::NAMESPACES,
    crate::NODES,
    crate::DAEMON_SETS,
    crate::CLUSTER_ROLES,
    crate::CLUSTER_ROLE_BINDINGS,
    crate::ROLES,
    crate::ROLE_BINDINGS,
];
/// Group and version of rights.
pub(crate) const RIGHTS: &str = "rbac.authorization.k8s.io/v1";

impl Resource {
    pub(crate) const fn core(plural: &'static str, kind: &'static str) -> Self {
        Self::of("v1", plural, kind)
    }

    pub(crate) const fn rights(plural: &'static str, kind: &'static str) -> Self {
        Self::of(RIGHTS, plural, kind)
    }

    pub(crate) const fn of(api_version: &'static str, plural: &'static str, kind: &'static str) -> Self {
        Self { api_version, plural, kind }
    }

    /// Whether its objects are in namespaces.
    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self.plural, "namespaces" | "nodes" | "clusterroles" | "clusterrolebindings")
    }

    /// The group, as rules have it: that of the core has no name.
    pub(crate) fn group(self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Whether its objects say what is to be and what is.
    pub(crate) fn has_spec(self) -> bool {
        self.api_version != RIGHTS
    }

    /// That of an object.
    pub(crate) fn of_kind(kind: &str) -> Option<Self> {
        KNOWN.into_iter().find(|known| known.kind == kind)
    }

    /// By the word that paths have.
    pub fn named(plural: &str) -> Option<Self> {
        KNOWN.into_iter().find(|known| known.plural == plural)
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) resource: Resource,
    /// Empty: all of them, or the resource is not in namespaces.
    pub(crate) namespace: String,
    /// Empty: a collection.
    pub(crate) name: String,
    /// `status`, `log` and their like, or empty.
    pub(crate) sub: String,
}

impl Target {
    /// Reads a path; what is not served is none.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (api_version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let found = |namespace: &str, plural: &str, name: &str, sub: &str| {
            let known = KNOWN.into_iter().find(|known| known.plural == plural)?;
            (known.api_version == api_version
                && known.is_namespaced() != (namespace.is_empty() && !name.is_empty()))
            .then(|| Self {
                resource: known,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                sub: sub.to_owned(),
            })
        };
        match rest {
            ["namespaces", namespace, plural] => found(namespace, plural, "", ""),
            ["namespaces", namespace, plural, name] => found(namespace, plural, name, ""),
            ["namespaces", namespace, plural, name, sub] => found(namespace, plural, name, sub),
            [plural, name] => found("", plural, name, ""),
            [plural] => Some(Self {
                resource: KNOWN.into_iter().find(|k| k.plural == *plural && k.api_version == api_version)?,
                namespace: String::new(),
                name: String::new(),
                sub: String::new(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_collections_objects_and_their_parts() {
        let parse = |path: &str| {
            let t = Target::parse(path)?;
            Some(format!("{} {} {} {}", t.resource.plural, t.namespace, t.name, t.sub))
        };
        assert_eq!(parse("/api/v1/pods").as_deref(), Some("pods   "));
        assert_eq!(parse("/api/v1/namespaces").as_deref(), Some("namespaces   "));
        assert_eq!(parse("/api/v1/namespaces/demo").as_deref(), Some("namespaces  demo "));
        assert_eq!(parse("/api/v1/namespaces/demo/pods").as_deref(), Some("pods demo  "));
        assert_eq!(parse("/api/v1/namespaces/demo/pods/a/status").as_deref(), Some("pods demo a status"));
        assert_eq!(parse("/apis/apps/v1/namespaces/s/daemonsets/z").as_deref(), Some("daemonsets s z "));
        assert_eq!(parse("/api/v1/nodes/n1").as_deref(), Some("nodes  n1 "));
        let rights = "/apis/rbac.authorization.k8s.io/v1";
        assert_eq!(parse(&format!("{rights}/clusterroles/c")).as_deref(), Some("clusterroles  c "));
        assert_eq!(parse(&format!("{rights}/namespaces/s/roles/r")).as_deref(), Some("roles s r "));
        for odd in ["/", "/version", "/api/v1/secrets", "/apis/apps/v1/pods", "/api/v1/pods/a"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
