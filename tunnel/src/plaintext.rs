//! Plain connections that arrive at a pod, from outside the mesh: policy without an identity, then the
//! application, with the client's address kept. What is refused is closed with RST.

use std::sync::Arc;
use std::time::Instant;

use mesh::Workload;
use tokio::net::TcpStream;

use crate::connections::{ConnectionInfo, Direction, Entry};
use crate::error::ConnectionError;
use crate::gate::{Link, Place};
use crate::inbound::service_of;
use crate::judgement::{Judged, judge};
use crate::relay::{self, Far};
use crate::scope::{Captured, Scope};
use crate::telemetry::{Details, Party, Record, Reporter, Transport, failed};

/// Serves one captured connection to its end. How it came about is forgotten before its bytes pass.
pub(crate) async fn serve(scope: Scope, captured: Captured) {
    if let Some(Accepted { scope, client, app, record, entry, _link, _place }) =
        Box::pin(set_up(scope, captured)).await
    {
        // Should policy have changed meanwhile, the relay is cut before its first byte.
        let limits = scope.shared.limits();
        let result = relay::run(app, Far::Tcp(client), record.counters(), limits, entry.cut()).await;
        record.finish(result.as_ref().err());
    }
}

/// A client whose connection the application has accepted.
struct Accepted {
    // The pod is there for as long as a connection of its is.
    scope: Scope,
    client: TcpStream,
    app: TcpStream,
    record: Box<Record>,
    entry: Entry,
    // Held until it is over.
    _link: Link,
    _place: Place,
}

/// Connects to the application, or tells why not.
async fn set_up(scope: Scope, captured: Captured) -> Option<Accepted> {
    let (source, destination) = (captured.source, captured.original_destination);
    let arrived = Instant::now();
    let own = match scope.own_workload().await {
        Ok(own) => own,
        Err(refusal) => {
            failed(Reporter::Destination, source, destination, &refusal);
            relay::reset(captured.stream);
            return None;
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
    let spans = shared.config.spans.as_ref();
    let record = Record::open(&shared.metrics, details(&scope, &own, &captured));
    let record = Box::new(record.joining(spans, None));
    let app = async {
        judge(shared, &judged, &entry).await?;
        let dialled = shared.dialer().to_app(&scope.served, source, destination);
        Ok::<_, ConnectionError>(dialled.await?)
    };
    let result = app.await;
    let Captured { stream: client, place, .. } = captured;
    match result {
        Ok((app, link)) => {
            record.established(arrived);
            Some(Accepted { scope, client, app, record, entry, _link: link, _place: place })
        }
        Err(error) => {
            relay::reset(client);
            record.finish(Some(&error));
            None
        }
    }
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
