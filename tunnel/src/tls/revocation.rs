//! Certificates that were revoked: the lists in force, and the live sessions that are judged anew when they change.
//!
//! Each certificate of a peer's chain is looked for in the list of its issuer, if there is one; who issued no list has
//! revoked nothing. Invariants: a list counts only if the issuer's key has signed it; of several by issuers of one name
//! each is asked by itself, so that a list of another key silences none; a list past its time goes on counting, for what was
//! revoked stays so. A session is in the table before it is judged last, so that a change meets it either way.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::future::{self, BoxFuture, Either};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio::sync::watch;
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::sync::{AtomicU64, Mutex, MutexGuard};

/// A list that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("list {number} of revoked certificates cannot be read: {reason}")]
pub struct RevocationError {
    /// Which of those given, from 1.
    pub number: usize,
    /// Why.
    pub reason: String,
}

/// What a peer was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// The chain that a peer has shown, and the roots that it was judged by.
#[derive(Debug, Clone)]
pub(super) struct Shown<'a> {
    pub(super) side: Side,
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
    pub(super) roots: &'a RootCertStore,
    pub(super) when: UnixTime,
}

/// The lists in force and the live sessions.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    /// Nothing where certificates cannot be revoked: then no session is kept account of.
    lists: Mutex<Option<Arc<Lists>>>,
    next: AtomicU64,
    sessions: Mutex<HashMap<u64, Arc<Held>>>,
}

#[derive(Debug)]
struct Lists(Vec<CertRevocationList<'static>>);

/// What is kept of a session to judge it by.
#[derive(Debug)]
struct Held {
    side: Side,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    when: UnixTime,
    revoked: watch::Sender<bool>,
}

/// A live session with a proven peer; leaves the table when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    table: Arc<Revocations>,
    number: u64,
    held: Arc<Held>,
    /// The session that this one is inside of.
    outer: Option<Arc<Session>>,
}

impl Revocations {
    /// Puts these lists in the place of those in force, and tells how many live sessions that ends.
    ///
    /// # Errors
    /// A [`RevocationError`] if one of them cannot be read; then those in force stay.
    pub(crate) fn replace(
        &self,
        lists: &[CertificateRevocationListDer<'_>],
    ) -> Result<usize, RevocationError> {
        let lists = Arc::new(Lists::read(lists)?);
        *self.lists() = Some(Arc::clone(&lists));
        let live: Vec<Arc<Held>> = self.sessions().values().cloned().collect();
        let ended = live.iter().filter(|held| held.judge(&lists)).count();
        Ok(ended)
    }

    /// Whether a peer's chain holds a certificate that was revoked.
    pub(super) fn revoke(&self, shown: &Shown<'_>) -> bool {
        let lists = self.lists().clone();
        lists.is_some_and(|lists| lists.revoke(shown))
    }

    /// Keeps account of a session, if certificates can be revoked; `outer` is the one that it is inside of.
    pub(super) fn enter(
        self: &Arc<Self>,
        shown: &Shown<'_>,
        roots: &Arc<RootCertStore>,
        outer: Option<Arc<Session>>,
    ) -> Option<Arc<Session>> {
        self.lists().as_ref()?;
        let chain = std::iter::once(shown.leaf).chain(shown.others).map(|der| der.clone().into_owned());
        let held = Arc::new(Held {
            side: shown.side,
            chain: chain.collect(),
            roots: Arc::clone(roots),
            when: shown.when,
            revoked: watch::Sender::new(false),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.sessions().insert(number, Arc::clone(&held));
        let lists = self.lists().clone();
        if let Some(lists) = lists {
            held.judge(&lists);
        }
        Some(Arc::new(Session { table: Arc::clone(self), number, held, outer }))
    }

    /// How many sessions there are.
    #[cfg(all(test, feature = "schedules"))]
    pub(super) fn live(&self) -> usize {
        self.sessions().len()
    }

    fn lists(&self) -> MutexGuard<'_, Option<Arc<Lists>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Arc<Held>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn read(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, RevocationError> {
        let read = |(n, list): (usize, &CertificateRevocationListDer<'_>)| {
            let owned = OwnedCertRevocationList::from_der(list);
            owned
                .map(CertRevocationList::from)
                .map_err(|error| RevocationError { number: n + 1, reason: error.to_string() })
        };
        lists.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn revoke(&self, shown: &Shown<'_>) -> bool {
        let Ok(leaf) = EndEntityCert::try_from(shown.leaf) else { return false };
        let issuer = |der| EndEntityCert::try_from(der).ok().map(|parsed| parsed.issuer().to_vec());
        let mut issuers: Vec<Vec<u8>> = shown.others.iter().filter_map(issuer).collect();
        issuers.push(leaf.issuer().to_vec());
        let concerned = self.0.iter().filter(|list| issuers.iter().any(|issuer| issuer == list.issuer()));
        concerned.into_iter().any(|list| {
            let lists = [list];
            let Ok(options) = RevocationOptionsBuilder::new(&lists) else { return false };
            let options = options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build();
            let usage = match shown.side {
                Side::Client => KeyUsage::client_auth(),
                Side::Server => KeyUsage::server_auth(),
            };
            let (roots, when) = (&shown.roots.roots, shown.when);
            let judged = leaf.verify_for_usage(
                ALL_VERIFICATION_ALGS,
                roots,
                shown.others,
                when,
                usage,
                Some(options),
                None,
            );
            matches!(judged, Err(webpki::Error::CertRevoked))
        })
    }
}

impl Held {
    /// Whether these lists have come to revoke it; then its users are told.
    fn judge(&self, lists: &Lists) -> bool {
        let Some((leaf, others)) = self.chain.split_first() else { return false };
        // As of its handshake: that a certificate has ended since does not end its sessions.
        let shown = Shown { side: self.side, leaf, others, roots: &self.roots, when: self.when };
        let revoked = lists.revoke(&shown);
        revoked && !self.revoked.send_replace(true)
    }
}

impl Session {
    /// Whether a certificate of the peer, or of the peer of the session around it, has come to be revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        *self.held.revoked.borrow() || self.outer.as_deref().is_some_and(Self::is_revoked)
    }

    /// Completes when a certificate of the peer, or of the peer of the session around it, has come to be revoked.
    pub(crate) async fn revoked(&self) {
        let own = |session: &Self| session.held.revoked.subscribe();
        let mut receivers = vec![own(self)];
        let mut next = self.outer.as_deref();
        while let Some(outer) = next {
            receivers.push(own(outer));
            next = outer.outer.as_deref();
        }
        // The senders live as long as the sessions do.
        let each = receivers.iter_mut().map(|one| Box::pin(one.wait_for(|revoked| *revoked)));
        let _ = future::select_all(each).await;
    }
}

/// The same for what may be no session, or none that is kept account of; that is never revoked. Boxed where there is one:
/// few connections wait for it, and all would make room.
pub(crate) fn revoked(session: Option<Arc<Session>>) -> Either<future::Pending<()>, BoxFuture<'static, ()>> {
    match session {
        Some(session) => Either::Right(Box::pin(async move { session.revoked().await })),
        None => Either::Left(future::pending()),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.table.sessions().remove(&self.number);
    }
}
