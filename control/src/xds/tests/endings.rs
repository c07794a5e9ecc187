//! How recorded streams ended, and what that means to us.

use tonic::{Code, Status};

use super::super::ending::Ending;

/// The status at the end of a recording.
fn closed(recording: &str) -> Ending {
    let line = recording.lines().find(|line| line.contains("\"closed\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |field: &str| line["closed"][field].as_str().unwrap().to_owned();
    let code = match text("code").as_str() {
        "UNAUTHENTICATED" => Code::Unauthenticated,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "UNAVAILABLE" => Code::Unavailable,
        other => panic!("{other}"),
    };
    Ending::failed(Status::new(code, text("message")))
}

#[test]
fn refusals_are_errors_that_say_what_to_do() {
    for (recording, told) in [
        (include_str!("../../../tests/recorded/refused_no_token.jsonl"), "check the token"),
        (include_str!("../../../tests/recorded/refused_bad_token.jsonl"), "check the token"),
        (include_str!("../../../tests/recorded/refused_namespace.jsonl"), "check that the agent's namespace"),
        (include_str!("../../../tests/recorded/refused_node_id.jsonl"), "check the agent's own name"),
    ] {
        let ending = closed(recording);
        assert_eq!((ending.is_expected(), ending.reason()), (false, "Error"));
        assert!(ending.to_string().contains(told), "{ending}");
    }
}

#[test]
fn age_and_a_stop_are_to_be_expected() {
    for recording in [
        include_str!("../../../tests/recorded/ended_by_age.jsonl"),
        include_str!("../../../tests/recorded/ended_by_restart.jsonl"),
    ] {
        let ending = closed(recording);
        assert_eq!((ending.is_expected(), ending.reason()), (true, "Reconnect"), "{ending}");
    }
    assert_eq!(Ending::Complete.reason(), "Complete");
    let other = Ending::failed(Status::unavailable("no healthy upstream"));
    assert_eq!((other.is_expected(), other.reason()), (false, "Error"));
}
