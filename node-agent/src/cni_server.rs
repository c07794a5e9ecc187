//! The agent's end of the enrolment protocol: answers the CNI plugin on a Unix socket.
//!
//! A connection is one request and one response, each on a thread of its own, for reading, enrolling and answering block;
//! how many at once is bounded. Only root may speak. What cannot be read is answered with an error where that is possible,
//! and touches no pod.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cni::protocol::{Command, MAX_MESSAGE, Outcome, PodName, Request, Response};
use linux::fdpass::Connection;
use linux::netns::Netns;
use tokio::runtime::Handle;

use crate::enrollment::{self, EnrollError, Enroller, Location, PodKey, Want};
use crate::unix_server::{self, Purpose, Server};

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "cni.sock";
/// Requests being answered at once; further ones wait in the kernel's queue.
const MAX_REQUESTS: u32 = 64;
/// How long a pod is waited for of which Kubernetes has not told yet: the runtime has its answer within two seconds. Watches are behind by
/// milliseconds.
const DECISION: Duration = Duration::from_millis(1900);

/// Codes of the CNI specification and, from 100 on, our own.
mod code {
    /// Failed to decode content.
    pub(super) const DECODE: u32 = 6;
    /// Invalid environment variables.
    pub(super) const ENVIRONMENT: u32 = 4;
    /// Nothing is wrong with the pod; the runtime should call again later.
    pub(super) const TRY_AGAIN: u32 = 11;
    /// The agent could not capture the pod.
    pub(super) const NOT_CAPTURED: u32 = 101;
    /// CHECK found that capture is not whole.
    pub(super) const NOT_INTACT: u32 = 102;
}

/// Listens in `run_dir`, or with the socket of the agent before this one, and answers on threads.
pub(crate) fn start(
    run_dir: &Path,
    inherited: Option<OwnedFd>,
    enroller: Arc<Enroller>,
    runtime: Handle,
) -> anyhow::Result<Server> {
    let purpose = Purpose { callers: "the CNI plugin", thread: "cni-request", max_requests: MAX_REQUESTS };
    let listener = unix_server::listen(&run_dir.join(SOCKET), purpose.callers, inherited)?;
    Ok(Server::start(listener, purpose, move |connection| answer(connection, &enroller, &runtime))?)
}

fn answer(connection: &Connection, enroller: &Arc<Enroller>, runtime: &Handle) -> io::Result<()> {
    let (message, descriptors) = connection.recv(MAX_MESSAGE)?;
    if message.is_empty() {
        return Ok(());
    }
    let response = match Request::decode(&message) {
        Ok(request) => {
            let netns = descriptors.into_iter().next().map(Netns::from_fd);
            respond(enroller, runtime, request, netns)
        }
        Err(error) => {
            tracing::warn!(%error, "not a request of the CNI plugin");
            Response::failed(
                code::DECODE,
                error.to_string(),
                "use the culvert-cni plugin of the agent's release",
            )
        }
    };
    let bytes = response.encode().map_err(io::Error::other)?;
    connection.send(&bytes, &[])
}

type PassedNetns = Option<Result<Netns, linux::netns::NetnsError>>;

fn respond(enroller: &Arc<Enroller>, runtime: &Handle, request: Request, netns: PassedNetns) -> Response {
    let pod = request.pod.as_ref().map(pod_key);
    match (request.command, pod) {
        (Command::Gc, _) => collect(enroller, runtime, request),
        (_, None) => Response::done(Outcome::NotAmbient),
        (Command::Add, Some(pod)) => add(enroller, runtime, &pod, request, netns),
        (Command::Del, Some(pod)) => {
            match runtime.block_on(enroller.release_container(&pod, &request.container_id)) {
                Ok(()) => Response::done(Outcome::Released),
                Err(error) => failed(code::NOT_CAPTURED, &pod, &error),
            }
        }
        (Command::Check, Some(pod)) => check(enroller, runtime, &pod),
    }
}

fn check(enroller: &Arc<Enroller>, runtime: &Handle, pod: &PodKey) -> Response {
    match runtime.block_on(enroller.inspect(pod)) {
        Some(Ok(())) => Response::done(Outcome::Intact),
        Some(Err(error)) => failed(code::NOT_INTACT, pod, &error),
        None if enroller.want(pod) == Want::No => Response::done(Outcome::NotAmbient),
        None => Response::failed(
            code::NOT_INTACT,
            format!("pod {pod} is to be in the mesh but is not enrolled; see the agent's log"),
            "",
        ),
    }
}

fn collect(enroller: &Arc<Enroller>, runtime: &Handle, request: Request) -> Response {
    let valid = request.valid.into_iter().collect();
    match runtime.block_on(enroller.collect(&request.network, &valid)) {
        Ok(()) => Response::done(Outcome::Collected),
        Err((pod, error)) => failed(code::NOT_CAPTURED, &pod, &error),
    }
}

fn add(
    enroller: &Arc<Enroller>,
    runtime: &Handle,
    pod: &PodKey,
    request: Request,
    netns: PassedNetns,
) -> Response {
    let uid = request.pod.as_ref().and_then(|pod| pod.uid.as_deref());
    let wanted = match runtime.block_on(enroller.decide(pod, uid, DECISION)) {
        Want::Yes(wanted) => wanted,
        Want::No => return Response::done(Outcome::NotAmbient),
        Want::Unknown => return undecided(pod),
    };
    let netns = match netns {
        Some(Ok(netns)) => netns,
        Some(Err(error)) => return failed(code::ENVIRONMENT, pod, &EnrollError::from(error)),
        None => {
            let msg = format!("ADD of pod {pod} came without its network namespace; is CNI_NETNS set?");
            return Response::failed(code::ENVIRONMENT, msg, "");
        }
    };
    let path = seen_path(&netns, request.netns);
    let Request { container_id, network, ips, .. } = request;
    let location = Location { netns, path, container_id: Some(container_id), network, ips };
    match runtime.block_on(enroller.enrol(pod, &wanted, location)) {
        Ok(()) => Response::done(Outcome::Enrolled),
        Err(error) => failed(code::NOT_CAPTURED, pod, &error),
    }
}

/// Nobody has said whether the pod is in the mesh; it may be.
fn undecided(pod: &PodKey) -> Response {
    tracing::warn!(%pod, limit = ?DECISION, "the Kubernetes API has not told of a pod that is being started");
    Response::failed(
        code::TRY_AGAIN,
        format!(
            "pod {pod} is held back: the culvert agent of this node has not heard of it from the Kubernetes API within \
             {DECISION:?}; it is tried again by itself. If that goes on, see the agent's log and its permission to watch pods and \
             namespaces"
        ),
        "whether the pod is in the mesh is not known, and nothing of it may leave in plaintext",
    )
}

/// The path by which this agent finds the namespace again; empty where it does not see what the plugin sees.
fn seen_path(netns: &Netns, path: String) -> PathBuf {
    if let Some(seen) = enrollment::seen_path(netns.id(), Path::new(&path)) {
        return seen;
    }
    tracing::warn!(
        path,
        "the agent does not see the pod's network namespace at this path, so it cannot take the pod over after a restart; \
         mount the runtime's namespace directory into the agent"
    );
    PathBuf::new()
}

fn failed(code: u32, pod: &PodKey, error: &EnrollError) -> Response {
    tracing::error!(%pod, %error, "a request of the CNI plugin failed");
    Response::failed(
        code,
        format!("pod {pod}: {error}"),
        "the pod is not started, so that nothing of it leaves in plaintext",
    )
}

fn pod_key(pod: &PodName) -> PodKey {
    PodKey { namespace: pod.namespace.clone(), name: pod.name.clone() }
}
