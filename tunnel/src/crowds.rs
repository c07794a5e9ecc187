//! Whose tunnels to a pod bring so many connections that they are to be served beside the others.
//!
//! A tunnel stays with the worker that it was dealt to. One that turns out to bring a crowd is told to go (GOAWAY, RFC 9113 section 6.8: what it
//! carries is served to its end), and the next that comes from the same address is dealt to a worker for crowds.
//!
//! Invariant: only tunnels whose client is proven are remembered, and none for long.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For so long after its last crowd an address is remembered.
const MEMORY: Duration = Duration::from_secs(10);

/// The addresses that crowds come from.
#[derive(Debug, Default)]
pub(crate) struct Crowds(Mutex<HashMap<IpAddr, Instant>>);

impl Crowds {
    /// A crowd comes from this address.
    pub(crate) fn note(&self, source: IpAddr, now: Instant) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.insert(source.to_canonical(), now).is_none() {
            sources.retain(|_, noted| is_remembered(*noted, now));
        }
    }

    /// Whether one has come from there lately.
    pub(crate) fn come_from(&self, source: IpAddr, now: Instant) -> bool {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(&source.to_canonical()).is_some_and(|noted| is_remembered(*noted, now))
    }
}

fn is_remembered(noted: Instant, now: Instant) -> bool {
    now.saturating_duration_since(noted) < MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_remembered_for_a_while_in_either_form() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        let [one, mapped, other] =
            ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        assert!(!crowds.come_from(one, now));
        crowds.note(mapped, now);
        assert!(crowds.come_from(one, now) && crowds.come_from(mapped, now + MEMORY / 2));
        assert!(!crowds.come_from(other, now) && !crowds.come_from(one, now + MEMORY));
        crowds.note(one, now + MEMORY / 2);
        assert!(crowds.come_from(one, now + MEMORY), "it came again");
    }

    #[test]
    fn what_is_forgotten_takes_no_room() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        for number in 0..100 {
            crowds.note(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        crowds.note("10.0.0.1".parse().unwrap(), now + MEMORY);
        assert_eq!(crowds.0.lock().unwrap().len(), 1);
    }
}
