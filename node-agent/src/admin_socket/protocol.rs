//! What the agent answers the command line: to one request of [`protocols::admin`], answers up to [`Answer::End`], one JSON
//! message a datagram (`SOCK_SEQPACKET`).
//!
//! Both sides state a version and refuse another one; unknown fields are ignored so that fields can be added. One answer is
//! one pod, so that no node is too large for a message.

use std::io;

use protocols::admin::check_version;
pub(crate) use protocols::admin::{
    Command, MAX_MESSAGE, PolicyQuestion, ProtocolError, Request, TraceQuestion, VERSION,
};
pub(crate) use protocols::levels::LevelChange;
use redirect::Report;
use serde::{Deserialize, Serialize};

use crate::enrollment::PodSight;

pub(crate) use super::certificates::CertificateRow;
pub(crate) use super::connections::ConnectionRow;
pub(crate) use super::pods::PodRow;
pub(crate) use super::status::{CertificatesView, ControlPlaneView, PastView, StatusView};
#[cfg(test)]
pub(crate) use super::status::{KnownView, MeshFileView, TypeView};
pub(crate) use super::times::ConnectTimesRow;
pub(crate) use super::trace::{SourceView, WayView};
pub(crate) use super::verdict::VerdictView;
pub(crate) use crate::events::Event;

/// One part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// The node's half of capture.
    Node {
        /// Line by line.
        lines: Vec<LineView>,
    },
    /// One pod.
    Pod(PodView),
    /// The agent in short.
    Status(Box<StatusView>),
    /// One pod in short.
    PodRow(PodRow),
    /// One connection.
    Connection(ConnectionRow),
    /// One certificate.
    Certificate(CertificateRow),
    /// Something that has happened.
    Event(Event),
    /// Who would connect.
    Source(SourceView),
    /// One way that a connection may go.
    Way(Box<WayView>),
    /// What policy says.
    Verdict(VerdictView),
    /// How long one workload's connections took.
    ConnectTimes(ConnectTimesRow),
    /// What is logged.
    Levels {
        /// In the words of the filter.
        levels: String,
    },
    /// A piece of a long text.
    Piece {
        /// What follows on the piece before.
        text: String,
    },
    /// So many of what was asked for are not told.
    LeftOut {
        /// How many.
        count: usize,
    },
    /// There is no more.
    End,
    /// The question was understood, and there is no answer to it.
    Refused {
        /// Why.
        why: String,
    },
    /// The request was not understood.
    Failed {
        /// Why.
        message: String,
    },
}

/// A pod as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodView {
    /// `namespace/name`.
    pub(crate) pod: String,
    /// `enrolled`, `degraded`, `pending`.
    pub(crate) state: String,
    /// What is the matter with the pod, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Every part of its capture.
    pub(crate) lines: Vec<LineView>,
}

/// A part of capture as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineView {
    /// Kind of part, as in the metrics.
    pub(crate) part: String,
    /// Which one.
    pub(crate) name: String,
    /// Is it as it should be?
    pub(crate) ok: bool,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// What is not wrong, but worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    #[serde(flatten)]
    message: T,
}

impl Answer {
    /// The bytes to send. What is too long for a message is told to be so.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let bytes = serde_json::to_vec(&Envelope { version: VERSION, message: self })?;
        if bytes.len() <= MAX_MESSAGE {
            return Ok(bytes);
        }
        let why = format!("a part of the answer is longer than {MAX_MESSAGE} bytes");
        Ok(serde_json::to_vec(&Envelope { version: VERSION, message: Self::Refused { why } })?)
    }

    /// Reads an answer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        check_version(bytes)?;
        Ok(serde_json::from_slice::<Envelope<Self>>(bytes)?.message)
    }
}

impl LineView {
    /// Of each line of an inspection.
    pub(crate) fn of(report: &Report) -> Vec<Self> {
        let view = |line: &redirect::Line| Self {
            part: line.part.as_str().to_owned(),
            name: line.name.clone(),
            ok: line.problem.is_none(),
            problem: line.problem.as_ref().map(|problem| problem.what.clone()),
            note: line.note.as_ref().map(|note| note.what.clone()),
            remedy: line.problem.as_ref().or(line.note.as_ref()).map(|problem| problem.remedy.clone()),
        };
        report.lines.iter().map(view).collect()
    }
}

impl PodView {
    /// Of a pod that was looked at.
    pub(crate) fn of(sight: &PodSight) -> Self {
        Self {
            pod: sight.pod.to_string(),
            state: sight.state.as_str().to_owned(),
            why: sight.state.why().map(str::to_owned),
            lines: LineView::of(&sight.report),
        }
    }

    /// Is nothing the matter with it?
    pub(crate) fn is_whole(&self) -> bool {
        self.state == "enrolled" && self.lines.iter().all(|line| line.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent_and_other_versions_are_refused() {
        let request = Request::new(Command::Verify, Some("a/b".into()));
        assert_eq!(Request::decode(&request.encode().unwrap()).unwrap(), request);
        let line = LineView {
            part: "rule".into(),
            name: "ip rule, IPv4".into(),
            ok: false,
            problem: Some("it is gone".into()),
            note: None,
            remedy: Some("add it".into()),
        };
        let pod =
            PodView { pod: "a/b".into(), state: "degraded".into(), why: None, lines: vec![line.clone()] };
        assert!(!pod.is_whole());
        for answer in [
            Answer::Node { lines: vec![line] },
            Answer::Pod(pod),
            Answer::Status(Box::default()),
            Answer::End,
            Answer::Failed { message: "why".into() },
        ] {
            assert_eq!(Answer::decode(&answer.encode().unwrap()).unwrap(), answer);
        }
        assert!(matches!(Request::decode(b"{\"version\":2}"), Err(ProtocolError::Version(2))));
        assert!(matches!(Answer::decode(b"garbage"), Err(ProtocolError::Malformed(_))));
    }
}
