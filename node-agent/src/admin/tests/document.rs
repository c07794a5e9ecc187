//! `/config_dump` as a document: it keeps to the schema, and is what was recorded of a real control plane's mesh.

use jsonschema::Validator;

use super::*;

pub(super) fn schema() -> Validator {
    let schema: Value = serde_json::from_str(include_str!("../../../schema/config_dump.json")).unwrap();
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap()
}

pub(super) fn problems(schema: &Validator, document: &Value) -> Vec<String> {
    schema.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// All words of a mesh that the recorded one does not have.
const REST: &str = r#"
workloads:
- {name: a, namespace: ns, networkGateway: {destination: east/192.0.2.1}, network: east, hostname: a.example,
   applicationTunnel: {protocol: PROXY}, waypoint: {destination: /fd00::1}, workloadType: cronjob,
   services: {ns/later.example: {80: 0}}}
services:
- {name: s, namespace: ns, hostname: s.example, ipFamilies: IPv6, visibility: Namespace,
   weightedWaypoints: [{destination: /10.0.0.2, weight: 3}], loadBalancer: {mode: Strict, routingPreferences: [Cluster]}}
policies:
- {name: p, namespace: ns, scope: Global, action: Deny, rules: [[], [[{notServiceAccounts: [{namespace: a, serviceAccount: b}]}]]]}
"#;

#[tokio::test]
async fn every_dump_keeps_to_the_schema() {
    let schema = schema();
    for mesh in [&cluster(), REST, "workloads: []"] {
        let world = World::start(mesh).await;
        assert_eq!(problems(&schema, &world.dump().await), [""; 0]);
    }
}

#[tokio::test]
async fn the_schema_is_strict() {
    let schema = schema();
    let dump = World::start(&cluster()).await.dump().await;
    for (pointer, key, value) in [
        ("", "more", json!([])),
        ("/workloads/0", "more", json!(1)),
        ("/workloads/0", "protocol", json!("hbone")),
        ("/workloads/0", "workloadType", json!("Pod")),
        ("/services/0", "ipFamilies", json!("ipv4")),
        ("/services/0", "endpoints", json!([])),
        ("/policies/0", "scope", json!("NAMESPACE")),
        ("/certificates/2/certChain/0", "serialNumber", json!(7)),
        ("/certificates/2", "key", json!("secret")),
        ("/workloadState/Kubernetes~1~1Pod~1bookinfo~1sleep", "state", json!("up")),
        ("/version", "version", json!(null)),
    ] {
        let mut changed = dump.clone();
        changed.pointer_mut(pointer).unwrap()[key] = value;
        assert_eq!(problems(&schema, &changed).len(), 1, "{pointer} {key}");
    }
    for key in dump.as_object().unwrap().keys() {
        let mut changed = dump.clone();
        changed.as_object_mut().unwrap().remove(key);
        assert_eq!(problems(&schema, &changed).len(), 1, "{key} is missing");
    }
}

/// What the peer says differently in what it was recorded to say, beyond the order of lists: nothing.
#[tokio::test]
async fn a_mesh_that_was_recorded_is_dumped_as_it_was_recorded() {
    let dump = World::start(&cluster()).await.dump().await;
    let recorded: Value = serde_json::from_str(&cluster()).unwrap();
    let sorted = |list: &Value| {
        let mut list = list.as_array().unwrap().clone();
        for services in list.iter_mut().filter_map(|one| one.get_mut("services")) {
            services.as_array_mut().unwrap().sort_by_key(Value::to_string);
        }
        list.sort_by_key(|one| {
            format!("{} {} {}", one["uid"], one["namespace"], one["hostname"]) + &one["name"].to_string()
        });
        list
    };
    for kind in ["workloads", "services", "policies"] {
        let (ours, theirs) = (sorted(&dump[kind]), sorted(&recorded[kind]));
        assert_eq!(ours.len(), theirs.len(), "{kind}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{kind}");
        }
    }
    let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&dump), keys(&recorded));
    assert_eq!(keys(&dump["version"]), keys(&recorded["version"]));
    for (ours, theirs) in [
        (&dump["certificates"][2], &recorded["certificates"][0]),
        (&dump["certificates"][2]["certChain"][0], &recorded["certificates"][0]["certChain"][0]),
        (
            &dump["workloadState"]["Kubernetes//Pod/bookinfo/sleep"],
            recorded["workloadState"].as_object().unwrap().values().next().unwrap(),
        ),
    ] {
        assert_eq!(keys(ours), keys(theirs));
    }
}

#[tokio::test]
async fn connections_are_shown_as_recorded_ones() {
    let dump = World::start(&cluster()).await.dump().await;
    let expected = json!({
        "state": "Up",
        "info": {"name": "sleep", "namespace": "bookinfo", "serviceAccount": "sleep"},
        "connections": {
            "outbound": [{"src": "10.1.0.30:47498", "originalDst": "10.96.213.85:9080", "actualDst": "10.1.1.22:15008", "protocol": "HBONE"}],
            "inbound": [{"src": "[fd00:1::9]:16328", "originalDst": null, "actualDst": "[fd00:1::30]:8080", "protocol": "TCP"}],
        },
    });
    assert_eq!(dump["workloadState"]["Kubernetes//Pod/bookinfo/sleep"], expected);
    let pending = &dump["workloadState"]["bookinfo/unknown"];
    assert_eq!(
        (pending["state"].as_str(), pending["connections"]["inbound"].as_array().map(Vec::len)),
        (Some("Pending"), Some(0))
    );
}

/// What is dumped can be loaded: a whole dump is a mesh file.
#[tokio::test]
async fn a_dump_is_a_mesh_file() {
    let world = World::start(&cluster()).await;
    let first = world.dump().await;
    let again = World::start(&first.to_string()).await.dump().await;
    for kind in ["workloads", "services", "policies"] {
        assert_eq!(first[kind], again[kind], "{kind}");
    }
}

/// A dump of a large mesh comes in pieces, whole and in order, while it is changed.
#[tokio::test]
async fn a_large_mesh_is_dumped_whole() {
    use std::fmt::Write as _;
    let mut mesh = String::from("workloads:\n");
    for index in 0..5000 {
        writeln!(
            mesh,
            "- {{name: w{index:05}, namespace: ns, workloadIps: [10.0.{}.{}]}}",
            index / 256,
            index % 256
        )
        .unwrap();
    }
    let dump = World::start(&mesh).await.dump().await;
    let names: Vec<_> = dump["workloads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, (0..5000).map(|index| format!("w{index:05}")).collect::<Vec<_>>());
    assert_eq!(dump["staticConfig"]["workloads"].as_array().unwrap().len(), 5000);
}
