//! The agent's answers to `culvert verify` and `culvert status`, on a Unix socket of the run directory.
//!
//! What is shown is looked at for the one who asks; nothing is changed by asking.

pub(crate) mod protocol;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use linux::fdpass::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::enrollment::{Enroller, PodState};
use crate::unix_server::{self, Purpose, Server};
use protocol::{Answer, Command, LineView, MAX_MESSAGE, PodView, Request, StatusView};

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "admin.sock";
/// Pods that are looked at at once for one who asks.
const AT_ONCE: usize = 8;

/// Listens in `run_dir`, or with the socket of the agent before this one, and answers on threads.
pub(crate) fn start(
    run_dir: &Path,
    inherited: Option<OwnedFd>,
    enroller: Arc<Enroller>,
    runtime: Handle,
) -> anyhow::Result<Server> {
    let purpose = Purpose { callers: "culvert verify", thread: "admin-request", max_requests: 8 };
    let listener = unix_server::listen(&run_dir.join(SOCKET), purpose.callers, inherited)?;
    Ok(Server::start(listener, purpose, move |connection| answer(connection, &enroller, &runtime))?)
}

fn answer(connection: &Connection, enroller: &Arc<Enroller>, runtime: &Handle) -> io::Result<()> {
    let (message, _) = connection.recv(MAX_MESSAGE)?;
    if message.is_empty() {
        return Ok(());
    }
    let send = |answer: Answer| connection.send(&answer.encode()?, &[]);
    let request = match Request::decode(&message) {
        Ok(request) => request,
        Err(error) => return send(Answer::Failed { message: error.to_string() }),
    };
    match request.command {
        Command::Status => send(Answer::Status(status(enroller)))?,
        Command::Verify => {
            send(Answer::Node { lines: LineView::of(&runtime.block_on(enroller.see_node())) })?;
            let (found, mut views) = mpsc::channel(AT_ONCE);
            runtime.spawn(look(Arc::clone(enroller), request.pod, found));
            while let Some(view) = views.blocking_recv() {
                send(Answer::Pod(view))?;
            }
        }
    }
    send(Answer::End)
}

/// Looks at the pods, several at once, and tells of them in the order of their names.
async fn look(enroller: Arc<Enroller>, only: Option<String>, found: mpsc::Sender<PodView>) {
    let pods = enroller.states().into_iter();
    let wanted = pods.filter(|(pod, _)| only.as_ref().is_none_or(|only| *only == pod.to_string()));
    let looks = wanted.map(|(pod, state)| enroller.see(pod, state));
    let mut sights = futures_util::stream::iter(looks).buffered(AT_ONCE);
    while let Some(sight) = sights.next().await {
        // Whoever asked may have gone.
        if found.send(PodView::of(&sight)).await.is_err() {
            return;
        }
    }
}

fn status(enroller: &Enroller) -> StatusView {
    let mut view = StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        ..StatusView::default()
    };
    for (_, state) in enroller.states() {
        match state {
            PodState::Enrolled => view.enrolled += 1,
            PodState::Degraded(_) => view.degraded += 1,
            PodState::Pending(_) => view.pending += 1,
        }
    }
    view
}
