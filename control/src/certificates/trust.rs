//! The roots that the certificates of all identities are trusted by: one set for the node.
//!
//! Each answer of the authority brings all roots of the mesh. Invariants: a root that an answer brings is trusted from
//! then on for every identity; one that a newer answer lacks is trusted for a grace more, in which the certificates that it
//! has signed are replaced, and then no longer.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

/// A set of roots.
pub(super) type Roots = Vec<CertificateDer<'static>>;

/// What is trusted now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bundle {
    /// What the newest answer holds.
    pub(super) current: Roots,
    /// That, and what has left lately.
    pub(super) trusted: Roots,
}

/// The roots and since when they are gone.
#[derive(Debug)]
pub(super) struct Trust {
    grace: Duration,
    /// What has left, and until when it is trusted.
    leaving: Mutex<Vec<(CertificateDer<'static>, Instant)>>,
    bundle: watch::Sender<Arc<Bundle>>,
}

impl Trust {
    pub(super) fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Self { grace, leaving: Mutex::default(), bundle: watch::Sender::default() })
    }

    /// Tells of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
    }

    pub(super) fn bundle(&self) -> Arc<Bundle> {
        Arc::clone(&self.bundle.borrow())
    }

    /// Takes the roots of an answer over. Must be called within a tokio runtime.
    pub(super) fn learn(self: &Arc<Self>, roots: &[CertificateDer<'static>]) -> Arc<Bundle> {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.bundle();
        if old.current.len() == roots.len() && roots.iter().all(|root| old.current.contains(root)) {
            return old;
        }
        let end = Instant::now() + self.grace;
        leaving.retain(|(root, _)| !roots.contains(root));
        let left = old.current.iter().filter(|root| !roots.contains(root));
        leaving.extend(left.map(|root| (root.clone(), end)));
        if !old.current.is_empty() {
            info!(now = roots.len(), leaving = leaving.len(), "the mesh has other roots of trust");
        }
        if !leaving.is_empty() {
            tokio::spawn(sweep_at(Arc::downgrade(self), end));
        }
        self.publish(roots.to_vec(), &leaving)
    }

    /// Drops what has been gone for long enough.
    fn sweep(&self) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let count = leaving.len();
        leaving.retain(|(_, end)| *end > Instant::now());
        if leaving.len() < count {
            info!(dropped = count - leaving.len(), "roots of trust that had left are not trusted any more");
            self.publish(self.bundle().current.clone(), &leaving);
        }
    }

    fn publish(&self, current: Roots, leaving: &[(CertificateDer<'static>, Instant)]) -> Arc<Bundle> {
        let mut trusted = current.clone();
        trusted.extend(leaving.iter().map(|(root, _)| root.clone()));
        let bundle = Arc::new(Bundle { current, trusted });
        self.bundle.send_replace(Arc::clone(&bundle));
        bundle
    }
}

async fn sweep_at(trust: Weak<Trust>, end: Instant) {
    tokio::time::sleep_until(end).await;
    if let Some(trust) = trust.upgrade() {
        trust.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: u8) -> CertificateDer<'static> {
        CertificateDer::from(vec![name])
    }

    fn names(roots: &Roots) -> Vec<u8> {
        roots.iter().map(|root| root[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_root_that_left_is_trusted_for_the_grace() {
        let trust = Trust::new(Duration::from_secs(60));
        let mut changes = trust.subscribe();
        for (brought, trusted) in [
            (vec![1], vec![1]),
            (vec![1, 2], vec![1, 2]),
            (vec![2], vec![2, 1]),
            // Two authorities that do not agree yet.
            (vec![1, 2], vec![1, 2]),
            (vec![2], vec![2, 1]),
        ] {
            let roots: Roots = brought.iter().copied().map(root).collect();
            let bundle = trust.learn(&roots);
            assert_eq!((names(&bundle.current), names(&bundle.trusted)), (brought, trusted));
            assert!(changes.has_changed().unwrap());
            changes.mark_unchanged();
        }
        trust.learn(&[root(2)]);
        assert!(!changes.has_changed().unwrap(), "nothing new");
        tokio::time::advance(Duration::from_secs(59)).await;
        tokio::task::yield_now().await;
        assert_eq!(names(&trust.bundle().trusted), [2, 1]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(names(&trust.bundle().trusted), [2]);
        assert!(changes.has_changed().unwrap());
    }

    #[tokio::test]
    async fn the_order_of_roots_says_nothing() {
        let trust = Trust::new(Duration::ZERO);
        let first = trust.learn(&[root(1), root(2)]);
        assert!(Arc::ptr_eq(&first, &trust.learn(&[root(2), root(1)])));
    }
}
