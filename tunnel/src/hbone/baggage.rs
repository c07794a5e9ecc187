//! The `baggage` header: what a workload tells its peer about itself, for the peer's telemetry.
//!
//! Written once a connection from the workload; read into the labels a peer lacks when it does not know the
//! workload itself. Keys are those of OpenTelemetry's resource conventions. Nothing is decided by it.

use mesh::Workload;
use mesh::workload::WorkloadType;

/// The longest value that is read; names in Kubernetes are no longer.
const LONGEST: usize = 253;

/// What a peer's baggage says; absent keys are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Baggage {
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) workload: String,
    pub(crate) service: String,
    pub(crate) revision: String,
    pub(crate) region: String,
    pub(crate) zone: String,
}

/// The header that describes `workload`. Empty values are left out.
pub(crate) fn of(workload: &Workload) -> String {
    let kind = match workload.workload_type {
        WorkloadType::Deployment => "k8s.deployment.name",
        WorkloadType::CronJob => "k8s.cronjob.name",
        WorkloadType::Pod => "k8s.pod.name",
        WorkloadType::Job => "k8s.job.name",
    };
    let members = [
        ("k8s.cluster.name", &workload.cluster_id),
        ("k8s.namespace.name", &workload.namespace),
        (kind, &workload.workload_name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
        ("cloud.region", &workload.locality.region),
        ("cloud.availability_zone", &workload.locality.zone),
    ];
    let members: Vec<String> = members
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    members.join(",")
}

impl Baggage {
    /// Reads a header; unknown keys, malformed members and values that cannot be names are passed over.
    pub(crate) fn parse(header: &str) -> Self {
        let mut baggage = Self::default();
        for (key, value) in header.split(',').filter_map(|member| member.split_once('=')) {
            let value = value.split(';').next().unwrap_or_default().trim();
            if value.len() > LONGEST || !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
                continue;
            }
            let field = match key.trim() {
                "k8s.cluster.name" => &mut baggage.cluster,
                "k8s.namespace.name" => &mut baggage.namespace,
                "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                    &mut baggage.workload
                }
                "service.name" => &mut baggage.service,
                "service.version" => &mut baggage.revision,
                "cloud.region" => &mut baggage.region,
                "cloud.availability_zone" => &mut baggage.zone,
                _ => continue,
            };
            value.clone_into(field);
        }
        baggage
    }
}

#[cfg(test)]
mod tests {
    use mesh::workload::Locality;

    use super::*;

    const PEER: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=a1,\
                        service.name=a1,service.version=v1,cloud.region=r1,cloud.availability_zone=z1";

    #[test]
    fn is_written_as_the_peer_writes_it() {
        let workload = Workload {
            namespace: "default".into(),
            workload_type: WorkloadType::Deployment,
            workload_name: "a1".into(),
            canonical_name: "a1".into(),
            canonical_revision: "v1".into(),
            cluster_id: "Kubernetes".into(),
            locality: Locality { region: "r1".into(), zone: "z1".into(), ..Locality::default() }.into(),
            ..Workload::default()
        };
        assert_eq!(of(&workload), PEER);
    }

    #[test]
    fn is_read_and_what_is_strange_passed_over() {
        let baggage = Baggage::parse(PEER);
        assert_eq!((baggage.workload.as_str(), baggage.zone.as_str()), ("a1", "z1"));
        let baggage = Baggage::parse(" service.name = x ;ttl=1 ,nonsense,,=,k8s.job.name=once");
        assert_eq!((baggage.service.as_str(), baggage.workload.as_str()), ("x", "once"));
        assert_eq!(Baggage::parse(""), Baggage::default());
        let long = "x".repeat(LONGEST);
        assert_eq!(Baggage::parse(&format!("service.name={long}")).service, long);
        for bad in [format!("{long}x"), "a\u{7f}b".into(), "a\tb".into(), "\u{e9}".into()] {
            assert_eq!(Baggage::parse(&format!("service.name={bad}")), Baggage::default(), "{bad:?}");
        }
    }
}
