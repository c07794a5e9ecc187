//! What plugin and agent say to each other.

use cni::protocol::{MAX_MESSAGE, ProtocolError, Request, Response, VERSION};

/// Both kinds of messages: of this release, and written as they were read.
///
/// # Panics
/// When something does not hold.
pub fn enrol_messages(data: &[u8]) {
    match Request::decode(data) {
        Ok(request) => {
            assert_eq!(request.version, VERSION);
            let written = request.encode();
            if let Ok(written) = &written {
                assert_eq!(Request::decode(written).ok().as_ref(), Some(&request));
            }
            // What is read can be sent on, where there is room to spare.
            assert!(written.is_ok() || data.len() > MAX_MESSAGE / 8);
        }
        Err(error) => told(&error),
    }
    match Response::decode(data) {
        Ok(response) => {
            assert_eq!(response.version, VERSION);
            let written = response.encode();
            if let Ok(written) = &written {
                assert_eq!(Response::decode(written).ok().as_ref(), Some(&response));
            }
            let one = response.outcome.is_some() != response.error.is_some();
            // Neither nor both is never a pod that may start.
            assert_eq!(response.into_result().is_ok(), one);
        }
        Err(error) => told(&error),
    }
}

fn told(error: &ProtocolError) {
    let told = error.to_string();
    assert!(!told.is_empty() && told.len() < 8192, "{told}");
}
