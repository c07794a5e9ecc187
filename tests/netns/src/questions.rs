//! DNS messages of the tests' own: a question that no mesh can answer, and an answer to it.

use anyhow::Result;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A question about the text of a name that no mesh knows.
pub fn question(label: &str) -> Result<Vec<u8>> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{label}.unknown.test."))?, RecordType::TXT));
    Ok(message.to_vec()?)
}

/// The answer to a question, with this text; none to what is no question.
pub fn reply(asked: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(asked).ok()?.into_response();
    let name = message.queries.first()?.name.clone();
    message.add_answer(Record::from_rdata(name, 5, RData::TXT(TXT::new(vec![text.to_owned()]))));
    message.to_vec().ok()
}
