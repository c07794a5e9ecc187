//! What a general client, such as kubectl, asks first: which groups, versions and resources there are.

use serde_json::{Value, json};

use crate::path::{KNOWN, Resource};

/// What is said of each resource.
const VERBS: [&str; 5] = ["get", "list", "watch", "patch", "delete"];
/// The version that it passes for.
const VERSION: &str = "v1.34.0";

/// The document at a path, if it is one of these.
pub(crate) fn document(path: &str) -> Option<Value> {
    Some(match path {
        "/version" => json!({"major": "1", "minor": "34", "gitVersion": VERSION}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => {
            let version = json!({"groupVersion": "apps/v1", "version": "v1"});
            let apps = json!({"name": "apps", "versions": [version], "preferredVersion": version});
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [apps]})
        }
        "/api/v1" => resources("v1"),
        "/apis/apps/v1" => resources("apps/v1"),
        _ => return None,
    })
}

fn resources(version: &str) -> Value {
    let of_it = KNOWN.iter().filter(|known| known.api_version == version);
    let resources: Vec<Value> = of_it.map(described).collect();
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

    #[test]
    fn every_resource_is_described_in_its_version_and_nowhere_else() {
        for known in KNOWN {
            let is_in = |path: &str| {
                let document = document(path).unwrap();
                let all = document["resources"].as_array().unwrap();
                all.iter().any(|one| one["name"] == known.plural && one["kind"] == known.kind)
            };
            assert_eq!(is_in("/api/v1"), known.api_version == "v1", "{known:?}");
            assert_eq!(is_in("/apis/apps/v1"), known.api_version == "apps/v1", "{known:?}");
        }
        assert_eq!(document("/apis/policy/v1"), None);
    }
}
