//! What a general client, such as kubectl, asks first: which groups, versions and resources there are.

use serde_json::{Value, json};

use crate::path::{KNOWN, RIGHTS, Resource};

/// What is said of each resource whose objects are kept.
const VERBS: [&str; 5] = ["get", "list", "watch", "patch", "delete"];
/// The version that it passes for.
const VERSION: &str = "v1.34.0";

/// The document at a path, if it is one of these.
pub(crate) fn document(path: &str) -> Option<Value> {
    Some(match path {
        "/version" => json!({"major": "1", "minor": "34", "gitVersion": VERSION}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => {
            let groups = ["apps/v1", "authorization.k8s.io/v1", RIGHTS].map(group);
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        "/api/v1" => resources("v1"),
        "/apis/apps/v1" => resources("apps/v1"),
        "/apis/authorization.k8s.io/v1" => reviews("authorization.k8s.io/v1"),
        "/apis/rbac.authorization.k8s.io/v1" => resources(RIGHTS),
        _ => return None,
    })
}

fn group(version: &str) -> Value {
    let (name, number) = version.split_once('/').unwrap_or(("", version));
    let version = json!({"groupVersion": version, "version": number});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(version: &str) -> Value {
    let of_it = KNOWN.iter().filter(|known| known.api_version == version);
    all_of(version, &of_it.map(described).collect::<Vec<_>>())
}

/// What is asked and not kept.
fn reviews(version: &str) -> Value {
    let review = json!({
        "name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview",
        "kind": "SelfSubjectAccessReview", "namespaced": false, "verbs": ["create"],
    });
    all_of(version, &[review])
}

fn all_of(version: &str, resources: &[Value]) -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
}

fn described(resource: &Resource) -> Value {
    json!({
        "name": resource.plural, "singularName": resource.kind.to_lowercase(), "kind": resource.kind,
        "namespaced": resource.is_namespaced(), "verbs": VERBS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::REVIEWS;
    use crate::path::Target;

    #[test]
    fn every_resource_is_described_in_its_version_and_nowhere_else() {
        for known in KNOWN {
            let is_in = |path: &str| {
                let document = document(path).unwrap();
                let all = document["resources"].as_array().unwrap();
                all.iter().any(|one| one["name"] == known.plural && one["kind"] == known.kind)
            };
            assert_eq!(is_in("/api/v1"), known.api_version == "v1", "{known:?}");
            for version in ["apps/v1", RIGHTS, "authorization.k8s.io/v1"] {
                assert_eq!(is_in(&format!("/apis/{version}")), known.api_version == version, "{known:?}");
            }
        }
        assert_eq!(document("/apis/policy/v1"), None);
    }

    #[test]
    fn every_group_that_is_named_has_its_document_and_every_path_of_it() {
        let groups = document("/apis").unwrap();
        let groups = groups["groups"].as_array().unwrap();
        assert_eq!(groups.len(), 3);
        for group in groups {
            let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
            let described = document(&format!("/apis/{version}")).unwrap();
            assert_eq!(described["groupVersion"], version);
            for resource in described["resources"].as_array().unwrap() {
                let path = format!("/apis/{version}/{}", resource["name"].as_str().unwrap());
                assert!(path == REVIEWS || Target::parse(&path).is_some(), "{path}");
            }
        }
    }
}
