//! Messages of the peers' protocol, `istio.workload.zds` version 1: one protobuf a datagram.
//!
//! Invariant: a request has a meaning, the descriptor that belongs to it, and no other; what has not is an error that says what
//! is wrong, and is answered with it.

use std::os::fd::OwnedFd;

use prost::Message as _;
use thiserror::Error;

/// The longest message, in bytes, in both directions.
pub const LONGEST: usize = 1024;
/// What the other side reads of an error.
const LONGEST_ERROR: usize = 512;
/// `Version.V1`.
const V1: i32 = 1;

/// Who a pod is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WorkloadInfo {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its Kubernetes namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its service account.
    #[prost(string, tag = "3")]
    pub service_account: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(int32, tag = "1")]
    version: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OnWire {
    #[prost(oneof = "Payload", tags = "1, 2, 3, 5")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Payload {
    #[prost(message, tag = "1")]
    Add(Add),
    #[prost(message, tag = "2")]
    Del(Del),
    #[prost(message, tag = "3")]
    SnapshotSent(SnapshotSent),
    #[prost(message, tag = "5")]
    Keep(Keep),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Add {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(message, optional, tag = "2")]
    workload_info: Option<WorkloadInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Del {
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Keep {
    #[prost(string, tag = "1")]
    uid: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct SnapshotSent {}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    ack: Option<Ack>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ack {
    #[prost(string, tag = "1")]
    error: String,
}

/// What the other side asks for.
#[derive(Debug)]
pub enum Request {
    /// Serve a pod in this network namespace.
    Add {
        /// The pod's uid.
        uid: String,
        /// Who it is.
        info: WorkloadInfo,
        /// Its network namespace.
        netns: OwnedFd,
    },
    /// Go on serving a pod.
    Keep {
        /// The pod's uid.
        uid: String,
    },
    /// Stop serving a pod.
    Del {
        /// The pod's uid.
        uid: String,
    },
    /// All pods that there are have been named.
    SnapshotSent,
}

/// A message that cannot be used.
#[derive(Debug, Error)]
pub enum MessageError {
    /// No message of this protocol.
    #[error("not a message of ZDS: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Nothing in it that is known.
    #[error("a request of a kind that this agent does not know; is istio-cni of a much later release?")]
    Unknown,
    /// It has no uid.
    #[error("a request without the pod's uid")]
    Nameless,
    /// An Add without saying who the pod is.
    #[error("the request to add pod {uid} does not say its name and namespace")]
    WithoutInfo {
        /// The pod.
        uid: String,
    },
    /// Not as many descriptors as belong to it.
    #[error("a request with {found} descriptors where {expected} belongs to it")]
    Descriptors {
        /// How many there were.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

/// The first thing that is said.
pub fn hello() -> Vec<u8> {
    Hello { version: V1 }.encode_to_vec()
}

/// The answer to a request: nothing, or what went wrong.
pub fn answer(outcome: Result<(), String>) -> Vec<u8> {
    let mut error = outcome.err().unwrap_or_default();
    if error.len() > LONGEST_ERROR {
        let end = (0..=LONGEST_ERROR).rev().find(|end| error.is_char_boundary(*end)).unwrap_or_default();
        error.truncate(end);
    }
    Response { ack: Some(Ack { error }) }.encode_to_vec()
}

impl Request {
    /// Reads a request and takes what came with it.
    ///
    /// # Errors
    /// A [`MessageError`] that says what is wrong.
    pub fn decode(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<Self, MessageError> {
        let payload = OnWire::decode(bytes)?.payload.ok_or(MessageError::Unknown)?;
        let found = descriptors.len();
        let expected = usize::from(matches!(payload, Payload::Add(_)));
        let mut descriptors = descriptors.into_iter();
        let (netns, surplus) = (descriptors.next(), descriptors.next());
        let wrong = MessageError::Descriptors { found, expected };
        match (payload, netns, surplus) {
            (Payload::Add(Add { uid, workload_info }), Some(netns), None) => {
                let uid = named(uid)?;
                match workload_info.filter(|info| !info.name.is_empty() && !info.namespace.is_empty()) {
                    Some(info) => Ok(Self::Add { uid, info, netns }),
                    None => Err(MessageError::WithoutInfo { uid }),
                }
            }
            (Payload::Keep(Keep { uid }), None, _) => Ok(Self::Keep { uid: named(uid)? }),
            (Payload::Del(Del { uid }), None, _) => Ok(Self::Del { uid: named(uid)? }),
            (Payload::SnapshotSent(_), None, _) => Ok(Self::SnapshotSent),
            _ => Err(wrong),
        }
    }
}

fn named(uid: String) -> Result<String, MessageError> {
    if uid.is_empty() { Err(MessageError::Nameless) } else { Ok(uid) }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    const UID: &str = "dcc2c630-dec9-4869-8dcf-5594a478cf78";

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// Recorded of a real istio-cni.
    fn recorded(text: &str, descriptors: usize) -> Result<Request, MessageError> {
        let bytes = BASE64_STANDARD.decode(text).unwrap();
        Request::decode(&bytes, (0..descriptors).map(|_| descriptor()).collect())
    }

    const ADD: &str =
        "CkAKJGRjYzJjNjMwLWRlYzktNDg2OS04ZGNmLTU1OTRhNDc4Y2Y3OBIYCgVzbGVlcBIIYm9va2luZm8aBXNsZWVw";
    const KEEP: &str = "KiYKJGRjYzJjNjMwLWRlYzktNDg2OS04ZGNmLTU1OTRhNDc4Y2Y3OA==";
    const DEL: &str = "EiYSJGRjYzJjNjMwLWRlYzktNDg2OS04ZGNmLTU1OTRhNDc4Y2Y3OA==";
    const SNAPSHOT_SENT: &str = "GgA=";

    #[test]
    fn what_istio_cni_says_is_understood() {
        let Ok(Request::Add { uid, info, .. }) = recorded(ADD, 1) else { panic!("no Add") };
        assert_eq!(uid, UID);
        let expected = ("sleep", "bookinfo", "sleep");
        assert_eq!((info.name.as_str(), info.namespace.as_str(), info.service_account.as_str()), expected);
        assert!(matches!(recorded(KEEP, 0), Ok(Request::Keep { uid }) if uid == UID));
        assert!(matches!(recorded(DEL, 0), Ok(Request::Del { uid }) if uid == UID));
        assert!(matches!(recorded(SNAPSHOT_SENT, 0), Ok(Request::SnapshotSent)));
    }

    /// What was recorded, of which nothing is left out.
    fn messages() -> Vec<(Vec<u8>, usize)> {
        let said = recordings::zds::conversation().unwrap().into_iter();
        said.filter(|message| message.received.is_some())
            .map(|it| (it.raw, it.descriptors.unwrap()))
            .collect()
    }

    fn read(bytes: &[u8], descriptors: usize) -> Result<String, MessageError> {
        let read = Request::decode(bytes, (0..descriptors).map(|_| descriptor()).collect())?;
        Ok(match read {
            Request::Add { uid, info, .. } => format!("Add {uid} {info:?}"),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn what_is_cut_is_never_a_request() {
        for (message, descriptors) in messages() {
            for end in 0..message.len() {
                let cut = message.get(..end).unwrap();
                assert!(read(cut, descriptors).is_err(), "{cut:?}");
            }
        }
    }

    #[test]
    fn what_is_new_in_a_request_changes_nothing() {
        // A number, bytes, eight and four bytes.
        const NEW: [u8; 19] =
            [0xc0, 0x3e, 7, 0xca, 0x3e, 1, b'n', 0xd1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8, 0xc0, 0x3e];
        for (message, descriptors) in messages() {
            let more = [message.as_slice(), &NEW, &[9]].concat();
            assert_eq!(read(&more, descriptors).unwrap(), read(&message, descriptors).unwrap());
            // And inside, whose length is in one byte.
            let [tag, length, inside @ ..] = message.as_slice() else { panic!("{message:?}") };
            let length = length + u8::try_from(NEW.len()).unwrap() + 1;
            let more = [&[*tag, length][..], inside, &NEW, &[9]].concat();
            assert_eq!(read(&more, descriptors).unwrap(), read(&message, descriptors).unwrap());
        }
    }

    #[test]
    fn what_is_said_to_it_is_what_the_peers_say() {
        assert_eq!(BASE64_STANDARD.encode(hello()), "CAE=");
        assert_eq!(BASE64_STANDARD.encode(answer(Ok(()))), "CgA=");
        let told = Response::decode(answer(Err("é".repeat(600))).as_slice()).unwrap().ack.unwrap().error;
        assert!(told.len() <= LONGEST_ERROR && told.chars().all(|c| c == 'é'));
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_that_says_what_is_wrong() {
        for (text, descriptors, told) in [
            (ADD, 0, "0 descriptors where 1"),
            (ADD, 2, "2 descriptors where 1"),
            (KEEP, 1, "1 descriptors where 0"),
            ("", 0, "does not know"),
            ("CgA=", 1, "uid"),
            ("CgMKAWE=", 1, "does not say its name"),
            ("/w==", 0, "not a message of ZDS"),
        ] {
            let error = recorded(text, descriptors).unwrap_err().to_string();
            assert!(error.contains(told), "{text} with {descriptors}: {error}");
        }
    }
}
