//! What becomes of one packet: a pure function of its bytes and of who sent it.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::find::Asker;
use super::host::Host;
use super::message::{self, Incoming, Question, Transport};
use super::resolve::Resolution;

/// The label of packets whose question has no type that metrics should name.
const OTHER: &str = "other";

/// What is to be done with a packet.
#[derive(Debug)]
pub(crate) struct Handled {
    /// The type of record that is asked for, in lower case.
    pub(crate) kind: String,
    /// What follows.
    pub(crate) action: Action,
}

/// What follows from a packet.
#[derive(Debug)]
pub(crate) enum Action {
    /// Nothing.
    Drop,
    /// An answer.
    Reply(Vec<u8>),
    /// It goes to the resolver that the application asked.
    Forward(Forward),
}

/// A packet that the resolver is to answer.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Its question, if it is one that could be read.
    question: Option<Box<Question>>,
    /// The zone of its name, if the mesh knows that.
    known: Option<Host>,
}

/// Decides.
pub(crate) fn handle(asker: &Asker<'_>, packet: &[u8], transport: Transport) -> Handled {
    let question = match message::read(packet, transport) {
        Incoming::Noise => return Handled { kind: OTHER.to_owned(), action: Action::Drop },
        Incoming::Malformed(reply) => {
            return Handled { kind: OTHER.to_owned(), action: Action::Reply(reply) };
        }
        Incoming::Foreign => {
            let forward = Forward { question: None, known: None };
            return Handled { kind: OTHER.to_owned(), action: Action::Forward(forward) };
        }
        Incoming::Question(question) => question,
    };
    let kind = label(&question);
    let resolution = match Host::of(question.name()) {
        Some(host) => asker.resolve(&host, question.kind()),
        None => Resolution::Forward { known: None },
    };
    let action = match resolution {
        Resolution::Forward { known } => Action::Forward(Forward { question: Some(question), known }),
        Resolution::Answer(answer) => {
            let reply = if question.is_of_the_future() {
                question.error(ResponseCode::BADVERS)
            } else {
                question.answer(&answer).or_else(|| question.error(ResponseCode::ServFail))
            };
            reply.map_or(Action::Drop, Action::Reply)
        }
    };
    Handled { kind, action }
}

impl Forward {
    /// What the client gets for the resolver's `reply`: that very reply, but for one case. If the resolver knows no name that the
    /// mesh knows, the client must not learn that there is none.
    pub(crate) fn pass_on(&self, reply: Vec<u8>) -> Vec<u8> {
        match (&self.question, &self.known) {
            (Some(question), Some(zone)) if message::is_no_such_name(&reply) => {
                question.no_data(zone).unwrap_or(reply)
            }
            _ => reply,
        }
    }

    /// What the client gets when the resolver says nothing.
    pub(crate) fn failed(&self, packet: &[u8]) -> Option<Vec<u8>> {
        match &self.question {
            Some(question) => question.error(ResponseCode::ServFail),
            None => message::failure(packet),
        }
    }
}

/// The type of record as metrics name it: types without a name are one, or there would be 65,536.
fn label(question: &Question) -> String {
    match question.kind() {
        RecordType::Unknown(_) => OTHER.to_owned(),
        kind => kind.to_string().to_ascii_lowercase(),
    }
}
