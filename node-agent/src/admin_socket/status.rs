//! An agent in short: whether it is ready, what feeds it, whose certificates it has, and how its pods are.
//!
//! Invariant: looking asks nobody and changes nothing; what is told was known already.

use std::io;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use control::xds::{Standing, TypeStanding};
use mesh::Snapshot;
use serde::{Deserialize, Serialize};

use super::protocol::Answer;
use super::{Subjects, Teller, certificates};
use crate::admin::moment;
use crate::enrollment::PodState;
use crate::feed::Source;

/// An agent in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusView {
    /// Of the agent.
    pub(crate) version: String,
    /// Its process.
    pub(crate) process: u32,
    /// Seconds since that began; none if the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uptime_seconds: Option<u64>,
    /// Whether nothing of its start is still to come.
    #[serde(default)]
    pub(crate) ready: bool,
    /// What is still to come.
    #[serde(default)]
    pub(crate) waits_for: Vec<String>,
    /// Pods whose capture is whole.
    pub(crate) enrolled: u32,
    /// Pods of whose capture something is lost.
    pub(crate) degraded: u32,
    /// Pods that are to be captured and are not yet.
    pub(crate) pending: u32,
    /// What says what the mesh is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) control_plane: Option<ControlPlaneView>,
    /// The same, where it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mesh_file: Option<MeshFileView>,
    /// What is known of the mesh.
    #[serde(default)]
    pub(crate) known: KnownView,
    /// The certificates of this node's identities.
    #[serde(default)]
    pub(crate) certificates: CertificatesView,
}

/// How the agent stands with its control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ControlPlaneView {
    /// Where it is looked for.
    pub(crate) address: String,
    /// Whether there is a stream.
    pub(crate) connected: bool,
    /// Since when, if there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<PastView>,
    /// How the last stream, or the last attempt to have one, ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<PastView>,
    /// What is subscribed to.
    pub(crate) types: Vec<TypeView>,
}

/// One type of resources of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeView {
    /// In words.
    pub(crate) name: String,
    /// Its name on the wire.
    pub(crate) url: String,
    /// Resources that are held.
    pub(crate) held: usize,
    /// When a response was last accepted (ACK).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accepted: Option<PastView>,
    /// When one was last refused (NACK), and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<PastView>,
}

/// Something that has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PastView {
    /// When, RFC 3339.
    pub(crate) at: String,
    /// Seconds since then.
    pub(crate) seconds_ago: u64,
    /// Why, if there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// A mesh file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MeshFileView {
    /// Where it is.
    pub(crate) path: String,
    /// Versions of it that were taken.
    pub(crate) taken: u64,
    /// Versions that were wrong.
    pub(crate) rejected: u64,
}

/// How much is known of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KnownView {
    /// Workloads.
    pub(crate) workloads: usize,
    /// Services.
    pub(crate) services: usize,
    /// Policies.
    pub(crate) policies: usize,
}

/// The certificates of a node, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificatesView {
    /// Identities that one is kept of.
    pub(crate) identities: usize,
    /// Certificates that are valid now.
    pub(crate) valid: usize,
    /// Identities whose first one is on its way.
    pub(crate) pending: usize,
    /// Identities without one, or with one that is not valid now.
    pub(crate) failing: usize,
    /// Certificates whose renewal is due and has not succeeded.
    pub(crate) overdue: usize,
    /// When the first of the valid ones ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_expiry: Option<String>,
    /// Seconds until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<i64>,
    /// Of the first failing one, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl StatusView {
    /// Is nothing the matter? What is only on its way while all pods are enrolled is nothing.
    pub(crate) fn is_well(&self) -> bool {
        let heard = self.control_plane.as_ref().is_none_or(|plane| plane.connected);
        self.ready && self.degraded == 0 && self.pending == 0 && heard && self.certificates.failing == 0
    }
}

/// Tells.
pub(super) fn tell(subjects: &Subjects, send: &mut Teller<'_>) -> io::Result<()> {
    send(Answer::Status(Box::new(view(subjects, SystemTime::now()))))
}

/// At `now`.
fn view(subjects: &Subjects, now: SystemTime) -> StatusView {
    let began = linux::usage::started().ok();
    let pending = subjects.readiness.pending();
    let mut view = StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        uptime_seconds: began.map(|began| ago(began, now)),
        ready: pending.is_empty(),
        waits_for: pending.into_iter().map(str::to_owned).collect(),
        known: known(&subjects.store.load()),
        certificates: of_certificates(subjects),
        ..StatusView::default()
    };
    for (_, state) in subjects.node.pods() {
        match state {
            PodState::Enrolled => view.enrolled += 1,
            PodState::Degraded(_) => view.degraded += 1,
            PodState::Pending(_) => view.pending += 1,
        }
    }
    match &subjects.source {
        Source::ControlPlane(client) => view.control_plane = Some(control_plane(&client.standing(), now)),
        Source::File { path, counters } => {
            view.mesh_file = Some(MeshFileView {
                path: path.display().to_string(),
                taken: counters.applied.load(Ordering::Relaxed),
                rejected: counters.rejected.load(Ordering::Relaxed),
            });
        }
    }
    view
}

fn control_plane(standing: &Standing, now: SystemTime) -> ControlPlaneView {
    let told = |told: &control::xds::Told| past(told.at, now, Some(&told.why));
    let of_type = |of: &TypeStanding| TypeView {
        name: of.kind.to_string(),
        url: of.kind.type_url().to_owned(),
        held: of.held,
        accepted: of.accepted.map(|at| past(at, now, None)),
        refused: of.refused.as_ref().map(told),
    };
    ControlPlaneView {
        address: standing.address.clone(),
        connected: standing.connected.is_some(),
        since: standing.connected.map(|at| past(at, now, None)),
        ended: standing.ended.as_ref().map(told),
        types: standing.types.iter().map(of_type).collect(),
    }
}

fn past(at: SystemTime, now: SystemTime, why: Option<&str>) -> PastView {
    PastView { at: moment(at.into()), seconds_ago: ago(at, now), why: why.map(str::to_owned) }
}

/// Whole seconds; none if the clock was set back meanwhile.
fn ago(at: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(at).unwrap_or_default().as_secs()
}

fn known(snapshot: &Snapshot) -> KnownView {
    KnownView {
        workloads: snapshot.workloads().count(),
        services: snapshot.services().count(),
        policies: snapshot.policies().count(),
    }
}

fn of_certificates(subjects: &Subjects) -> CertificatesView {
    let mut view =
        CertificatesView { overdue: subjects.node.overdue_renewals(), ..CertificatesView::default() };
    for row in certificates::rows(&*subjects.node) {
        view.identities += 1;
        match row.state.as_str() {
            "valid" => {
                view.valid += 1;
                if view.seconds_left.is_none_or(|least| row.seconds_left.is_some_and(|left| left < least)) {
                    (view.seconds_left, view.next_expiry) = (row.seconds_left, row.expires);
                }
            }
            "pending" => view.pending += 1,
            state => {
                view.failing += 1;
                let why = row.why.unwrap_or_else(|| format!("it is {state}"));
                view.why.get_or_insert_with(|| format!("{}: {why}", row.identity));
            }
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use control::xds::{Kind, Told};

    use super::super::protocol::Command;
    use super::super::tests::World;
    use super::*;

    fn status(world: &World) -> StatusView {
        let mut found = world.rows(Command::Status, |answer| match answer {
            Answer::Status(status) => Some(*status),
            _ => None,
        });
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    #[tokio::test]
    async fn everything_is_counted_and_what_is_waited_for_is_named() {
        let world = World::with_certificates().await;
        let waiting = world.readiness().wait_for("policies of the control plane");
        let told = status(&world);
        assert_eq!(
            (told.ready, told.waits_for.as_slice()),
            (false, &["policies of the control plane".to_owned()][..])
        );
        assert_eq!((told.enrolled, told.degraded, told.pending), (1, 1, 1));
        assert_eq!(told.known, KnownView { workloads: 4, services: 2, policies: 1 });
        let certificates = &told.certificates;
        assert_eq!(
            (certificates.identities, certificates.valid, certificates.pending, certificates.failing),
            (3, 1, 1, 1)
        );
        assert!(certificates.seconds_left.is_some_and(|left| left > 0) && certificates.next_expiry.is_some());
        assert!(
            certificates.why.as_ref().unwrap().starts_with("spiffe://cluster.local/ns/bookinfo/sa/gone: ")
        );
        assert_eq!(told.mesh_file.as_ref().unwrap().path, "/etc/mesh.yaml");
        assert!(told.uptime_seconds.is_some() && told.process == std::process::id());
        drop(waiting);
        assert!(status(&world).ready);
    }

    #[test]
    fn a_control_plane_is_told_of_with_what_was_said_last() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let before = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let none = |kind| TypeStanding { kind, held: 0, accepted: None, refused: None };
        let mut standing = Standing {
            address: "istiod.istio-system.svc:15012".into(),
            connected: Some(before(60)),
            ended: Some(Told { at: before(90), why: "the control plane closed the stream".into() }),
            types: vec![
                TypeStanding { held: 7, accepted: Some(before(5)), ..none(Kind::Address) },
                TypeStanding {
                    refused: Some(Told { at: before(2), why: "demo/x: no rules".into() }),
                    ..none(Kind::Authorization)
                },
            ],
        };
        let view = control_plane(&standing, now);
        assert!(view.connected);
        assert_eq!(view.since.as_ref().unwrap().at, "2027-01-15T07:59:00Z");
        assert_eq!((view.types[0].held, view.types[0].accepted.as_ref().unwrap().seconds_ago), (7, 5));
        assert_eq!(view.types[1].refused.as_ref().unwrap().why.as_deref(), Some("demo/x: no rules"));
        assert_eq!(view.types[1].url, "type.googleapis.com/istio.security.Authorization");
        let mut status = StatusView { ready: true, control_plane: Some(view), ..StatusView::default() };
        assert!(status.is_well());
        standing.connected = None;
        status.control_plane = Some(control_plane(&standing, now));
        assert!(!status.is_well());
        // A clock that was set back is no reason to fail.
        assert_eq!(ago(now, before(1)), 0);
    }

    #[test]
    fn each_thing_that_is_wrong_is_enough() {
        let well = StatusView { ready: true, enrolled: 2, ..StatusView::default() };
        assert!(well.is_well());
        let on_its_way = CertificatesView { identities: 1, pending: 1, ..CertificatesView::default() };
        assert!(StatusView { certificates: on_its_way, ..well.clone() }.is_well());
        let failing = CertificatesView { identities: 1, failing: 1, ..CertificatesView::default() };
        for wrong in [
            StatusView { ready: false, ..well.clone() },
            StatusView { degraded: 1, ..well.clone() },
            StatusView { pending: 1, ..well.clone() },
            StatusView { certificates: failing, ..well.clone() },
            StatusView { control_plane: Some(ControlPlaneView::default()), ..well.clone() },
        ] {
            assert!(!wrong.is_well(), "{wrong:?}");
        }
    }
}
