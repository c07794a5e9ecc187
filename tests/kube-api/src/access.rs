//! Who may do what: users, what they ask for, and the roles and bindings (RBAC) that grant it.
//!
//! The token's own user may do everything. Whoever is impersonated (`Impersonate-User`) may do what the bindings grant that were
//! applied: a review of the own access (`SelfSubjectAccessReview`) says so, and everything else that is not granted is refused. The name
//! of a service account carries its groups, unless others are named (`Impersonate-Group`).
//!
//! Invariant: what cannot be read grants nothing. What is not there: rules of what is no resource (`nonResourceURLs`), reviews of which
//! are refused; roles that are put together from others (`aggregationRule`); the roles that a cluster begins with.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::faults::Verb;
use crate::path::Target;
use crate::select::Selector;
use crate::store::Store;

/// Where a review is asked for.
pub(crate) const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

const USER: &str = "Impersonate-User";
const GROUP: &str = "Impersonate-Group";
const AUTHENTICATED: &str = "system:authenticated";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const ANYTHING: &str = "*";

/// Somebody who is impersonated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    name: String,
    groups: Vec<String>,
}

impl User {
    /// For whom a request is made; none: for the token's own user.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
        let groups: Result<Vec<_>, _> = headers.get_all(GROUP).iter().map(text).collect();
        let groups = groups.map_err(|error| Refusal::bad(error.to_string()))?;
        let name = headers.get(USER).map(text).transpose();
        match name.map_err(|error| Refusal::bad(error.to_string()))? {
            Some(name) => Ok(Some(Self::new(name, groups))),
            None if groups.is_empty() => Ok(None),
            None => Err(Refusal::bad(format!("requested {groups:?} without impersonating a user"))),
        }
    }

    fn new(name: String, mut groups: Vec<String>) -> Self {
        if let Some((namespace, _)) = account(&name)
            && groups.is_empty()
        {
            groups = vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
        }
        groups.push(AUTHENTICATED.to_owned());
        Self { name, groups }
    }

    /// Whether a subject of a binding, which may be in a namespace, is this one.
    fn is(&self, subject: &Subject, namespace: &str) -> bool {
        match subject.kind.as_str() {
            "User" => subject.name == self.name,
            "Group" => self.groups.contains(&subject.name),
            "ServiceAccount" => {
                let own = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                account(&self.name) == Some((own, &subject.name))
            }
            _ => false,
        }
    }
}

/// Namespace and name of a service account, of a user's name.
fn account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// What is asked for, in the words of rules and of reviews.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wish {
    /// Empty: all of them, or the resource is not in namespaces.
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    /// Empty: any.
    name: String,
}

impl Wish {
    /// That of a request. Lists and watches of a single name are of that name.
    pub(crate) fn of(verb: Verb, target: &Target, selector: &Selector) -> Self {
        let verb = match verb {
            Verb::PortForward | Verb::Exec | Verb::Log => Verb::Get,
            other => other,
        };
        let name = if target.name.is_empty() { selector.name().unwrap_or_default() } else { &target.name };
        Self {
            namespace: target.namespace.clone(),
            verb: verb.as_str().to_owned(),
            group: target.resource.group().to_owned(),
            resource: target.resource.plural.to_owned(),
            subresource: target.sub.clone(),
            name: name.to_owned(),
        }
    }

    /// The resource, with the part of it that is meant.
    fn whole(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    fn refusal(&self, user: &User) -> Refusal {
        let Self { verb, group, namespace, .. } = self;
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (user, what) = (&user.name, self.whole());
        let message = format!(
            "forbidden: User {user:?} cannot {verb} resource {what:?} in API group {group:?} {place}"
        );
        Refusal::new(403, "Forbidden", message)
    }
}

/// A rule of a role.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    /// Empty: all names.
    resource_names: Vec<String>,
}

impl Rule {
    fn allows(&self, wish: &Wish) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|own| own == ANYTHING || own == word);
        // `*/SUB` is that part of every resource; a resource alone is none of its parts.
        let part = format!("*/{}", wish.subresource);
        let has_part = !wish.subresource.is_empty() && self.resources.contains(&part);
        has(&self.verbs, &wish.verb)
            && has(&self.api_groups, &wish.group)
            && (has(&self.resources, &wish.whole()) || has_part)
            && (self.resource_names.is_empty() || self.resource_names.contains(&wish.name))
    }
}

/// To whom a binding grants a role.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// The list of something in an object; what is not as it should be is empty.
fn list<'a, T: Deserialize<'a>>(object: &'a Value, name: &str) -> Vec<T> {
    object.get(name).and_then(|list| Vec::deserialize(list).ok()).unwrap_or_default()
}

/// Refuses what nothing grants to a user; the token's own is none.
pub(crate) fn check(store: &Store, user: Option<&User>, wish: &Wish) -> Result<(), Refusal> {
    match user {
        Some(user) if granted(store, user, wish).is_none() => Err(wish.refusal(user)),
        _ => Ok(()),
    }
}

/// Answers a review of a user's own access.
pub(crate) fn reviewed(store: &Store, user: Option<&User>, review: &Value) -> Result<Value, Refusal> {
    let wish = review.pointer("/spec/resourceAttributes");
    let wish = wish.ok_or_else(|| Refusal::bad("only access to resources is reviewed here"))?;
    let wish = Wish::deserialize(wish).map_err(|error| Refusal::bad(error.to_string()))?;
    let reason = match user {
        Some(user) => granted(store, user, &wish),
        None => Some("the token's own user may do everything".to_owned()),
    };
    Ok(json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
        "spec": review.get("spec"),
        "status": {"allowed": reason.is_some(), "reason": reason.unwrap_or_default()},
    }))
}

/// What grants a wish to a user, in the words of the API; none: nothing does.
fn granted(store: &Store, user: &User, wish: &Wish) -> Option<String> {
    let bindings =
        [crate::CLUSTER_ROLE_BINDINGS, crate::ROLE_BINDINGS].into_iter().flat_map(|kind| store.all(kind));
    bindings.into_iter().find_map(|((namespace, name), binding)| {
        let is_of_it = namespace.is_empty() || *namespace == wish.namespace;
        let is_theirs =
            || list::<Subject>(binding, "subjects").iter().any(|subject| user.is(subject, namespace));
        let role = role(store, namespace, binding).filter(|_| is_of_it && is_theirs())?;
        let allows = list::<Rule>(role, "rules").iter().any(|rule| rule.allows(wish));
        let text = |object: &Value, pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (binding, role) = (text(binding, "/kind"), text(binding, "/roleRef/name"));
        allows.then(|| format!("RBAC: allowed by {binding} {name:?} of {role:?}"))
    })
}

/// The role of a binding, which is in this namespace if in any.
fn role<'a>(store: &'a Store, namespace: &str, binding: &Value) -> Option<&'a Value> {
    let reference = binding.get("roleRef")?;
    let name = reference.get("name")?.as_str()?.to_owned();
    match reference.get("kind")?.as_str()? {
        "ClusterRole" => store.get(crate::CLUSTER_ROLES, &(String::new(), name)),
        "Role" => store.get(crate::ROLES, &(namespace.to_owned(), name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Resource;

    const ACCOUNT: &str = "system:serviceaccount:istio-system:ztunnel";

    fn user(name: &str) -> User {
        User::new(name.to_owned(), Vec::new())
    }

    /// `VERB GROUP/RESOURCE[/SUB] NAMESPACE NAME`, the last two with `-` for none; the group `core` is the one without a name.
    fn wish(text: &str) -> Wish {
        let words: Vec<&str> = text.split(' ').collect();
        let what: Vec<&str> = words[1].split('/').collect();
        let word = |word: &str| if matches!(word, "-" | "core") { String::new() } else { word.to_owned() };
        Wish {
            namespace: word(words[2]),
            verb: word(words[0]),
            group: word(what[0]),
            resource: word(what[1]),
            subresource: what.get(2).map(|sub| word(sub)).unwrap_or_default(),
            name: word(words[3]),
        }
    }

    fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
        json!({"apiGroups": groups, "resources": resources, "resourceNames": names, "verbs": verbs})
    }

    fn role(kind: &str, namespace: &str, rules: &[Value]) -> (Resource, Value) {
        let metadata = json!({"name": "r", "namespace": namespace});
        (Resource::of_kind(kind).unwrap(), json!({"metadata": metadata, "rules": rules}))
    }

    fn binding(kind: &str, namespace: &str, role: &str, subject: &Value) -> (Resource, Value) {
        let metadata = json!({"name": "b", "namespace": namespace});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "r"});
        let object = json!({"metadata": metadata, "roleRef": role, "subjects": [subject]});
        (Resource::of_kind(kind).unwrap(), object)
    }

    fn store(objects: impl IntoIterator<Item = (Resource, Value)>) -> Store {
        let mut store = Store::default();
        for (resource, object) in objects {
            store.put(resource, object).unwrap();
        }
        store
    }

    fn its_account() -> Value {
        json!({"kind": "ServiceAccount", "name": "ztunnel", "namespace": "istio-system"})
    }

    #[test]
    fn a_rule_allows_what_all_of_its_lists_have() {
        let pods = rule(&[""], &["pods"], &[], &["get", "watch"]);
        let status = rule(&[""], &["pods/status"], &[], &["patch"]);
        let parts = rule(&["apps"], &["*/scale"], &[], &["*"]);
        let named = rule(&["apps"], &["daemonsets"], &["ztunnel"], &["get", "list"]);
        let all_of_batch = rule(&["batch"], &["*"], &[], &["list"]);
        let any_group = rule(&["*"], &["leases"], &[], &["get"]);
        let rules = [pods, status, parts, named, all_of_batch, any_group];
        let role = role("ClusterRole", "", &rules);
        let store = store([role, binding("ClusterRoleBinding", "", "ClusterRole", &its_account())]);
        for (text, allowed) in [
            ("watch core/pods - -", true),
            ("watch core/pods demo a", true),
            ("list core/pods - -", false),
            ("watch apps/pods - -", false),
            ("watch core/secrets - -", false),
            // A resource is none of its parts, nor the other way round.
            ("get core/pods/log demo a", false),
            ("patch core/pods/status demo a", true),
            ("patch core/pods demo a", false),
            ("update apps/deployments/scale demo a", true),
            ("update apps/deployments/status demo a", false),
            ("update apps/deployments demo a", false),
            ("get apps/daemonsets istio-system ztunnel", true),
            ("get apps/daemonsets istio-system other", false),
            ("list apps/daemonsets istio-system -", false),
            ("list batch/jobs demo -", true),
            ("list batch/jobs/status demo -", true),
            ("get anything.example/leases - x", true),
        ] {
            assert_eq!(granted(&store, &user(ACCOUNT), &wish(text)).is_some(), allowed, "{text}");
        }
    }

    #[test]
    fn a_binding_is_of_its_subjects_alone() {
        let of = |subject: &Value, who: &User| {
            let role = role("ClusterRole", "", &[rule(&[""], &["pods"], &[], &["get"])]);
            let store = store([role, binding("ClusterRoleBinding", "", "ClusterRole", subject)]);
            granted(&store, who, &wish("get core/pods demo a")).is_some()
        };
        for (subject, who, is_theirs) in [
            (its_account(), ACCOUNT, true),
            (its_account(), "system:serviceaccount:demo:ztunnel", false),
            (its_account(), "system:serviceaccount:istio-system:other", false),
            (its_account(), "ztunnel", false),
            (json!({"kind": "ServiceAccount", "name": "ztunnel"}), ACCOUNT, false),
            (json!({"kind": "User", "name": ACCOUNT}), ACCOUNT, true),
            (json!({"kind": "User", "name": "jane"}), "jack", false),
            (json!({"kind": "Group", "name": "system:serviceaccounts"}), ACCOUNT, true),
            (json!({"kind": "Group", "name": "system:serviceaccounts:istio-system"}), ACCOUNT, true),
            (json!({"kind": "Group", "name": "system:serviceaccounts:demo"}), ACCOUNT, false),
            (json!({"kind": "Group", "name": "system:serviceaccounts"}), "jane", false),
            (json!({"kind": "Group", "name": "system:authenticated"}), "jane", true),
            (json!({"kind": "Robot", "name": ACCOUNT}), ACCOUNT, false),
            (json!("nonsense"), ACCOUNT, false),
        ] {
            assert_eq!(of(&subject, &user(who)), is_theirs, "{subject} {who}");
        }
        let others = User::new(ACCOUNT.to_owned(), vec!["admins".to_owned()]);
        assert!(of(&json!({"kind": "Group", "name": "admins"}), &others));
        assert!(
            !of(&json!({"kind": "Group", "name": "system:serviceaccounts"}), &others),
            "others are named"
        );
    }

    #[test]
    fn a_binding_in_a_namespace_grants_there_alone() {
        let rules = [rule(&[""], &["pods"], &[], &["get"])];
        for (of, with) in [("Role", "istio-system"), ("ClusterRole", "")] {
            let subject = json!({"kind": "ServiceAccount", "name": "ztunnel"});
            let store = store([role(of, with, &rules), binding("RoleBinding", "istio-system", of, &subject)]);
            for (text, allowed) in [
                ("get core/pods istio-system a", true),
                ("get core/pods demo a", false),
                ("get core/pods - -", false),
            ] {
                assert_eq!(granted(&store, &user(ACCOUNT), &wish(text)).is_some(), allowed, "{of} {text}");
            }
        }
    }

    #[test]
    fn a_binding_of_no_role_and_a_role_of_no_binding_grant_nothing() {
        let rules = [rule(&["*"], &["*"], &[], &["*"])];
        let bound = |kind| binding("ClusterRoleBinding", "", kind, &its_account());
        let odd = (crate::CLUSTER_ROLES, json!({"metadata": {"name": "r"}, "rules": {"verbs": "*"}}));
        for objects in [
            vec![bound("ClusterRole")],
            vec![role("ClusterRole", "", &rules)],
            // Not one of a namespace.
            vec![role("Role", "istio-system", &rules), bound("Role")],
            vec![odd, bound("ClusterRole")],
        ] {
            assert_eq!(granted(&store(objects), &user(ACCOUNT), &wish("get core/pods demo a")), None);
        }
    }

    #[test]
    fn whoever_is_impersonated_is_told_from_the_tokens_own_user() {
        let mut headers = HeaderMap::new();
        assert_eq!(User::of(&headers).unwrap(), None);
        headers.append(GROUP, "admins".parse().unwrap());
        assert_eq!(User::of(&headers).unwrap_err().code, 400);
        headers.append(USER, "jane".parse().unwrap());
        headers.append(GROUP, "others".parse().unwrap());
        let groups = ["admins", "others", AUTHENTICATED].map(str::to_owned).to_vec();
        assert_eq!(User::of(&headers).unwrap(), Some(User { name: "jane".to_owned(), groups }));
    }

    #[test]
    fn a_request_is_asked_for_as_rules_name_it() {
        let asked = |verb, path: &str, fields: &str| {
            let selector = Selector::parse(fields, "").unwrap();
            let Wish { namespace, verb, group, resource, subresource, name } =
                Wish::of(verb, &Target::parse(path).unwrap(), &selector);
            [verb, group, resource, subresource, namespace, name].join(" ")
        };
        let set = "/apis/apps/v1/namespaces/a/daemonsets";
        assert_eq!(asked(Verb::List, "/api/v1/pods", "spec.nodeName=n"), "list  pods   ");
        assert_eq!(asked(Verb::Patch, "/api/v1/namespaces/a/pods/b/status", ""), "patch  pods status a b");
        assert_eq!(asked(Verb::Exec, "/api/v1/namespaces/a/pods/b/exec", ""), "get  pods exec a b");
        assert_eq!(asked(Verb::Watch, set, "metadata.name=z"), "watch apps daemonsets  a z");
        assert_eq!(asked(Verb::Watch, set, "metadata.name!=z"), "watch apps daemonsets  a ");
    }

    #[test]
    fn a_review_says_what_is_granted_and_is_of_resources() {
        let role = role("ClusterRole", "", &[rule(&[""], &["pods"], &[], &["watch"])]);
        let store = store([role, binding("ClusterRoleBinding", "", "ClusterRole", &its_account())]);
        let user = user(ACCOUNT);
        let status = |user: Option<&User>, verb: &str| {
            let wish = json!({"verb": verb, "resource": "pods", "version": "*", "namespace": "default"});
            let review = json!({"spec": {"resourceAttributes": wish}});
            reviewed(&store, user, &review).unwrap()["status"].clone()
        };
        let reason = "RBAC: allowed by ClusterRoleBinding \"b\" of \"r\"";
        assert_eq!(status(Some(&user), "watch"), json!({"allowed": true, "reason": reason}));
        assert_eq!(status(Some(&user), "list"), json!({"allowed": false, "reason": ""}));
        assert_eq!(status(None, "list")["allowed"], true);
        let path = json!({"spec": {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}});
        assert_eq!(reviewed(&store, None, &path).unwrap_err().code, 400);
        assert_eq!(check(&store, Some(&user), &wish("watch core/pods - -")), Ok(()));
        assert_eq!(check(&store, None, &wish("list core/pods - -")), Ok(()));
        let refusal = check(&store, Some(&user), &wish("list core/pods demo -")).unwrap_err();
        assert_eq!((refusal.code, refusal.message.contains("in the namespace \"demo\"")), (403, true));
    }
}
