//! Connections, who is let in, and the requests that are no watch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::access::{self, User, Wish};
use crate::api::{Seen, Shared};
use crate::error::{Refusal, respond};
use crate::faults::{Fault, Verb};
use crate::patch::{self, Style};
use crate::path::Target;
use crate::select::Selector;
use crate::store::Place;
use crate::watch;
use crate::{discovery, exec, forward, protobuf};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest body that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Self { pairs: text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect() }
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Every value of a name, in order.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "true")
    }
}

/// Percent-decoding, as queries have it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Serves until it is told to stop, and closes all connections then.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(converse(stream, acceptor.clone(), Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Answers on one connection; how it ends is seen by the client.
async fn converse(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let _ = served.with_upgrades().await;
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    handle(shared, request).await.unwrap_or_else(|refusal| refusal.response())
}

async fn handle(shared: &Arc<Shared>, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let bearer = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if bearer.and_then(|value| value.strip_prefix("Bearer ")) != Some(&shared.token) {
        return Err(Refusal::new(401, "Unauthorized", "Unauthorized"));
    }
    if let Some(document) = discovery::document(parts.uri.path()) {
        return Ok(respond(200, &document));
    }
    let user = User::of(&parts.headers)?;
    if parts.uri.path() == access::REVIEWS && parts.method == Method::POST {
        return reviewed(shared, user.as_ref(), &parts, &read(body).await);
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let Some(target) = Target::parse(parts.uri.path()) else {
        return Err(Refusal::not_found(parts.uri.path()));
    };
    let verb = match parts.method.as_str() {
        "GET" if target.sub == "portforward" => Verb::PortForward,
        "GET" if target.sub == "exec" => Verb::Exec,
        "GET" if target.sub == "log" => Verb::Log,
        "GET" if !target.name.is_empty() => Verb::Get,
        "GET" if query.is_set("watch") => Verb::Watch,
        "GET" => Verb::List,
        "PATCH" => Verb::Patch,
        "DELETE" if !target.name.is_empty() && target.sub.is_empty() => Verb::Delete,
        other => return Err(Refusal::new(405, "MethodNotAllowed", format!("{other} is not served"))),
    };
    let content = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let style = match (verb, content) {
        (Verb::Patch, Some("application/merge-patch+json")) => Style::Merge,
        (Verb::Patch, Some("application/strategic-merge-patch+json")) => Style::Strategic,
        (Verb::Patch, other) => {
            let message = format!("the patch type {other:?} is not served");
            return Err(Refusal::new(415, "UnsupportedMediaType", message));
        }
        _ => Style::Merge,
    };
    let changes = serde_json::from_slice(&read(body).await).unwrap_or(Value::Null);
    shared.note(Seen { verb: verb.as_str(), uri: parts.uri.to_string(), body: changes.clone() });
    let selector = Selector::parse(query.get("fieldSelector"), query.get("labelSelector"))?;
    access::check(&shared.store(), user.as_ref(), &Wish::of(verb, &target, &selector))?;
    let mut upgrade = upgrade;
    let mut done = || match verb {
        Verb::Get => get(shared, &target),
        Verb::List => list(shared, &target, &selector, &query),
        Verb::Watch => watch::start(shared, &target, &selector, &query),
        Verb::Patch => patched(shared, &target, &changes, style),
        Verb::Delete => deleted(shared, &target),
        Verb::PortForward => forward::start(wanted(shared, &target, &query)?, &parts.headers, upgrade.take()),
        Verb::Exec => exec::start(ordered(shared, &target, &query)?, &parts.headers, upgrade.take()),
        Verb::Log => log(shared, &target),
    };
    match shared.fault(verb) {
        None => done(),
        Some(Fault::Status(code)) => Err(Refusal::new(code, "InternalError", "a fault of the test")),
        Some(Fault::DoneBut(code)) => {
            done()?;
            Err(Refusal::new(code, "InternalError", "a fault of the test, after it was done"))
        }
        Some(Fault::Garbage) => Ok(Response::new(Body::from("\u{1}\u{2}<html>no JSON}{"))),
        Some(Fault::Stall) => {
            std::future::pending::<()>().await;
            done()
        }
        Some(Fault::Cut) => Ok(Response::new(watch::cut())),
    }
}

async fn read(body: Incoming) -> Bytes {
    axum::body::to_bytes(Body::new(body), LONGEST).await.unwrap_or_default()
}

/// A review of what somebody may do.
fn reviewed(
    shared: &Shared,
    user: Option<&User>,
    parts: &Parts,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let is_protobuf = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == protobuf::TYPE);
    let review = if is_protobuf {
        protobuf::review(body)?
    } else {
        serde_json::from_slice(body).map_err(|error| Refusal::bad(error.to_string()))?
    };
    shared.note(Seen { verb: "create", uri: parts.uri.to_string(), body: review.clone() });
    Ok(respond(201, &access::reviewed(&shared.store(), user, &review)?))
}

/// What a request to forward a port of a pod is about.
fn wanted(shared: &Shared, target: &Target, query: &Query) -> Result<forward::Wanted, Refusal> {
    of_a_pod(shared, target)?;
    let dial = shared.dial().ok_or_else(|| Refusal::bad("no port is forwarded in this test"))?;
    let port = query.get("ports").parse().map_err(|_| Refusal::bad("one port is forwarded at a time"))?;
    Ok(forward::Wanted { dial, namespace: target.namespace.clone(), pod: target.name.clone(), port })
}

/// What a request to run a command in a pod is about.
fn ordered(shared: &Shared, target: &Target, query: &Query) -> Result<exec::Wanted, Refusal> {
    of_a_pod(shared, target)?;
    let execute = shared.execute().ok_or_else(|| Refusal::bad("no command is run in this test"))?;
    let words = query.all("command").map(str::to_owned).collect();
    Ok(exec::Wanted { execute, namespace: target.namespace.clone(), pod: target.name.clone(), words })
}

/// The log of a pod.
fn log(shared: &Shared, target: &Target) -> Result<Response<Body>, Refusal> {
    of_a_pod(shared, target)?;
    let file = shared.log().ok_or_else(|| Refusal::bad("no log is shown in this test"))?;
    let text = std::fs::read(&file)
        .map_err(|error| Refusal::new(500, "InternalError", format!("{}: {error}", file.display())))?;
    Ok(Response::new(Body::from(text)))
}

/// Fails unless a request is about a pod that is there.
fn of_a_pod(shared: &Shared, target: &Target) -> Result<(), Refusal> {
    let is_there = shared.store().get(target.resource, &place(target)).is_some();
    if is_there && target.resource == crate::PODS { Ok(()) } else { Err(Refusal::not_found(&target.name)) }
}

/// Deletes an object at once: there are no finalizers, and what it owned stays.
fn deleted(shared: &Shared, target: &Target) -> Result<Response<Body>, Refusal> {
    let object = shared.change(|store| store.remove(target.resource, &place(target), false));
    Ok(respond(200, &object.ok_or_else(|| Refusal::not_found(&target.name))?))
}

fn place(target: &Target) -> Place {
    (target.namespace.clone(), target.name.clone())
}

fn get(shared: &Shared, target: &Target) -> Result<Response<Body>, Refusal> {
    let store = shared.store();
    let object = store.get(target.resource, &place(target));
    Ok(respond(200, object.ok_or_else(|| Refusal::not_found(&target.name))?))
}

/// A page of a list. The token of the next one is the place where this one ends.
fn list(
    shared: &Shared,
    target: &Target,
    selector: &Selector,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let limit = query.get("limit").parse().ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let after = match query.get("continue") {
        "" => None,
        token => Some(read_token(token).ok_or_else(|| Refusal::bad("the continue token is not ours"))?),
    };
    let store = shared.store();
    let in_it = |place: &Place| target.namespace.is_empty() || place.0 == target.namespace;
    let is_after = |place: &Place| after.as_ref().is_none_or(|after| place > after);
    let mut rest = store
        .all(target.resource)
        .filter(|(place, object)| in_it(place) && is_after(place) && selector.matches(object));
    let page: Vec<(&Place, &Value)> = rest.by_ref().take(limit).collect();
    let token = match (rest.next(), page.last()) {
        (Some(_), Some((last, _))) => token(last),
        _ => String::new(),
    };
    let items: Vec<&Value> = page.iter().map(|(_, object)| *object).collect();
    let list = json!({
        "kind": format!("{}List", target.resource.kind),
        "apiVersion": target.resource.api_version,
        "metadata": {"resourceVersion": store.version().to_string(), "continue": token},
        "items": items,
    });
    Ok(respond(200, &list))
}

fn token(place: &Place) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json!(place).to_string())
}

fn read_token(token: &str) -> Option<Place> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// A patch of an object or of its status. With a UID in it, it is for that object alone.
fn patched(
    shared: &Shared,
    target: &Target,
    changes: &Value,
    style: Style,
) -> Result<Response<Body>, Refusal> {
    if !changes.is_object() {
        return Err(Refusal::bad("the patch is no JSON object"));
    }
    let patched = shared.change(|store| {
        let known = store.get(target.resource, &place(target));
        let mut object = known.ok_or_else(|| Refusal::not_found(&target.name))?.clone();
        for field in ["uid", "resourceVersion"] {
            let pointer = format!("/metadata/{field}");
            if let Some(meant) = changes.pointer(&pointer)
                && object.pointer(&pointer) != Some(meant)
            {
                let message = format!("Precondition failed: {field} in precondition: {meant}");
                return Err(Refusal::new(409, "Conflict", message));
            }
        }
        patch::apply(&mut object, &allowed(changes, &target.sub), style);
        store.put(target.resource, object)
    })?;
    Ok(respond(200, &patched))
}

/// What of a patch counts: of the status, its own and the metadata.
fn allowed(changes: &Value, sub: &str) -> Value {
    let keep = |name: &str| match sub {
        "status" => matches!(name, "status" | "metadata"),
        _ => name != "status",
    };
    let fields = changes.as_object().into_iter().flatten().filter(|(name, _)| keep(name));
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("fieldSelector=spec.nodeName%3Dn1&watch=1&limit=500&x=a+b");
        assert_eq!(query.get("fieldSelector"), "spec.nodeName=n1");
        assert!(query.is_set("watch") && query.get("x") == "a b" && query.get("other").is_empty());
    }

    #[test]
    fn a_token_leads_back_to_its_place() {
        let place = ("demo".to_owned(), "pod-1".to_owned());
        assert_eq!(read_token(&token(&place)), Some(place));
        assert_eq!(read_token("nonsense"), None);
    }
}
