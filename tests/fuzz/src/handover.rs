//! What two agents say to each other at an upgrade.

use std::fmt::Debug;

use protocols::handover::{self, Answer, Ask, MessageError, Taken};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Each kind of message. One is never another, of which the conversation's order depends.
///
/// # Panics
/// When something does not hold.
pub fn handover_messages(data: &[u8]) {
    let read = [read::<Ask>(data), read::<Answer>(data), read::<Taken>(data)];
    let answer = read[1];
    assert!(!answer || !(read[0] || read[2]), "an answer is no question");
}

/// Whether it is a message of a kind, which is then written as it was read.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> bool {
    match handover::decode::<T>(data) {
        Ok(message) => {
            let written = handover::encode(&message).unwrap_or_else(|error| panic!("{error}: {message:?}"));
            assert_eq!(handover::decode::<T>(&written).ok().as_ref(), Some(&message));
            true
        }
        Err(MessageError::Version(found)) => {
            assert_ne!(found, handover::VERSION);
            false
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
