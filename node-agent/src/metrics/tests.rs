use std::collections::BTreeMap;

use tokio::runtime::Handle;

use super::*;
use crate::enrollment::EnrollmentMetrics;

/// What every agent of the field tells before any connection was made, with the labels of its values; recorded of one.
const RECORDED: [(&str, &str, &str); 14] = [
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
    ("tokio_num_workers", "gauge", ""),
    ("tokio_global_queue_depth", "gauge", ""),
    ("tokio_num_alive_tasks", "gauge", ""),
    ("tokio_worker_total_busy_duration_seconds", "counter", "worker"),
    ("tokio_worker_park_count", "counter", "worker"),
    ("tokio_worker_park_unpark_count", "counter", "worker"),
    ("istio_build", "gauge", "component,tag"),
    ("istio_tcp_sockets_open", "gauge", "reporter"),
    ("workload_manager_active_proxy_count", "gauge", ""),
    ("workload_manager_pending_proxy_count", "gauge", ""),
    ("workload_manager_proxies_started", "counter", ""),
    ("workload_manager_proxies_stopped", "counter", ""),
];

/// No certificate is ever asked for here.
struct Nobody;

impl tunnel::CertificateProvider for Nobody {
    fn certificate<'a>(
        &'a self,
        identity: &'a mesh::Identity,
    ) -> std::pin::Pin<
        Box<dyn Future<Output = Result<Arc<tunnel::Certificate>, tunnel::CertificateError>> + Send + 'a>,
    > {
        let error =
            tunnel::CertificateError { identity: identity.clone(), reason: Arc::from("nobody signs") };
        Box::pin(async { Err(error) })
    }

    fn warm(&self, _: &mesh::Identity) {}

    fn release(&self, _: &mesh::Identity) {}
}

/// The names of the labels of a line.
fn labels(line: &str) -> String {
    let Some((_, rest)) = line.split_once('{') else { return String::new() };
    let labels = rest.split_once('}').unwrap().0.split("\",").map(|label| label.split_once('=').unwrap().0);
    labels.collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn names_types_and_labels_are_those_that_dashboards_read() {
    let mut registry = Registry::default();
    register_process(&mut registry, Lost::default());
    EnrollmentMetrics::register(&mut registry);
    let config =
        tunnel::Config { workers: std::num::NonZeroUsize::new(2).unwrap(), ..tunnel::Config::default() };
    let data_path =
        tunnel::Tunnel::new(config, Arc::default(), Arc::new(Nobody), None, &mut registry).unwrap();
    let runtimes: Vec<_> = data_path.runtimes().into_iter().chain([Handle::current()]).collect();
    register_runtimes(&mut registry, &runtimes);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for (name, kind, names) in RECORDED {
        assert_eq!(types.get(name), Some(&kind), "{name}");
        let value = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let is_its = |line: &&str| line.starts_with(&value) && line[value.len()..].starts_with(['{', ' ']);
        let lines: Vec<&str> = text.lines().filter(is_its).collect();
        assert!(!lines.is_empty(), "{name} has a value");
        lines.iter().for_each(|line| assert_eq!(labels(line), names, "{line}"));
    }
    let value = |name: &str| -> f64 {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
    };
    // The names that every process has that Prometheus scrapes, and values that a running one can have.
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(value("process_start_time_seconds") > 1.6e9 && value("process_start_time_seconds") < now + 60.0);
    assert!(value("process_open_fds") > 2.0 && value("process_max_fds") >= value("process_open_fds"));
    assert_eq!(types["process_cpu_seconds"], "counter");
    assert!(text.contains("tokio_num_workers 5\n"), "{text}");
    assert!(text.contains("tokio_worker_park_count_total{worker=\"4\"} "), "{text}");
}
