//! Why a connection would go where it goes: what the data path would decide, asked without a connection.
//!
//! Invariant: every answer comes from the functions that decide on real connections ([`mesh::route`], [`mesh::inbound`], the pod's
//! [`PolicyList`](crate::policy_list)), with the same snapshot and the same settings. Nothing is dialled, resolved, counted or waited for. Where
//! there is something to choose, all ways are told, up to [`MAX_WAYS`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh::authorize::{Considered, explain_listed};
use mesh::inbound::InboundRefusal;
use mesh::route::{Step, explain};
use mesh::{Authority, Connection, Flow, Identity, Judgement, Refusal, Route, Snapshot, Workload};

use crate::scope::own_workload;
use crate::{Shared, Tunnel};

/// Ways that are told of one connection.
const MAX_WAYS: usize = 32;
/// Plans that are made to find them; each draws anew where a waypoint is drawn.
const PLANS: u64 = 32;

/// One way that a connection may go.
#[derive(Clone, Debug)]
pub struct Way {
    /// What the decision went by.
    pub steps: Vec<Step>,
    /// Where it leads.
    pub route: Result<Route, Refusal>,
    /// What the other end decides, as far as this agent knows the mesh; none where that is nobody's of the mesh, a waypoint's, or a gateway's.
    pub arrival: Option<Arrival>,
}

/// What becomes of a connection where it arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its address and port that are connected to.
    pub destination: Result<SocketAddr, InboundRefusal>,
    /// The client's identity as far as it is proven.
    pub identity: Option<Identity>,
    /// What policy says; none where it is not asked.
    pub judged: Option<Judged>,
}

/// What policy says of a connection.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its outcome.
    pub judgement: Judgement,
    /// What each policy said.
    pub considered: Vec<Considered>,
}

impl Tunnel {
    /// Where a connection of a workload in the mesh would go, from `source` to `destination`. Several ways where there is something to choose.
    pub fn trace(&self, own: &Arc<Workload>, source: IpAddr, destination: SocketAddr) -> Vec<Way> {
        self.shared.trace(&self.shared.store.load(), own, source, destination)
    }

    /// What policy says of a connection to a workload. One that is served here is judged by the list that counts for it now.
    pub fn judge(&self, workload: &Arc<Workload>, connection: &Connection<'_>) -> Judged {
        self.shared.explain(&self.shared.store.load(), workload, connection)
    }

    /// What would become of a connection in plaintext that arrives at a workload.
    pub fn trace_plaintext(
        &self,
        workload: &Arc<Workload>,
        source: IpAddr,
        destination: SocketAddr,
    ) -> Arrival {
        let snapshot = self.shared.store.load();
        self.shared.arrive_in_plaintext(&snapshot, workload, source, destination)
    }

    /// The network that this node is on, empty for the default one.
    pub fn network(&self) -> &str {
        &self.shared.config.network
    }
}

impl Shared {
    fn trace(
        &self,
        snapshot: &Snapshot,
        own: &Arc<Workload>,
        source: IpAddr,
        destination: SocketAddr,
    ) -> Vec<Way> {
        let mut ways: Vec<Way> = Vec::new();
        let mut candidates: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut take = |pick: u64, exclude: &[Arc<str>], candidates: &mut BTreeSet<Arc<str>>| {
            let flow = Flow {
                source: own,
                source_address: source,
                destination,
                network: &self.config.network,
                pick,
                exclude,
            };
            let (route, steps) = explain(snapshot, &flow);
            if exclude.is_empty() {
                for step in &steps {
                    if let Step::Endpoints { among, .. } = step {
                        candidates.extend(among.iter().cloned());
                    }
                }
            }
            if ways.len() < MAX_WAYS && !ways.iter().any(|way| way.route == route) {
                let arrival = self.arrival(snapshot, own, source, route.as_ref().ok());
                ways.push(Way { steps, route, arrival });
            }
        };
        // Picks spread over all that there are: the draw mixes them anyway.
        for pick in 0..PLANS {
            take(pick, &[], &mut candidates);
        }
        // Those that chance has not led to: each of them, with all others out of the way.
        for wanted in candidates.clone().into_iter().take(MAX_WAYS) {
            let others: Vec<_> = candidates.iter().filter(|other| **other != wanted).cloned().collect();
            take(0, &others, &mut candidates);
        }
        ways
    }

    /// What the workload at the end of a route decides.
    fn arrival(
        &self,
        snapshot: &Snapshot,
        own: &Arc<Workload>,
        source: IpAddr,
        route: Option<&Route>,
    ) -> Option<Arrival> {
        match route? {
            Route::Tunnel { next_hop, authority, workload, kind: mesh::HopKind::Workload, .. } => {
                Some(self.arrive_by_tunnel(snapshot, own, source, (workload, *next_hop, authority)))
            }
            Route::Direct { destination, workload, .. } if self.serves(workload) => {
                Some(self.arrive_in_plaintext(snapshot, workload, source, *destination))
            }
            _ => None,
        }
    }

    fn arrive_by_tunnel(
        &self,
        snapshot: &Snapshot,
        own: &Arc<Workload>,
        source: IpAddr,
        (workload, connected, authority): (&Arc<Workload>, SocketAddr, &Authority),
    ) -> Arrival {
        let destination = mesh::inbound::destination(snapshot, workload, connected, authority);
        let identity = own.identity();
        let judged = destination.as_ref().ok().map(|destination| {
            let connection =
                Connection { source_identity: Some(&identity), source_ip: source, destination: *destination };
            self.explain(snapshot, workload, &connection)
        });
        Arrival { workload: Arc::clone(workload), destination, judged, identity: Some(identity) }
    }

    fn arrive_in_plaintext(
        &self,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        source: IpAddr,
        destination: SocketAddr,
    ) -> Arrival {
        let connection = Connection { source_identity: None, source_ip: source, destination };
        let judged = Some(self.explain(snapshot, workload, &connection));
        Arrival { workload: Arc::clone(workload), destination: Ok(destination), judged, identity: None }
    }

    fn explain(&self, snapshot: &Snapshot, workload: &Arc<Workload>, connection: &Connection<'_>) -> Judged {
        let served = self.served(snapshot, workload);
        let (judgement, considered) = match served {
            Some(served) => served.policies.explain(snapshot, workload, connection),
            None => explain_listed(snapshot, workload, &workload.authorization_policies, connection),
        };
        Judged { judgement, considered }
    }

    fn served(&self, snapshot: &Snapshot, workload: &Arc<Workload>) -> Option<Arc<crate::served::Served>> {
        let is_it = |own: Arc<Workload>| own.uid == workload.uid;
        self.pods().into_iter().find(|served| own_workload(snapshot, &served.pod).is_some_and(is_it))
    }

    fn serves(&self, workload: &Arc<Workload>) -> bool {
        self.served(&self.store.load(), workload).is_some()
    }
}
