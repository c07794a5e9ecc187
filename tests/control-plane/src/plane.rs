//! The handle that a test holds: it starts the server, changes what it knows, plays tricks, and looks at what came.
//!
//! Invariant: no wait is unbounded; one that does not end in time says what it waited for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::authority::{Answer, Chain, ROOTS};
use crate::records::Records;
use crate::replay::Recording;
use crate::script::{Admission, Command, Door, Ending, Push};
use crate::server;
use crate::shared::{Shared, lock};
use crate::world::World;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(120);
/// The largest request that istiod reads, in bytes (`ISTIO_GPRC_MAXRECVMSGSIZE`).
const LARGEST_REQUEST: usize = 4 << 20;

/// What a control plane is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// Where its roots lie.
    pub dir: PathBuf,
    /// Names and addresses of its certificate, beside those of this host itself.
    pub names: Vec<String>,
    /// Whether it speaks without TLS.
    pub plaintext: bool,
    /// Whether it remembers what clients do.
    pub record: bool,
    /// The largest request that it reads, in bytes.
    pub largest_request: usize,
}

impl Options {
    /// On a port of its own of 127.0.0.1.
    pub fn new(dir: &Path) -> Self {
        Self {
            listen: (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into(),
            dir: dir.to_owned(),
            names: Vec::new(),
            plaintext: false,
            record: true,
            largest_request: LARGEST_REQUEST,
        }
    }
}

/// A control plane. It ends when it is dropped.
pub struct ControlPlane {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl ControlPlane {
    /// Starts one.
    ///
    /// # Errors
    /// If it cannot listen, or its directory cannot be used.
    pub async fn start(options: Options) -> Result<Self> {
        let address = options.listen;
        let mut plane = Self { shared: Arc::new(Shared::new(options)?), address, task: None };
        plane.restart().await?;
        Ok(plane)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the roots that it is trusted by.
    pub fn roots(&self) -> PathBuf {
        self.shared.options.dir.join(ROOTS)
    }

    /// Listens again, at the same place, with the same state.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await;
        let listener =
            TcpListener::bind(self.address).await.with_context(|| format!("listen on {}", self.address))?;
        self.address = listener.local_addr()?;
        self.task = Some(tokio::spawn(server::run(listener, self.shared.clone())));
        Ok(())
    }

    /// Closes everything at once, as if the process were killed.
    pub async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Its sockets are closed when it is over; that it was cancelled is known.
            let _ = task.await;
        }
    }

    /// Changes what is known, as one push.
    pub fn update(&self, change: impl FnOnce(&mut World)) {
        let revision = {
            let mut world = lock(&self.shared.world);
            change(&mut world);
            world.revision()
        };
        self.shared.revision.send_replace(revision);
    }

    /// Sends everything that clients hold once more.
    pub fn resend(&self) {
        self.shared.resend.send_modify(|count| *count += 1);
    }

    /// Plays a recording on every stream that is opened from now on, in place of telling what is known. Nothing of it is out
    /// yet: see [`Self::until`].
    pub fn play(&self, recording: Recording) {
        lock(&self.shared.script).recording = Some(recording);
        self.shared.until.send_replace(0);
    }

    /// Lets so many responses of the recording out, from its first.
    pub fn until(&self, count: usize) {
        self.shared.until.send_replace(count);
    }

    /// Sends a response of the test's own on every stream.
    pub async fn push(&self, push: Push) {
        self.tell(&push.command()).await;
    }

    /// Ends every stream with a status.
    pub async fn end_streams(&self, code: Code, message: &str) {
        self.tell(&Command::End(Status::new(code, message))).await;
    }

    /// Stops answering on every stream that is open.
    pub async fn mute_streams(&self) {
        self.tell(&Command::Mute).await;
    }

    /// Ends every connection.
    pub fn end_connections(&self, ending: Ending) {
        // Without a connection nobody listens.
        let _ = self.shared.endings.send(ending);
    }

    /// What becomes of new connections from now on.
    pub fn door(&self, door: Door) {
        lock(&self.shared.script).door = door;
    }

    /// What becomes of new streams from now on.
    pub fn admit(&self, admission: Admission) {
        lock(&self.shared.script).admission = admission;
    }

    /// What becomes of the next stream that has no such plan yet.
    pub fn admit_next(&self, admission: Admission) {
        lock(&self.shared.script).admissions.push_back(admission);
    }

    /// Accepts these tokens only.
    pub fn tokens(&self, tokens: &[&str]) {
        lock(&self.shared.script).tokens = Some(tokens.iter().map(|token| (*token).to_owned()).collect());
    }

    /// How calls for certificates are answered from now on.
    pub fn answer(&self, answer: Answer) {
        lock(&self.shared.authority).otherwise = answer;
    }

    /// How the next call that has no such plan yet is answered.
    pub fn answer_next(&self, answer: Answer) {
        lock(&self.shared.authority).answers.push_back(answer);
    }

    /// Lets calls for certificates wait, or go on.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// The shape of chains from now on.
    pub fn chain(&self, chain: Chain) {
        lock(&self.shared.authority).chain = chain;
    }

    /// How long certificates are good for from now on, whatever is asked.
    pub fn lifetime(&self, lifetime: Duration) {
        lock(&self.shared.authority).lifetime = Some(lifetime);
    }

    /// Refuses an identity, or no longer.
    pub fn deny(&self, identity: &str, denied: bool) {
        let mut authority = lock(&self.shared.authority);
        if denied {
            authority.denied.insert(identity.to_owned());
        } else {
            authority.denied.remove(identity);
        }
    }

    /// A new root signs from now on, certificates and the server's own; the old one stays trusted.
    ///
    /// # Errors
    /// If it cannot be made or written down.
    pub fn rotate_root(&self) -> Result<()> {
        lock(&self.shared.authority).rotate()
    }

    /// Only the newest root is trusted from now on.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub fn forget_old_roots(&self) -> Result<()> {
        lock(&self.shared.authority).forget_old_roots()
    }

    /// All roots that are trusted, PEM.
    pub fn bundle(&self) -> String {
        lock(&self.shared.authority).bundle()
    }

    /// What came so far.
    pub fn records(&self) -> Records {
        self.shared.records().clone()
    }

    /// Waits until the records show something, and returns it.
    ///
    /// # Errors
    /// If they do not in two minutes.
    pub async fn wait<T>(&self, what: &str, mut find: impl FnMut(&Records) -> Option<T>) -> Result<T> {
        let mut noticed = self.shared.noticed();
        let found = async {
            loop {
                noticed.borrow_and_update();
                if let Some(found) = find(&self.shared.records()) {
                    return Ok(found);
                }
                noticed.changed().await.context("the server is gone")?;
            }
        };
        let found = timeout(LIMIT, found).await;
        found.with_context(|| format!("waited in vain for {what}; what came: {:#?}", self.records()))?
    }

    /// Waits until the newest stream has accepted the last response of both types.
    ///
    /// # Errors
    /// If it does not in two minutes.
    pub async fn synced(&self) -> Result<()> {
        let newest = |records: &Records| records.last().filter(|stream| stream.is_synced()).map(|_| ());
        self.wait("both types to be accepted", newest).await
    }

    /// Waits until so many streams are open and each has accepted the last response of both types.
    ///
    /// # Errors
    /// If they do not in two minutes.
    pub async fn synced_by(&self, clients: usize) -> Result<()> {
        let all = |records: &Records| {
            let mut open = records.streams.iter().filter(|stream| !stream.ended);
            let count = open.clone().count();
            (count >= clients && open.all(|stream| stream.is_synced())).then_some(())
        };
        self.wait("both types to be accepted by everybody", all).await
    }

    /// Waits until so many streams are open, and each has got so many responses and accepted all.
    ///
    /// # Errors
    /// If they do not in two minutes.
    pub async fn accepted_by(&self, clients: usize, responses: usize) -> Result<()> {
        let all = |records: &Records| {
            let mut open = records.streams.iter().filter(|stream| !stream.ended);
            let enough = open.clone().count() >= clients;
            (enough && open.all(|stream| stream.has_accepted(responses))).then_some(())
        };
        self.wait(&format!("{responses} responses to be accepted by everybody"), all).await
    }

    async fn tell(&self, command: &Command) {
        for stream in self.shared.live() {
            // One that has just ended needs to be told nothing.
            let _ = stream.send(command.clone()).await;
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
