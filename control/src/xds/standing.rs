//! How the client stands with the control plane, for whoever asks: whether there is a stream and since when, how the last one ended, and
//! what it said last to what came of each type.
//!
//! Invariant: a look and a note copy a few words under a lock that is held for nothing else, so neither holds the other up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::kind::Kind;

/// Longest reason that is kept, in characters.
const LONGEST: usize = 512;

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where the control plane is looked for.
    pub address: String,
    /// Since when there is a stream, if there is one.
    pub connected: Option<SystemTime>,
    /// How the last stream, or the last attempt to have one, ended.
    pub ended: Option<Told>,
    /// Each type that is subscribed to, in the order of [`Kind::ALL`].
    pub types: Vec<TypeStanding>,
}

/// Something that was said, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: SystemTime,
    /// What, in words; 512 characters of it at most.
    pub why: String,
}

/// How it stands with one type of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStanding {
    /// Which.
    pub kind: Kind,
    /// Resources that are held.
    pub held: usize,
    /// When a response was last accepted as a whole.
    pub accepted: Option<SystemTime>,
    /// When something in a response was last refused, and why.
    pub refused: Option<Told>,
}

/// Where it is noted down. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Ledger(Arc<Mutex<Standing>>);

impl Ledger {
    pub(super) fn new(address: String) -> Self {
        let none = |kind| TypeStanding { kind, held: 0, accepted: None, refused: None };
        let types = Kind::ALL.map(none).to_vec();
        Self(Arc::new(Mutex::new(Standing { address, connected: None, ended: None, types })))
    }

    /// A stream stands.
    pub(super) fn connected(&self) {
        self.lock().connected = Some(SystemTime::now());
    }

    /// There is none any more, or none came about.
    pub(super) fn ended(&self, why: &str) {
        let told = Told::now(why);
        let mut standing = self.lock();
        standing.connected = None;
        standing.ended = Some(told);
    }

    /// A response was taken over, but for what was `refused` of it; so many resources of its type are held now.
    pub(super) fn answered(&self, kind: Kind, refused: Option<&str>, held: usize) {
        let refused = refused.map(Told::now);
        let mut standing = self.lock();
        let Some(of_kind) = standing.types.iter_mut().find(|of| of.kind == kind) else { return };
        of_kind.held = held;
        match refused {
            Some(told) => of_kind.refused = Some(told),
            None => of_kind.accepted = Some(SystemTime::now()),
        }
    }

    /// How it stands now.
    pub(super) fn look(&self) -> Standing {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn now(why: &str) -> Self {
        Self { at: SystemTime::now(), why: why.chars().take(LONGEST).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_own_answers_and_the_last_ones_stay() {
        let ledger = Ledger::new("https://istiod:15012".to_owned());
        ledger.connected();
        ledger.answered(Kind::Address, None, 3);
        ledger.answered(Kind::Authorization, Some("demo/bad: it has no rules"), 1);
        ledger.answered(Kind::Authorization, None, 2);
        let standing = ledger.look();
        assert!(standing.connected.is_some() && standing.ended.is_none());
        let [address, policies] = standing.types.as_slice() else { panic!("{standing:?}") };
        assert_eq!((address.held, policies.held), (3, 2));
        assert!(address.refused.is_none() && address.accepted.is_some() && policies.accepted.is_some());
        assert_eq!(policies.refused.as_ref().unwrap().why, "demo/bad: it has no rules");
        ledger.ended(&"é".repeat(2 * LONGEST));
        let standing = ledger.look();
        assert!(standing.connected.is_none());
        assert_eq!(standing.ended.unwrap().why.chars().count(), LONGEST);
        assert_eq!(standing.types[0].held, 3, "what is known stays in force");
    }
}
