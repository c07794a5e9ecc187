//! Settings that have names of their own, and variables that nobody knows.

use control::xds;

use super::*;

const PLANE: [(&str, &str); 4] =
    [("XDS_ADDRESS", "istiod:15012"), ("POD_NAME", "p"), ("POD_NAMESPACE", "n"), ("INSTANCE_IP", "10.0.0.1")];

#[test]
fn headers_come_by_variable_flag_and_file() {
    let file = Temporary::new(
        "headers.yaml",
        "xdsHeaders:\n  X-Env: by-file\n  x-file: '1'\ncaHeaders: {x-ca: c}\n",
    );
    let mut variables = PLANE.to_vec();
    variables.extend([("XDS_HEADER_X-Env", "by variable"), ("CA_ADDRESS", "istiod:15012")]);
    let config = read(&[&file.flag(), "--xds-header", "x-flag=a=b"], &variables).unwrap();
    let plane = config.control_plane;
    let headers = |pairs: &[(&str, &str)]| {
        let mut headers = control::grpc::Headers::default();
        pairs.iter().for_each(|(name, value)| headers.add(name, value).unwrap());
        headers
    };
    let expected = headers(&[("x-env", "by variable"), ("x-file", "1"), ("x-flag", "a=b")]);
    assert!(plane.xds.unwrap().endpoint.headers == expected);
    assert!(plane.ca.unwrap().headers == headers(&[("x-ca", "c")]));
}

#[test]
fn bad_headers_are_refused_without_being_shown() {
    let variables = [
        ("XDS_HEADER_AUTHORIZATION", "Bearer s3cret"),
        ("CA_HEADER_a b", "s3cret"),
        ("CA_HEADER_X", "s3c\nret"),
    ];
    let told = problems(&["--xds-header=s3cret", "--ca-header=grpc-timeout=s3cret"], &variables);
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(told.iter().all(|one| !one.contains("s3c")), "{told:#?}");
    assert!(told.iter().any(|one| {
        one.starts_with("XDS_HEADER_AUTHORIZATION=(secret): the header `authorization` is set by the agent")
    }));
}

#[test]
fn metadata_is_text_or_typed() {
    let variables = [
        ("ISTIO_META_ENABLE_X", "true"),
        ("ISTIO_METAJSON_LABELS", r#"{"app": "agent", "n": [1, 2.5, null]}"#),
        ("ISTIO_META_DNS_CAPTURE", "false"),
    ];
    let variables: Vec<_> = PLANE.into_iter().chain(variables).collect();
    let config = good(&["--metadata=A=b=c", "--metadata-json=N=5"], &variables);
    let mut expected = node();
    let version = concat!("culvert-", env!("CARGO_PKG_VERSION"));
    for (name, text) in
        [("ISTIO_VERSION", version), ("ENABLE_X", "true"), ("DNS_CAPTURE", "false"), ("A", "b=c")]
    {
        expected.add(name, text).unwrap();
    }
    for (name, json) in [("LABELS", r#"{"app": "agent", "n": [1, 2.5, null]}"#), ("N", "5")] {
        expected.add_json(name, json).unwrap();
    }
    assert_eq!(config.control_plane.xds.unwrap().node, expected);
    assert!(!config.capture.dns);
}

#[test]
fn the_version_may_be_said_otherwise() {
    let variables: Vec<_> = PLANE.into_iter().chain([("ISTIO_META_ISTIO_VERSION", "1.30.0")]).collect();
    let mut expected = node();
    expected.add("ISTIO_VERSION", "1.30.0").unwrap();
    assert_eq!(good(&[], &variables).control_plane.xds.unwrap().node, expected);
}

/// What [`PLANE`] says.
fn node() -> xds::Node {
    xds::Node::new(xds::Parts {
        name: "p".into(),
        namespace: "n".into(),
        instance_ip: [10, 0, 0, 1].into(),
        node_name: String::new(),
        cluster_id: "Kubernetes".into(),
        service_account: None,
        network: None,
    })
    .unwrap()
}

#[test]
fn bad_metadata_is_refused() {
    let told = problems(&["--metadata-json=A={"], &[("ISTIO_METAJSON_B", "text"), ("ISTIO_META_", "x")]);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told.iter().any(|one| one.starts_with("--metadata-json=A={: no JSON: ")), "{told:#?}");
    let twice = problems(&[], &[("ISTIO_META_A", "1"), ("ISTIO_METAJSON_A", "1")]);
    assert!(twice.len() == 1 && twice[0].contains("ISTIO_META_A"), "{twice:#?}");
}

#[test]
fn unknown_variables_of_ours_are_refused_and_those_of_others_are_not() {
    let told = problems(
        &[],
        &[("CULVERT_DRAIN_LIMITS", "5"), ("CULVERT_", ""), ("PATH", "/bin"), ("ZTUNNEL_X", "1")],
    );
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[1].starts_with("CULVERT_DRAIN_LIMITS: no such variable"), "{told:#?}");
}

#[test]
fn what_kubernetes_says_of_a_service_that_is_called_like_us_is_not_ours() {
    let links = [
        ("CULVERT_METRICS_SERVICE_HOST", "10.0.0.7"),
        ("CULVERT_METRICS_SERVICE_PORT", "15020"),
        ("CULVERT_METRICS_SERVICE_PORT_HTTP", "15020"),
        ("CULVERT_METRICS_PORT", "tcp://10.0.0.7:15020"),
        ("CULVERT_METRICS_PORT_15020_TCP_ADDR", "10.0.0.7"),
    ];
    good(&[], &links);
    assert_eq!(problems(&[], &[("CULVERT_METRICS_PORT", "1")]).len(), 1, "no such Service");
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let bad = (OsString::from("NODE_NAME"), OsString::from_vec(vec![0xff]));
    let error = Config::gather(&flags(&["--mesh=m"]), [bad]).unwrap_err();
    assert_eq!(error.problems, ["NODE_NAME: the value is no text in UTF-8"]);
}
