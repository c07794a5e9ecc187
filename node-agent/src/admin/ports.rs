//! The agent's ports: how they are bound or taken over, and the two of them that other hosts may ask.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use linux::sockopt;
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::AdminAddress;
use super::scrape;
use super::server::{self, Limits};
use crate::readiness::Readiness;

/// Probes and scrapers keep a connection for as long as they ask often enough.
const LIMITS: Limits = Limits {
    connections: 64,
    headers: Duration::from_secs(75),
    connection: Duration::from_secs(3600),
    keep_alive: true,
};

/// Binds a server's port, without IPv6 where the kernel has none; or takes the socket of the agent before this one, if that
/// is at the same port.
pub(crate) async fn bind(
    what: &str,
    address: SocketAddr,
    inherited: Option<OwnedFd>,
) -> anyhow::Result<TcpListener> {
    if let Some(listener) = take(address, inherited)? {
        return Ok(listener);
    }
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_without_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    bound.with_context(|| refused(what, address))
}

/// Binds the admin interface's port on each of its addresses, of which the host may lack one, or takes the sockets of the
/// agent before this one; `inherited` gives them by the names that they are handed over under. Returns them with those names.
pub(crate) async fn bind_admin(
    address: AdminAddress,
    names: [&'static str; 2],
    mut inherited: impl FnMut(&str) -> Option<OwnedFd>,
) -> anyhow::Result<Vec<(&'static str, TcpListener)>> {
    let mut bound = Vec::new();
    let mut lacking = None;
    let sockets = names.map(&mut inherited);
    let mut sockets: Vec<_> = names.into_iter().zip(sockets).collect();
    for mut address in address.addresses() {
        // Port 0 is a free one, which must be the same for both.
        if let (0, Some(port)) = (address.port(), port_of(&bound)) {
            address.set_port(port);
        }
        let position = usize::from(address.is_ipv6());
        let Some((name, inherited)) = sockets.get_mut(position) else { continue };
        let listener = match take(address, inherited.take())? {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(address).await,
        };
        match listener {
            Ok(listener) => bound.push((*name, listener)),
            Err(error) if is_without_ipv6(&error) => lacking = Some((address, error)),
            Err(error) => return Err(error).with_context(|| refused("admin", address)),
        }
    }
    match lacking {
        Some((address, error)) if bound.is_empty() => Err(error).with_context(|| refused("admin", address)),
        _ => Ok(bound),
    }
}

fn port_of(bound: &[(&'static str, TcpListener)]) -> Option<u16> {
    let (_, listener) = bound.first()?;
    Some(listener.local_addr().ok()?.port())
}

/// The socket of the agent before this one, if it is where it is wanted.
///
/// That one may have been in another network namespace, as pods are: then nobody who asks this agent would reach its socket.
fn take(address: SocketAddr, inherited: Option<OwnedFd>) -> io::Result<Option<TcpListener>> {
    let Some(descriptor) = inherited else { return Ok(None) };
    let listener = std::net::TcpListener::from(descriptor);
    let own = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let is_here = sockopt::netns_cookie(&listener)? == sockopt::netns_cookie(&own)?;
    if is_here && listener.local_addr().is_ok_and(|inherited| is_same(inherited, address)) {
        return TcpListener::from_std(listener).map(Some);
    }
    Ok(None)
}

fn refused(what: &str, address: SocketAddr) -> String {
    format!("cannot listen on {address} for {what}; is the port taken? Choose another with --{what}-address")
}

/// The same port at the same address; any address is one, be it IPv4's for want of IPv6.
fn is_same(inherited: SocketAddr, wanted: SocketAddr) -> bool {
    let both_any = inherited.ip().is_unspecified() && wanted.ip().is_unspecified();
    inherited.port() == wanted.port() && (both_any || inherited.ip() == wanted.ip())
}

/// Whether the family is switched off: at boot (`ipv6.disable=1`), or for the interface alone.
fn is_without_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Serves `/healthz/ready` until the process ends.
pub(crate) async fn serve_readiness(listener: TcpListener, readiness: Readiness) -> io::Result<()> {
    let app = Router::new().route("/healthz/ready", get(ready)).with_state(readiness);
    server::serve(vec![listener], app, LIMITS).await
}

/// Serves `/metrics` and `/stats/prometheus` until the process ends.
pub(crate) async fn serve_metrics(listener: TcpListener, registry: Arc<Registry>) -> io::Result<()> {
    server::serve(vec![listener], scrape::router(registry), LIMITS).await
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let pending = readiness.pending();
    if pending.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("not ready, pending: {}\n", pending.join(", ")))
    }
}
