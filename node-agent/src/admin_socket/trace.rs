//! Why a connection would go where it goes, as it is shown: the words of [`tunnel::trace`], and of capture before it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh::workload::Protocol;
use mesh::{Connection, HopKind, Place, Route, Snapshot, Verdict, Workload};
use protocols::admin::TraceQuestion;
use serde::{Deserialize, Serialize};
use tunnel::trace::{Arrival, Way};

use super::protocol::Answer;
use super::verdict::{self, VerdictView};
use super::{Subjects, Teller, find};
use crate::enrollment::PodState;

/// Names of policies, services and addresses that are told of one workload.
const MAX_NAMES: usize = 32;

/// Who connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceView {
    /// Its pod, or the address of a stranger.
    pub(crate) from: String,
    /// Where it connects from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    /// What the mesh says of it, a line each.
    pub(crate) about: Vec<String>,
}

/// One way that the connection may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WayView {
    /// `tunnel`, `doubleTunnel`, `direct`, `passthrough`, `plaintext` (the source is not captured), `local` (left alone), `byName` (its name is
    /// resolved first) or `refused`.
    pub(crate) outcome: String,
    /// Whether everything that is known lets it arrive.
    pub(crate) carried: bool,
    /// What the decision went by, a line each.
    pub(crate) steps: Vec<String>,
    /// What is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_hop: Option<SocketAddr>,
    /// The pod that it leads to; a waypoint's, where one is in front of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// The identities of which the peer must show one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peer: Vec<String>,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// What policy says where it arrives; none where that is not for this mesh to say, or is said by a waypoint or a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<VerdictView>,
}

/// Answers a question.
pub(super) fn tell(subjects: &Subjects, asked: &TraceQuestion, send: &mut Teller<'_>) -> io::Result<()> {
    let snapshot = subjects.store.load();
    let stranger = asked.from.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let network = subjects.tunnel.network();
    let found = find::workload(&snapshot, network, &asked.from);
    let (own, address) = match (found, stranger) {
        (Ok(own), address) => {
            let address = address.or_else(|| find::address(&own, asked.to.map(|to| to.ip().to_canonical())));
            (Some(own), address)
        }
        (Err(_), Some(ip)) => (None, Some(ip)),
        (Err(why), None) => return send(Answer::Refused { why }),
    };
    let state = own.as_ref().and_then(|own| state(subjects, own));
    send(Answer::Source(source(&snapshot, own.as_deref(), address, state.as_ref())))?;
    let (Some(to), Some(address)) = (asked.to, address) else { return Ok(()) };
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    for view in ways(subjects, own.as_ref(), state.is_some(), (address, to)) {
        send(Answer::Way(Box::new(view)))?;
    }
    Ok(())
}

/// The state of a pod that is to be captured here.
fn state(subjects: &Subjects, own: &Workload) -> Option<PodState> {
    let is_it = |pod: &crate::enrollment::PodKey| pod.namespace == *own.namespace && pod.name == *own.name;
    subjects.node.pods().into_iter().find(|(pod, _)| is_it(pod)).map(|(_, state)| state)
}

fn source(
    snapshot: &Snapshot,
    own: Option<&Workload>,
    address: Option<IpAddr>,
    state: Option<&PodState>,
) -> SourceView {
    let Some(own) = own else {
        let from = address.map(|ip| ip.to_string()).unwrap_or_default();
        let about = vec!["nobody in the mesh has this address: it connects in plaintext".to_owned()];
        return SourceView { from, address, about };
    };
    let names = |names: Vec<String>| {
        let more = names.len().saturating_sub(MAX_NAMES);
        let shown = names.into_iter().take(MAX_NAMES).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    };
    let mut about = vec![format!("workload {}", own.uid), format!("identity {}", own.identity())];
    about.push(match (state, own.protocol) {
        (Some(state), _) => format!("captured by this agent: {}", state.as_str()),
        (None, Protocol::Hbone) => "captured by the agent of its own node".to_owned(),
        (None, Protocol::Tcp) => "not captured: it connects in plaintext".to_owned(),
    });
    if let Some(waypoint) = &own.waypoint {
        about.push(format!("waypoint {}", waypoint.destination));
    }
    let services: Vec<String> = own.services.keys().map(ToString::to_string).collect();
    if !services.is_empty() {
        about.push(format!("serves {}", names(services)));
    }
    let of_namespace = snapshot.policies_for_namespace(&own.namespace).map(|(key, _)| key.to_string());
    let mut policies: Vec<String> =
        of_namespace.chain(own.authorization_policies.iter().map(ToString::to_string)).collect();
    policies.dedup();
    let none = "no policy applies to connections to it".to_owned();
    about.push(if policies.is_empty() { none } else { format!("policies {}", names(policies)) });
    SourceView { from: find::pod_of(own), address, about }
}

/// Every way from an address to another.
fn ways(
    subjects: &Subjects,
    own: Option<&Arc<Workload>>,
    is_pod_of_node: bool,
    (from, to): (IpAddr, SocketAddr),
) -> Vec<WayView> {
    let captured = own.filter(|own| is_pod_of_node || own.protocol == Protocol::Hbone);
    if let Some(own) = captured {
        if let Some(view) = left_alone(own, to) {
            return vec![view];
        }
        return subjects.tunnel.trace(own, from, to).iter().map(|way| way_view(from, way)).collect();
    }
    let snapshot = subjects.store.load();
    let mut view = plain("plaintext", to, "the source is not captured: it connects by itself");
    let server = snapshot.workload_by_address(Place::new(subjects.tunnel.network(), to.ip()));
    if let Some(server) = server {
        view.to = Some(find::pod_of(server));
        if server.protocol == Protocol::Hbone {
            view.steps.push(format!("{} is captured: what arrives in plaintext is judged there", server.uid));
            let arrival = subjects.tunnel.trace_plaintext(server, from, to);
            arrive(&mut view, from, &arrival);
        }
    }
    vec![view]
}

/// What capture does not take, or does not let go: see docs/capture.md, rows E2, E3 and the link-local addresses.
fn left_alone(own: &Workload, to: SocketAddr) -> Option<WayView> {
    let ip = to.ip();
    if ip.is_loopback() || ip.is_unspecified() {
        return Some(plain("local", to, "loopback is left alone: it stays in the pod"));
    }
    if own.addresses.contains(&ip) {
        return Some(plain("local", to, "the pod's own address is left alone: it stays in the pod"));
    }
    let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    is_link_local.then(|| WayView {
        outcome: "refused".to_owned(),
        carried: false,
        next_hop: None,
        why: Some(
            "capture refuses link-local IPv6 addresses, whose scope would lead past the agent".to_owned(),
        ),
        ..plain("refused", to, "the address is link-local")
    })
}

fn plain(outcome: &str, to: SocketAddr, step: &str) -> WayView {
    WayView {
        outcome: outcome.to_owned(),
        carried: true,
        steps: vec![step.to_owned()],
        next_hop: Some(to),
        to: None,
        peer: Vec::new(),
        why: None,
        verdict: None,
    }
}

fn way_view(from: IpAddr, way: &Way) -> WayView {
    let mut view = WayView {
        outcome: String::new(),
        carried: true,
        steps: way.steps.iter().map(ToString::to_string).collect(),
        next_hop: None,
        to: None,
        peer: Vec::new(),
        why: None,
        verdict: None,
    };
    let (outcome, next_hop, workload) = match &way.route {
        Err(refusal) => {
            view.carried = false;
            view.why = Some(refusal.to_string());
            ("refused", None, None)
        }
        Ok(Route::Passthrough { destination }) => ("passthrough", Some(*destination), None),
        Ok(Route::Direct { destination, workload, .. }) => ("direct", Some(*destination), Some(workload)),
        Ok(Route::Tunnel { next_hop, authority, accepted, workload, kind, .. }) => {
            view.peer.clone_from(accepted);
            let waypoint =
                if *kind == HopKind::Waypoint { "; what follows is the waypoint's to say" } else { "" };
            view.steps.push(format!("the tunnel is asked for {authority}{waypoint}"));
            ("tunnel", Some(*next_hop), Some(workload))
        }
        Ok(Route::DoubleTunnel { next_hop, authority, accepted, workload, .. }) => {
            view.peer.clone_from(accepted);
            view.steps.push(format!(
                "both tunnels are asked for {authority}; what follows is for that network to say"
            ));
            ("doubleTunnel", Some(*next_hop), Some(workload))
        }
        Ok(Route::Resolve(unresolved)) => {
            view.steps.push(format!("{} is resolved first, as the pod would", unresolved.hostname));
            ("byName", None, Some(&unresolved.workload))
        }
    };
    view.outcome = outcome.to_owned();
    view.next_hop = next_hop;
    view.to = workload.map(|workload| find::pod_of(workload));
    if let Some(arrival) = &way.arrival {
        arrive(&mut view, from, arrival);
    }
    view
}

/// Adds what the other end decides.
fn arrive(view: &mut WayView, from: IpAddr, arrival: &Arrival) {
    let destination = match &arrival.destination {
        Ok(destination) => *destination,
        Err(refusal) => {
            view.carried = false;
            view.why = Some(refusal.to_string());
            return;
        }
    };
    let Some(judged) = &arrival.judged else { return };
    let source_identity = arrival.identity.as_ref();
    let connection = Connection { source_identity, source_ip: from, destination };
    let verdict = verdict::view(find::pod_of(&arrival.workload), &connection, Some(from), judged);
    if judged.judgement.verdict != Verdict::Allow {
        view.carried = false;
        view.why = Some(verdict.because.clone());
    }
    view.verdict = Some(verdict);
}
