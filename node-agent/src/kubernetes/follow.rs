//! One kind of object, listed and then watched, for ever.
//!
//! Every end of a watch is followed by the next one from where it ended, and by a new list where that is not known any more (`410 Gone`).
//! Besides, everything is listed anew every now and then, so that no event that was lost stays lost. A failure is followed by a wait
//! that doubles, with jitter.

use std::fmt::{Debug, Display};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff::{Backoff, jittered};
use super::metrics::{Failed, KubernetesMetrics};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// How long the next object of a list may take. Watches have a limit of their own, which the library keeps.
const LISTING: Duration = Duration::from_secs(30);
/// A watch that says nothing at all for so long is dead, whatever the library thinks: it lasts 290 s at most.
const WATCHING: Duration = Duration::from_secs(330);

/// What is followed, and how.
pub(super) struct Followed {
    /// For logs and metrics.
    pub(super) what: &'static str,
    /// How often everything is listed anew.
    pub(super) resync: Duration,
    /// Counters.
    pub(super) metrics: KubernetesMetrics,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<T> {
    /// It is new, or as it is now.
    Applied(T),
    /// It is gone.
    Deleted(T),
    /// These are all there are.
    Replaced(Vec<T>),
}

impl<T> Change<T> {
    /// With something else in it. What becomes nothing is left out, and nothing has happened if that is all.
    pub(super) fn filter_map<U>(self, mut read: impl FnMut(T) -> Option<U>) -> Option<Change<U>> {
        match self {
            Self::Applied(one) => read(one).map(Change::Applied),
            Self::Deleted(one) => read(one).map(Change::Deleted),
            Self::Replaced(all) => Some(Change::Replaced(all.into_iter().filter_map(read).collect())),
        }
    }
}

/// Where the following of a kind stands.
enum State<K> {
    /// Objects are being listed; nobody is told of them before all are there.
    Listing(Vec<K>),
    /// Changes come one by one.
    Watching,
}

/// Follows until the process ends.
pub(super) async fn follow<K, F, T>(api: Api<K>, selection: watcher::Config, followed: Followed, tell: F)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Fn(Change<K>) -> T,
    T: Future<Output = ()>,
{
    let mut backoff = Backoff::new(FIRST, LONGEST);
    loop {
        let resync = Instant::now() + jittered(followed.resync);
        // A stream that has begun anew lists first.
        if let Err(error) = follow_once(&api, &selection, resync, &mut backoff, &followed, &tell).await {
            let wait = backoff.wait();
            followed.failed(error, wait);
            sleep(wait).await;
        }
    }
}

/// Lists and watches until it is time to list anew, or until nothing is heard any more.
async fn follow_once<K, F, T>(
    api: &Api<K>,
    selection: &watcher::Config,
    resync: Instant,
    backoff: &mut Backoff,
    followed: &Followed,
    tell: &F,
) -> Result<(), &'static str>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Fn(Change<K>) -> T,
    T: Future<Output = ()>,
{
    let mut events = pin!(watcher(api.clone(), selection.clone()));
    let mut state = State::Listing(Vec::new());
    loop {
        let limit = match state {
            State::Listing(_) => LISTING,
            State::Watching => WATCHING,
        };
        let event = tokio::select! {
            event = timeout(limit, events.next()) => event.map_err(|_| "nothing was heard for too long")?,
            () = sleep_until(resync), if matches!(state, State::Watching) => return Ok(()),
        };
        let change = match event {
            None => return Err("the library has ended"),
            Some(Err(error)) => {
                let wait = backoff.wait();
                followed.failed(error, wait);
                sleep(wait).await;
                continue;
            }
            Some(Ok(Event::Init)) => {
                state = State::Listing(Vec::new());
                continue;
            }
            Some(Ok(Event::InitApply(object))) => {
                if let State::Listing(objects) = &mut state {
                    objects.push(object);
                }
                continue;
            }
            Some(Ok(Event::InitDone)) => match std::mem::replace(&mut state, State::Watching) {
                State::Listing(objects) => Change::Replaced(objects),
                State::Watching => continue,
            },
            Some(Ok(Event::Apply(object))) => Change::Applied(object),
            Some(Ok(Event::Delete(object))) => Change::Deleted(object),
        };
        backoff.reset();
        tell(change).await;
    }
}

impl Followed {
    fn failed(&self, error: impl Display, wait: Duration) {
        let Self { what, .. } = self;
        self.metrics.failures.get_or_create(&Failed { what }).inc();
        tracing::warn!(
            what,
            %error,
            again_in = ?wait,
            "the Kubernetes API does not tell of these; what is known of them stays in force"
        );
    }
}
