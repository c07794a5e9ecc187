//! Plain connections that arrive at a pod, from outside the mesh: policy without an identity, then the
//! application, with the client's address kept. What is refused is closed with RST.

use std::sync::Arc;

use mesh::Workload;

use crate::connections::{ConnectionInfo, Direction};
use crate::error::ConnectionError;
use crate::inbound::service_of;
use crate::judgement::{Judged, judge};
use crate::relay::{self, Far};
use crate::scope::{Captured, Scope};
use crate::telemetry::{Details, Party, Record, Reporter, Transport, failed};

/// Serves one captured connection to its end.
pub(crate) async fn serve(scope: Scope, captured: Captured) {
    let (source, destination) = (captured.source, captured.original_destination);
    let own = match scope.own_workload().await {
        Ok(own) => own,
        Err(refusal) => {
            failed(Reporter::Destination, source, destination, &refusal);
            return relay::reset(captured.stream);
        }
    };
    let shared = &scope.shared;
    let judged = Judged { served: Arc::clone(&scope.served), own: Arc::clone(&own) };
    let info = ConnectionInfo {
        workload: Arc::clone(&own.uid),
        direction: Direction::Inbound,
        source,
        original_destination: None,
        destination,
        hbone: false,
        identity: None,
    };
    let entry = shared.connections.enter(info, Some(judged.clone()));
    let record = Record::open(&shared.metrics, details(&scope, &own, &captured));
    let app = async {
        judge(shared, &judged, &entry).await?;
        let dialled = shared.dialer().to_app(&scope.served, source, destination);
        Ok::<_, ConnectionError>(dialled.await?)
    };
    // Should policy change meanwhile, the relay is cut before its first byte.
    let result = match app.await {
        Ok((app, _link)) => {
            relay::run(app, Far::Tcp(captured.stream), record.counters(), shared.limits(), entry.cut()).await
        }
        Err(error) => {
            relay::reset(captured.stream);
            Err(error)
        }
    };
    record.finish(result.as_ref().err());
}

fn details(scope: &Scope, own: &Workload, captured: &Captured) -> Details {
    let snapshot = scope.shared.store.load();
    let client = scope.shared.workload_at(&snapshot, captured.source.ip());
    let destination = captured.original_destination;
    Details {
        reporter: Reporter::Destination,
        source_address: captured.source,
        source: client.map(|workload| Party::of(&workload, None)),
        destination_address: destination,
        hbone_address: None,
        destination: Some(Party::of(own, Some(own.identity()))),
        service: service_of(&snapshot, own, destination.port(), None),
        transport: Transport::Plain,
    }
}
