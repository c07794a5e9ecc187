//! The stand-in as a test holds it: its objects, its faults, and what was asked of it.
//!
//! It runs on a thread of its own. Stopping it closes its listener and all connections at once, as if the server were killed; objects and
//! versions stay for the next start.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::exec::Execute;
use crate::faults::{Fault, Faults, Verb};
use crate::forward::Dial;
use crate::identity::Identity;
use crate::patch::{self, Style};
use crate::path::Resource;
use crate::server;
use crate::store::{Place, Store};

/// A request that was answered, or at least read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `get`, `list`, `watch`, `patch`, `delete`, `portforward`, `exec` or `log`; of a review of access `create`.
    pub verb: &'static str,
    /// Its path and query.
    pub uri: String,
    /// Its body, of a patch or a review.
    pub body: Value,
}

/// What the server's tasks and the test share.
pub(crate) struct Shared {
    pub(crate) token: String,
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    seen: Mutex<Vec<Seen>>,
    dial: Mutex<Option<Arc<Dial>>>,
    execute: Mutex<Option<Arc<Execute>>>,
    log: Mutex<Option<PathBuf>>,
    /// The version, for whoever waits for changes.
    pub(crate) changed: watch::Sender<u64>,
    /// Ends all watches.
    pub(crate) hang_up: broadcast::Sender<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("version", &*self.changed.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn dial(&self) -> Option<Arc<Dial>> {
        self.dial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn execute(&self) -> Option<Arc<Execute>> {
        self.execute.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn log(&self) -> Option<PathBuf> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fault(&self, verb: Verb) -> Option<Fault> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).take(verb)
    }

    pub(crate) fn note(&self, seen: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// Changes objects, and tells whoever watches.
    pub(crate) fn change<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let outcome = work(&mut store);
        self.changed.send_replace(store.version());
        outcome
    }
}

/// The stand-in.
#[derive(Debug)]
pub struct KubeApi {
    identity: Identity,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl KubeApi {
    /// One without objects that does not listen yet; its keys, token and kubeconfig are in `dir`.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn new(dir: &Path) -> Result<Self> {
        let identity = Identity::open(dir)?;
        let shared = Arc::new(Shared {
            token: identity.token.clone(),
            store: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            dial: Mutex::default(),
            execute: Mutex::default(),
            log: Mutex::default(),
            changed: watch::Sender::new(0),
            hang_up: broadcast::channel(1).0,
        });
        Ok(Self { identity, shared, running: None })
    }

    /// Serves on a listener, which may be of any network namespace.
    ///
    /// # Errors
    /// When it runs already, or the listener cannot be used.
    pub fn start(&mut self, listener: TcpListener) -> Result<()> {
        anyhow::ensure!(self.running.is_none(), "the stand-in runs already");
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let tls = self.identity.server(address)?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("kube-api".to_owned()).spawn(move || {
            runtime.block_on(async {
                // A listener that cannot be used is seen by the clients.
                if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                    server::run(listener, tls, shared, stopped).await;
                }
            });
        })?;
        self.running = Some(Running { address, stop, thread });
        Ok(())
    }

    /// Closes everything, as if the process were killed.
    ///
    /// # Errors
    /// When it has panicked.
    pub fn stop(&mut self) -> Result<()> {
        let Some(Running { stop, thread, .. }) = self.running.take() else { return Ok(()) };
        stop.send_replace(true);
        thread.join().map_err(|_| anyhow!("the stand-in has panicked"))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.running.as_ref().context("the stand-in does not run")?.address)
    }

    /// The file that tells a client where it is and how to be let in.
    pub fn kubeconfig(&self) -> PathBuf {
        self.identity.kubeconfig()
    }

    /// Creates an object or replaces it; its kind says where it belongs.
    ///
    /// # Errors
    /// When it is no object that is served.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let kind = object.get("kind").and_then(Value::as_str).context("an object needs a kind")?;
        let resource = Resource::of_kind(kind).with_context(|| format!("{kind} is not served"))?;
        let put = self.shared.change(|store| store.put(resource, object.clone()));
        put.map_err(|refusal| anyhow!(refusal.message))
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn patch(&self, resource: Resource, namespace: &str, name: &str, changes: &Value) -> Result<Value> {
        let place = place(namespace, name);
        let patched = self.shared.change(|store| {
            let mut object = store.get(resource, &place)?.clone();
            patch::apply(&mut object, changes, Style::Merge);
            Some(store.put(resource, object))
        });
        patched.with_context(|| format!("no {namespace}/{name}"))?.map_err(|refusal| anyhow!(refusal.message))
    }

    /// Deletes an object; that it is not there is no error.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) {
        self.shared.change(|store| store.remove(resource, &place(namespace, name), false));
    }

    /// Deletes an object without a word to whoever watches.
    pub fn delete_silently(&self, resource: Resource, namespace: &str, name: &str) {
        self.shared.change(|store| store.remove(resource, &place(namespace, name), true));
    }

    /// An object as it is.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        self.shared.store().get(resource, &place(namespace, name)).cloned()
    }

    /// An annotation of an object as it is.
    pub fn annotation(&self, resource: Resource, namespace: &str, name: &str, key: &str) -> Option<String> {
        let object = self.get(resource, namespace, name)?;
        let annotations = object.pointer("/metadata/annotations")?;
        Some(annotations.get(key)?.as_str()?.to_owned())
    }

    /// Forwards ports of pods from now on, with connections that `dial` makes of a pod's namespace and name and of the port. It may block.
    pub fn carry(&self, dial: impl Fn(&str, &str, u16) -> io::Result<TcpStream> + Send + Sync + 'static) {
        *self.shared.dial.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(dial));
    }

    /// Runs commands of pods from now on, by `execute` with a pod's namespace and name and the words. It may block.
    pub fn run_commands(
        &self,
        execute: impl Fn(&str, &str, &[String]) -> io::Result<Output> + Send + Sync + 'static,
    ) {
        *self.shared.execute.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(execute));
    }

    /// Shows a file as the log of every pod from now on.
    pub fn show_log(&self, file: &Path) {
        *self.shared.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.to_owned());
    }

    /// The next `times` requests of a verb (those of [`Seen`]) meet a fault.
    ///
    /// # Errors
    /// When there is no such verb.
    pub fn fail(&self, verb: &str, fault: Fault, times: usize) -> Result<()> {
        let verb = Verb::named(verb).with_context(|| format!("{verb} is no verb"))?;
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).add(verb, fault, times);
        Ok(())
    }

    /// Takes back all faults that have not been met.
    pub fn behave(&self) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets all that happened until now: watches from versions before are told `410 Gone`.
    pub fn compact(&self) {
        self.shared.change(Store::compact);
    }

    /// Ends all watches.
    pub fn hang_up(&self) {
        // Nobody may be watching.
        let _ = self.shared.hang_up.send(());
    }

    /// What was asked of it, from the beginning.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        // A panic in there has been told by its thread.
        let _ = self.stop();
    }
}

fn place(namespace: &str, name: &str) -> Place {
    (namespace.to_owned(), name.to_owned())
}
