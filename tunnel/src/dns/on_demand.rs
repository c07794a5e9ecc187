//! Addresses of destinations that the mesh knows by name only.
//!
//! Asked of the pod's own name servers from inside its netns, so that what it may ask and what it is told there hold for it;
//! where those are not known, of the node's resolver. Answers are kept for as long as they say, failures for a moment; a name is
//! asked for once at a time, whoever waits for it. Invariant: how much is kept is bounded a pod.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::PORT;
use super::host::Host;
use super::upstream::{self, UpstreamError};
use crate::scope::{Scope, own_workload};

/// Names that are kept for one pod.
const MAX_NAMES: usize = 256;
/// For how long an answer is kept at most.
const LONGEST: Duration = Duration::from_secs(300);
/// For how long an answer of the node's resolver is kept, which does not say.
const OF_NODE: Duration = Duration::from_secs(30);
/// For how long a failure is kept, so that a burst of connections asks once.
const FAILURE: Duration = Duration::from_secs(1);
/// How often one server is sent a question.
const ATTEMPTS: u32 = 2;
/// What fits into an answer that no path breaks into fragments.
const PAYLOAD: u16 = 1232;

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NameError {
    /// No server answered.
    #[error("no resolver answered: {0}")]
    Unanswered(Arc<str>),
    /// There is none.
    #[error("there is no address of this name: {0}")]
    Nothing(ResponseCode),
    /// The name cannot be asked for.
    #[error("this is not a name that DNS can be asked for")]
    NoName,
}

/// The addresses of a name, and for how long they are good.
type Outcome = Result<(Vec<IpAddr>, Duration), NameError>;

/// The same, shared by those who waited for it.
type Resolved = Result<Arc<[IpAddr]>, NameError>;

/// What one name was resolved to, and until when that is good.
#[derive(Debug, Default)]
struct Kept(Option<(Resolved, Instant)>);

impl Kept {
    fn is_good(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, until)| Instant::now() < *until)
    }
}

/// What one pod's names were resolved to.
#[derive(Debug, Default)]
pub(crate) struct Names {
    kept: BlockingMutex<HashMap<Arc<str>, Arc<Mutex<Kept>>>>,
}

impl Names {
    /// The place of a name, whose lock is held by whoever resolves it. A new one is not kept while there are too many.
    fn place(&self, hostname: &Arc<str>) -> Arc<Mutex<Kept>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = kept.get(hostname) {
            return Arc::clone(place);
        }
        if kept.len() >= MAX_NAMES {
            kept.retain(|_, place| place.try_lock().map_or(true, |kept| kept.is_good()));
        }
        let place = Arc::default();
        if kept.len() < MAX_NAMES {
            kept.insert(Arc::clone(hostname), Arc::clone(&place));
        }
        place
    }
}

/// The addresses of a name, for a connection of the pod.
pub(crate) async fn addresses_of(scope: &Scope, hostname: &Arc<str>) -> Resolved {
    if let Some(own) = own_workload(&scope.shared.store.load(), &scope.served.pod) {
        scope.shared.metrics.count_on_demand(&own, hostname);
    }
    let place = scope.served.names.place(hostname);
    let mut kept = place.lock().await;
    if let Some((outcome, _)) = kept.0.as_ref().filter(|_| kept.is_good()) {
        return outcome.clone();
    }
    let (outcome, good_for) = match resolve(scope, hostname).await {
        Ok((addresses, good_for)) => (Ok(addresses.into()), good_for),
        Err(error) => (Err(error), FAILURE),
    };
    kept.0 = Some((outcome.clone(), Instant::now() + good_for));
    outcome
}

async fn resolve(scope: &Scope, hostname: &str) -> Outcome {
    let settings = scope.served.settings.current(&scope.served.pod.sockets).await;
    if settings.nameservers.is_empty() {
        let found = tokio::net::lookup_host((hostname, PORT)).await;
        let found = found.map_err(|error| NameError::Unanswered(error.to_string().into()))?;
        return Ok((found.map(|address| address.ip()).collect(), OF_NODE));
    }
    let name = Host::parse(hostname).ok_or(NameError::NoName)?;
    let mut failure = NameError::Unanswered("there is no name server".into());
    for server in &settings.nameservers {
        let server = SocketAddr::new(*server, PORT);
        let (v4, v6) = tokio::join!(
            ask(scope, server, &name, RecordType::A),
            ask(scope, server, &name, RecordType::AAAA)
        );
        match join(v4, v6) {
            Err(error @ NameError::Unanswered(_)) => failure = error,
            answered => return answered,
        }
    }
    Err(failure)
}

/// Both families' answers as one. One of them is enough.
fn join(v4: Outcome, v6: Outcome) -> Outcome {
    match (v4, v6) {
        (Ok((mut addresses, one)), Ok((others, other))) => {
            addresses.extend(others);
            Ok((addresses, one.min(other)))
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        // That there is nothing is known only if both say so.
        (Err(error @ NameError::Unanswered(_)), Err(_)) | (Err(_), Err(error)) => Err(error),
    }
}

async fn ask(scope: &Scope, server: SocketAddr, name: &Host, kind: RecordType) -> Outcome {
    let unanswered = |error: UpstreamError| NameError::Unanswered(error.to_string().into());
    let packet = question(name, kind).ok_or(NameError::NoName)?;
    let asked = upstream::over_udp(&scope.served.pod.sockets, server, &packet, ATTEMPTS);
    let reply = asked.await.map_err(unanswered)?;
    let reply = Message::from_vec(&reply).map_err(|error| unanswered(io::Error::other(error).into()))?;
    addresses_in(&reply)
}

fn question(name: &Host, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.name()?, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// The addresses in an answer, whatever aliases lead to them.
fn addresses_in(reply: &Message) -> Outcome {
    let code = reply.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(NameError::Unanswered(code.to_str().into()));
    }
    let (mut addresses, mut good_for) = (Vec::new(), LONGEST);
    for record in &reply.answers {
        let good = Duration::from_secs(u64::from(record.ttl));
        match &record.data {
            RData::A(address) => addresses.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => addresses.push(IpAddr::V6(address.0)),
            RData::CNAME(_) => {}
            _ => continue,
        }
        good_for = good_for.min(good);
    }
    if addresses.is_empty() {
        return Err(NameError::Nothing(code));
    }
    Ok((addresses, good_for))
}
