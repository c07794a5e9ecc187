//! How recorded streams ended, and what that means to us.

use tonic::{Code, Status};

use super::super::ending::Ending;

/// The status at the end of a recording.
fn closed(recording: &str) -> Ending {
    let lines = recordings::conversation(&format!("istiod/{recording}")).unwrap();
    let closed = lines.into_iter().find_map(|line| line.closed).unwrap();
    let code = match closed.code.as_str() {
        "UNAUTHENTICATED" => Code::Unauthenticated,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "UNAVAILABLE" => Code::Unavailable,
        other => panic!("{other}"),
    };
    Ending::failed(Status::new(code, closed.message))
}

#[test]
fn refusals_are_errors_that_say_what_to_do() {
    for (recording, told) in [
        ("refused_no_token", "check the token"),
        ("refused_bad_token", "check the token"),
        ("refused_namespace", "check that the agent's namespace"),
        ("refused_node_id", "check the agent's own name"),
    ] {
        let ending = closed(recording);
        assert_eq!((ending.is_expected(), ending.reason()), (false, "Error"));
        assert!(ending.to_string().contains(told), "{ending}");
    }
}

#[test]
fn age_and_a_stop_are_to_be_expected() {
    for recording in ["ended_by_age", "ended_by_restart"] {
        let ending = closed(recording);
        assert_eq!((ending.is_expected(), ending.reason()), (true, "Reconnect"), "{ending}");
    }
    assert_eq!(Ending::Complete.reason(), "Complete");
    for lost in [Code::Unknown, Code::Cancelled, Code::DeadlineExceeded] {
        let lost = Ending::failed(Status::new(lost, "connection reset by peer"));
        assert_eq!((lost.is_expected(), lost.reason()), (false, "Reconnect"), "it is told, but no error");
    }
    let refused = Ending::refused(Status::unauthenticated("authentication failure"));
    assert_eq!((refused.is_expected(), refused.reason()), (false, "ConnectionError"));
    assert!(refused.to_string().contains("check the token"), "{refused}");
    let other = Ending::failed(Status::unavailable("no healthy upstream"));
    assert_eq!((other.is_expected(), other.reason()), (false, "Error"));
}
