//! Settings that must go together, and several that are wrong at once.

use control::grpc::{RootsOfTrust, Token};

use super::*;

#[test]
fn something_must_say_what_the_mesh_is_and_somebody_must_sign() {
    let told = read(&[], &[]).unwrap_err().problems;
    assert!(
        told.len() == 1 && told[0].contains("XDS_ADDRESS") && told[0].contains("LOCAL_XDS_PATH"),
        "{told:#?}"
    );
    let who = [("POD_NAME", "p"), ("POD_NAMESPACE", "n"), ("INSTANCE_IP", "::1")];
    let told = read(&["--xds-address=istiod:1"], &who).unwrap_err().problems;
    assert!(told.len() == 1 && told[0].contains("nobody signs certificates"), "{told:#?}");
    let config = read(&["--xds-address=istiod:1", "--ca-address=ca:2"], &who).unwrap();
    assert!(config.mesh.is_none() && config.control_plane.xds.is_some() && config.control_plane.ca.is_some());
}

#[test]
fn a_control_plane_must_be_told_who_asks() {
    let told = problems(&["--xds-address=istiod:1"], &[("POD_NAME", "p")]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("POD_NAMESPACE") && told[1].contains("INSTANCE_IP"), "{told:#?}");
}

#[test]
fn windows_that_would_deadlock_are_refused_with_the_reason() {
    for connection in ["4194304", "65535"] {
        let told = problems(&[], &[("HTTP2_CONNECTION_WINDOW_SIZE", connection)]);
        assert!(told.len() == 1 && told[0].contains("stops all others"), "{told:#?}");
        assert!(told[0].starts_with(&format!("HTTP2_CONNECTION_WINDOW_SIZE={connection} and ")), "{told:#?}");
    }
    let config =
        good(&["--http2-stream-window-size=65535", "--http2-connection-window-size=65536"], &[]).data_path;
    assert_eq!((config.http2.stream_window, config.http2.connection_window), (65_535, 65_536));
}

#[test]
fn tls_that_cannot_be_post_quantum_is_not_allowed_where_it_must_be() {
    let told = problems(&[], &[("COMPLIANCE_POLICY", "pqc"), ("TLS12_ENABLED", "1")]);
    assert!(
        told.len() == 1 && told[0].starts_with("COMPLIANCE_POLICY=pqc and TLS12_ENABLED=1: "),
        "{told:#?}"
    );
    assert!(good(&[], &[("TLS12_ENABLED", "1")]).tls.tls12);
}

#[test]
fn a_bad_value_is_told_once_and_not_for_what_would_follow_from_it() {
    let told = read(&[], &[("XDS_ADDRESS", "istiod")]).unwrap_err().problems;
    assert!(told.len() == 1 && told[0].starts_with("XDS_ADDRESS=istiod: "), "{told:#?}");
    let told = problems(
        &["--xds-address=istiod:1", "--pod-name=p", "--pod-namespace=n"],
        &[("INSTANCE_IP", "here")],
    );
    assert!(told.len() == 1 && told[0].starts_with("INSTANCE_IP=here: no IP address"), "{told:#?}");
    let told = problems(&["--http2-stream-window-size=big"], &[("HTTP2_CONNECTION_WINDOW_SIZE", "65535")]);
    assert!(told.len() == 1 && told[0].starts_with("--http2-stream-window-size=big: "), "{told:#?}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let file = Temporary::new("several.yaml", "ipv6: maybe\nnonsense: 1\n");
    let told = problems(
        &[&file.flag(), "--drain-limit=soon"],
        &[("CULVERT_NONSENSE", "1"), ("XDS_ADDRESS", "nowhere"), ("ISTIO_METAJSON_A", "{")],
    );
    assert_eq!(told.len(), 6, "{told:#?}");
    let text = ConfigError { problems: told }.to_string();
    assert!(text.starts_with("the configuration is wrong in 6 places:\n  "), "{text}");
}

#[test]
fn what_was_written_reaches_whom_it_concerns() {
    let config = good(
        &["--tunnel-streams=7", "--tunnels-per-peer=3", "--idle-timeout=90m", "--half-close-timeout=off"],
        &[
            ("XDS_ADDRESS", "https://istiod.example:443"),
            ("XDS_ROOT_CA", "SYSTEM"),
            ("ALT_XDS_HOSTNAME", "istiod.other"),
            ("AUTH_TOKEN", "eyJh.x.y"),
            ("POD_NAME", "p"),
            ("POD_NAMESPACE", "n"),
            ("INSTANCE_IP", "fd00::1"),
            ("SECRET_TTL", "1h"),
            ("CA_ADDRESS", "[fd00::2]:15012"),
            ("CA_ROOT_CA", "/etc/ca.pem"),
            ("POOL_UNUSED_RELEASE_TIMEOUT", "1m"),
            ("KEEPALIVE_ENABLED", "0"),
            ("KEEPALIVE_TIME", "30"),
            ("KEEPALIVE_RETRIES", "3"),
            ("ENABLE_ORIG_SRC", "false"),
            ("IPV6_ENABLED", "false"),
            ("NETWORK", "net1"),
            ("COMPLIANCE_POLICY", "pqc"),
            ("CRL_PATH", "/etc/crl.pem"),
            ("RUST_LOG", "debug"),
            ("LOG_FORMAT", "json"),
        ],
    );
    let plane = &config.control_plane;
    let (xds, ca) = (&plane.xds.as_ref().unwrap().endpoint, plane.ca.as_ref().unwrap());
    assert_eq!((xds.address.to_string().as_str(), &xds.roots), ("istiod.example:443", &RootsOfTrust::System));
    let name = xds.server_name.as_ref().map(ToString::to_string);
    assert_eq!(
        (name.as_deref(), &xds.token),
        (Some("istiod.other"), &Some("eyJh.x.y".parse::<Token>().unwrap()))
    );
    assert_eq!(
        (ca.address.to_string().as_str(), &ca.roots),
        ("[fd00::2]:15012", &RootsOfTrust::File("/etc/ca.pem".into()))
    );
    assert_eq!(plane.certificate_ttl.as_secs(), 3600);
    let path = &config.data_path;
    assert_eq!((path.pool.max_streams, path.pool.connections, path.pool.idle_release.as_secs()), (7, 3, 60));
    assert_eq!((path.timeouts.idle.unwrap().as_secs(), path.timeouts.half_close), (5400, None));
    assert!(!path.keepalive.enabled && !path.original_source && !path.dns.ipv6 && &*path.network == "net1");
    assert_eq!((path.keepalive.time.as_secs(), path.keepalive.retries), (30, 3));
    assert_eq!(config.tls, Tls { post_quantum: true, tls12: false, crl: Some("/etc/crl.pem".into()) });
    assert_eq!(
        (config.process.log.as_str(), config.process.log_format),
        ("debug", crate::logging::LogFormat::Json)
    );
}

#[test]
fn a_configuration_of_our_own_is_one_way_or_the_other() {
    let dir = "--cni-conf-dir=/host/net.d";
    let told = problems(&[dir, "--own-cni-config", "--chained-cni-plugin=false"], &[]);
    assert!(told.len() == 1 && told[0].contains("--own-cni-config=true"), "{told:#?}");
    let told = problems(&[dir, "--own-cni-config", "--cni-conf-name=02-culvert.conflist"], &[]);
    assert!(told.len() == 1 && told[0].contains("a copy of itself"), "{told:#?}");
    assert!(good(&[], &[]).install.plan.is_none(), "nothing is installed unless it is said where");
    let variables = [
        ("CNI_NET_DIR", "/var/lib/net.d"),
        ("DAEMONSET_NAME", "ztunnel"),
        ("POD_NAMESPACE", "istio-system"),
        ("CULVERT_RUN_DIR", "/run/other"),
        ("EXCLUDE_NAMESPACES", "kube-system,infra"),
    ];
    let install = good(&[dir, "--cni-conf-name=10-x.conf"], &variables).install;
    let entry = install.plan.unwrap().entry.to_json();
    let expected = r#"{"type":"culvert-cni","socket":"/run/other/cni.sock","excludeNamespaces":["kube-system","infra"],"#;
    assert!(entry.starts_with(expected), "{entry}");
    assert!(entry.contains(r#""kubeconfig":"/var/lib/net.d/culvert-kubeconfig""#), "{entry}");
    assert!(entry.contains(r#""agentPod":{"namespace":"istio-system","namePrefix":"ztunnel-"}"#), "{entry}");
}

#[test]
fn spans_go_to_the_collector_that_is_named_and_else_nowhere() {
    assert!(
        good(&[], &[("OTEL_SERVICE_NAME", "mesh"), ("OTEL_TRACES_SAMPLER", "always_on")]).spans.is_none()
    );
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hush"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mesh,k8s.node.name=mine"),
        ("NODE_NAME", "n1"),
        ("POD_NAME", "ztunnel-x"),
    ];
    let config = good(&[], &variables);
    let spans = config.spans.clone().unwrap();
    assert_eq!(spans.endpoint.address.to_string(), "http://traces:4317");
    let said = |spans: &Spans, name: &str| {
        let of_it = spans.resource.iter().filter(|(known, _)| known == name);
        of_it.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    for (name, value) in [("service.name", "mesh"), ("k8s.node.name", "mine"), ("k8s.pod.name", "ztunnel-x")]
    {
        assert_eq!(said(&spans, name), [value], "{name}");
    }
    let named = good(&["--otel-service-name=other"], &variables).spans.unwrap();
    assert_eq!(said(&named, "service.name"), ["other"]);
    let shown = format!("{config:?} {}", serde_json::to_string(&config.effective).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn what_is_wrong_with_spans_names_the_setting_and_no_secret() {
    let wrong = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush,te=hush"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    let problems = problems(&[], &wrong);
    for (name, _) in wrong {
        assert!(problems.iter().any(|problem| problem.starts_with(name)), "{name}: {problems:#?}");
    }
    let all = problems.join("\n");
    assert!(all.contains("4317") && all.contains("parentbased_always_on"), "{all}");
    assert!(!all.contains("hush"), "{all}");
}
