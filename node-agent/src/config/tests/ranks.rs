//! Which source outranks which, and which defaults depend on what.

use std::time::Duration;

use super::*;

#[test]
fn a_flag_outranks_a_variable_that_outranks_the_file_that_outranks_the_default() {
    let file = Temporary::new("ranks.yaml", "node: by-file\nnetwork: by-file\nclusterId: by-file\n");
    let config =
        good(&[&file.flag(), "--node=by-flag"], &[("NODE_NAME", "by-variable"), ("NETWORK", "by-variable")]);
    let Node { name, network, cluster_id, cluster_domain, .. } = &config.node;
    assert_eq!(
        [name, network, cluster_id.as_str(), cluster_domain],
        ["by-flag", "by-variable", "by-file", "cluster.local"]
    );
    let source =
        |key: &str| config.effective.rows.iter().find(|row| row.key == key).unwrap().source.to_string();
    assert_eq!(source("node"), "flag --node");
    assert_eq!(source("network"), "variable NETWORK");
    assert_eq!(source("clusterId"), format!("{}:3", file.0.display()));
    assert_eq!(source("clusterDomain"), "default");
}

#[test]
fn the_cluster_may_be_named_as_metadata_of_the_node() {
    const META: (&str, &str) = ("ISTIO_META_CLUSTER_ID", "by-metadata");
    const PLAIN: (&str, &str) = ("CLUSTER_ID", "plain");
    let of = |words: &[&str], variables: &[(&str, &str)]| {
        let config = good(words, variables);
        let row = config.effective.rows.iter().find(|row| row.key == "clusterId").unwrap();
        (config.node.cluster_id.to_string(), row.source.to_string())
    };
    let by_metadata = ("by-metadata".to_owned(), "variable ISTIO_META_CLUSTER_ID".to_owned());
    assert_eq!(of(&[], &[META]), by_metadata);
    assert_eq!(of(&[], &[META, PLAIN]), by_metadata, "that of ztunnel's chart counts");
    assert_eq!(of(&[], &[PLAIN]), ("plain".to_owned(), "variable CLUSTER_ID".to_owned()));
    assert_eq!(of(&["--cluster-id=by-flag"], &[META, PLAIN]).0, "by-flag");

    let who = [
        ("XDS_ADDRESS", "istiod:15012"),
        ("POD_NAME", "p"),
        ("POD_NAMESPACE", "n"),
        ("INSTANCE_IP", "10.0.0.1"),
    ];
    let variables: Vec<_> = who.into_iter().chain([META]).collect();
    let xds = good(&[], &variables).control_plane.xds.unwrap();
    assert_eq!(
        xds.endpoint.cluster_id.unwrap().as_str(),
        "by-metadata",
        "the header of each stream, by which a token is judged"
    );
    assert!(
        problems(&[], &[("ISTIO_META_CLUSTER_ID", "a b"), PLAIN])[0].starts_with("ISTIO_META_CLUSTER_ID=")
    );
}

#[test]
fn an_outranked_value_is_not_looked_at() {
    assert!(!good(&["--ipv6=false"], &[("IPV6_ENABLED", "maybe")]).data_path.dns.ipv6);
}

#[test]
fn the_file_is_named_by_flag_or_variable_and_must_be_there() {
    let file = Temporary::new("named.yaml", "node: here\n");
    assert_eq!(good(&[], &[("CULVERT_CONFIG", file.0.to_str().unwrap())]).node.name, "here");
    assert_eq!(good(&[&file.flag()], &[("CULVERT_CONFIG", "/nowhere")]).node.name, "here");
    assert!(problems(&["--config=/nowhere"], &[])[0].starts_with("the configuration file /nowhere: "));
    assert!(problems(&["--config=/"], &[])[0].contains("it is no file"));
}

#[test]
fn in_a_cluster_the_control_plane_is_istiod_unless_there_is_a_mesh_file() {
    const CLUSTER: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    const WHO: [(&str, &str); 3] =
        [("POD_NAME", "agent"), ("POD_NAMESPACE", "istio-system"), ("INSTANCE_IP", "10.0.0.1")];
    let [name, namespace, ip] = WHO;
    const NODE: (&str, &str) = ("NODE_NAME", "n1");
    let config = read(&[], &[CLUSTER, NODE, name, namespace, ip]).unwrap();
    assert_eq!(config.kubernetes.unwrap().node, "n1");
    let istiod = "istiod.istio-system.svc:15012";
    assert_eq!(config.control_plane.xds.unwrap().endpoint.address.to_string(), istiod);
    assert_eq!(config.control_plane.ca.unwrap().address.to_string(), istiod);
    let config = good(&[], &[CLUSTER]);
    assert!(config.control_plane.xds.is_none() && config.control_plane.ca.is_none());
    assert!(config.kubernetes.is_none());
    let unnamed = read(&[], &[CLUSTER, name, namespace, ip]).unwrap_err().to_string();
    assert!(unnamed.contains("set NODE_NAME from the downward API"), "{unnamed}");
    let explicit = [CLUSTER, name, namespace, ip, ("XDS_ADDRESS", "elsewhere:1")];
    let config = good(&[], &explicit);
    assert_eq!(config.control_plane.xds.unwrap().endpoint.address.to_string(), "elsewhere:1");
    let none = read(&[], &[CLUSTER, ("XDS_ADDRESS", "")]).unwrap_err().to_string();
    assert!(none.contains("nothing says what the mesh is"), "{none}");
}

#[test]
fn the_deadline_follows_the_grace_period_unless_it_is_set() {
    const GRACE: (&str, &str) = ("TERMINATION_GRACE_PERIOD_SECONDS", "65");
    let deadline = |variables: &[(&str, &str)]| good(&[], variables).process.termination_deadline;
    assert_eq!(deadline(&[]), Duration::from_secs(5));
    assert_eq!(deadline(&[GRACE]), Duration::from_secs(60));
    assert_eq!(deadline(&[("TERMINATION_GRACE_PERIOD_SECONDS", "3")]), Duration::ZERO);
    assert_eq!(deadline(&[GRACE, ("CONNECTION_TERMINATION_DEADLINE", "7s")]), Duration::from_secs(7));
}

#[test]
fn a_switch_alone_means_yes() {
    assert!(!good(&[], &[]).process.take_over);
    assert!(good(&["--take-over", "--egress-guard"], &[]).process.take_over);
    assert!(!good(&["--take-over", "false"], &[]).process.take_over);
}
