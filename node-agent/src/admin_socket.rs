//! The agent's answers to the command line, on a Unix socket of the run directory and, for other nodes, on the admin port.
//!
//! What is shown is looked at for the one who asks; nothing is changed by asking. Invariants: an answer is bounded in messages and each
//! message in bytes, and whoever does not take a message in time is left; nothing that others wait for is held meanwhile.

pub(crate) mod certificates;
mod connections;
mod find;
mod levels;
pub(crate) mod pods;
pub(crate) mod protocol;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod texts;
mod times;
mod trace;
mod verdict;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use linux::fdpass::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use mesh::Store;
use prometheus_client::registry::Registry;
use tunnel::Tunnel;

use crate::admin::Node;
use crate::enrollment::Enroller;
use crate::events::Events;
use crate::feed::Source;
use crate::logging::Levels;
use crate::readiness::Readiness;
use crate::unix_server::{self, Purpose, Server};
use protocol::{Answer, Command, LineView, MAX_MESSAGE, PodView, Request};

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "admin.sock";
/// Pods that are looked at at once for one who asks.
const AT_ONCE: usize = 8;

/// How long a whole answer may take to be taken, that needs no inspection: who takes it piece by piece, ever so slowly, holds up nobody's turn.
const WHOLE: Duration = Duration::from_secs(20);

/// What can be asked about, beside capture.
pub(crate) struct Subjects {
    /// This node's pods, connections and certificates.
    pub(crate) node: Arc<dyn Node>,
    /// The mesh.
    pub(crate) store: Arc<Store>,
    /// What decides on connections.
    pub(crate) tunnel: Arc<Tunnel>,
    /// What is logged.
    pub(crate) levels: Levels,
    /// What was logged lately.
    pub(crate) events: Events,
    /// The effective configuration, without secrets.
    pub(crate) config: serde_json::Value,
    /// The metrics.
    pub(crate) registry: Arc<Registry>,
    /// What is still to be done before the agent is ready.
    pub(crate) readiness: Readiness,
    /// What says what the mesh is.
    pub(crate) source: Source,
}

/// Takes the parts of an answer.
pub(crate) type Teller<'a> = dyn FnMut(Answer) -> io::Result<()> + 'a;

/// Answers a question, but for its end. Blocks.
pub(crate) type Respond = dyn Fn(&Request, &mut Teller<'_>) -> io::Result<()> + Send + Sync;

/// Who answers, of the parts that know.
pub(crate) fn respond(enroller: Arc<Enroller>, subjects: Subjects, runtime: Handle) -> Arc<Respond> {
    Arc::new(move |request, send| match request.command {
        Command::Verify => verify(&enroller, request, &runtime, send),
        _ => tell(&subjects, request, &mut until(Instant::now() + WHOLE, send)),
    })
}

/// Listens in `run_dir`, or with the socket of the agent before this one, and answers on threads.
pub(crate) fn start(
    run_dir: &Path,
    inherited: Option<OwnedFd>,
    respond: Arc<Respond>,
) -> anyhow::Result<Server> {
    let purpose = Purpose { callers: "the command line", thread: "admin-request", max_requests: 8 };
    let listener = unix_server::listen(&run_dir.join(SOCKET), purpose.callers, inherited)?;
    Ok(Server::start(listener, purpose, move |connection| answer(connection, &*respond))?)
}

fn answer(connection: &Connection, respond: &Respond) -> io::Result<()> {
    let (message, _) = connection.recv(MAX_MESSAGE)?;
    if message.is_empty() {
        return Ok(());
    }
    let mut send = |answer: Answer| connection.send(&answer.encode()?, &[]);
    match Request::decode(&message) {
        Ok(request) => respond(&request, &mut send)?,
        Err(error) => return send(Answer::Failed { message: error.to_string() }),
    }
    send(Answer::End)
}

/// Answers what only a look at capture can.
fn verify(
    enroller: &Arc<Enroller>,
    request: &Request,
    runtime: &Handle,
    send: &mut Teller<'_>,
) -> io::Result<()> {
    send(Answer::Node { lines: LineView::of(&runtime.block_on(enroller.see_node())) })?;
    let (found, mut views) = mpsc::channel(AT_ONCE);
    runtime.spawn(look(Arc::clone(enroller), request.pod.clone(), found));
    while let Some(view) = views.blocking_recv() {
        send(Answer::Pod(view))?;
    }
    Ok(())
}

/// Sends until then, and not after.
fn until(
    end: Instant,
    mut send: impl FnMut(Answer) -> io::Result<()>,
) -> impl FnMut(Answer) -> io::Result<()> {
    move |answer| {
        if Instant::now() > end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was taken too slowly"));
        }
        send(answer)
    }
}

/// Answers what is not about capture.
fn tell(subjects: &Subjects, request: &Request, send: &mut Teller<'_>) -> io::Result<()> {
    let pod = request.pod.as_deref();
    match &request.command {
        Command::Status => status::tell(subjects, send),
        Command::Pods => pods::tell(subjects, pod, send),
        Command::Connections => connections::tell(subjects, pod, send),
        Command::Certificates => certificates::tell(subjects, send),
        Command::Events { after } => events(subjects, *after, send),
        Command::Trace(asked) => trace::tell(subjects, asked, send),
        Command::Policy(asked) => verdict::tell(subjects, asked, send),
        Command::Logging(change) => levels::tell(subjects, change, send),
        Command::Config => texts::config(subjects, send),
        Command::Metrics => texts::metrics(subjects, send),
        Command::ConnectTimes { seconds } => times::tell(subjects, *seconds, send),
        // Capture is looked at by whoever calls this.
        Command::Verify => Ok(()),
    }
}

/// Looks at the pods, several at once, and tells of them in the order of their names.
async fn look(enroller: Arc<Enroller>, only: Option<String>, found: mpsc::Sender<PodView>) {
    let pods = enroller.states().into_iter();
    let wanted = pods.filter(|(pod, _)| only.as_ref().is_none_or(|only| pod.is_called(only)));
    let looks = wanted.map(|(pod, state)| enroller.see(pod, state));
    let mut sights = futures_util::stream::iter(looks).buffered(AT_ONCE);
    while let Some(sight) = sights.next().await {
        // Whoever asked may have gone.
        if found.send(PodView::of(&sight)).await.is_err() {
            return;
        }
    }
}

fn events(subjects: &Subjects, after: u64, send: &mut Teller<'_>) -> io::Result<()> {
    let (events, missed) = subjects.events.after(after);
    if missed > 0 {
        send(Answer::LeftOut { count: usize::try_from(missed).unwrap_or(usize::MAX) })?;
    }
    events.into_iter().try_for_each(|event| send(Answer::Event(event)))
}
