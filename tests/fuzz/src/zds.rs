//! What an istio-cni says.

use std::fs::File;
use std::os::fd::OwnedFd;

use protocols::zds::{MessageError, Request};

/// The first byte says how many descriptors come along; the rest is the message.
///
/// # Panics
/// When something does not hold, or there is no `/dev/null`.
pub fn zds_messages(data: &[u8]) {
    let Some((first, message)) = data.split_first() else { return };
    let count = usize::from(first % 4);
    let null = File::open("/dev/null").unwrap_or_else(|error| panic!("/dev/null: {error}"));
    let descriptor = || null.try_clone().map(OwnedFd::from);
    let descriptors = (0..count).map(|_| descriptor()).collect::<Result<Vec<_>, _>>();
    let descriptors = descriptors.unwrap_or_else(|error| panic!("/dev/null: {error}"));
    match Request::decode(message, descriptors) {
        Ok(Request::Add { uid, info, netns }) => {
            assert_eq!(count, 1, "a pod has one namespace");
            assert!(!uid.is_empty() && !info.name.is_empty() && !info.namespace.is_empty());
            drop(netns);
        }
        Ok(Request::Keep { uid } | Request::Del { uid }) => assert!(count == 0 && !uid.is_empty()),
        Ok(Request::SnapshotSent) => assert_eq!(count, 0),
        Err(MessageError::Descriptors { found, expected }) => assert!(found == count && found != expected),
        Err(error) => assert_told(&error.to_string()),
    }
    // The answer to whatever went wrong is read by the other side, which reads no more than a message of it.
    let text = String::from_utf8_lossy(message);
    let answer = protocols::zds::answer(Err(text.into_owned()));
    assert!(answer.len() <= protocols::zds::LONGEST);
}

fn assert_told(why: &str) {
    assert!(!why.is_empty() && why.len() < 8192, "{why}");
}
