//! Messages on the wire: what a packet asks, and answers to it.
//!
//! Invariant: whatever a packet holds, it is either dropped, answered, or passed on as it came; an answer echoes the question
//! byte for byte, since some resolvers check the case of each letter, and is never longer than the client can take.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

use super::host::Host;
use super::resolve::{Answer, Data};

/// For how long an answer of the mesh is good, in seconds; also that there is nothing.
const TTL: u32 = 30;
/// What a client without EDNS takes over UDP (RFC 1035 §2.3.4).
const PLAIN_UDP: usize = 512;
/// The largest answer of the mesh over UDP, which no path breaks into fragments.
const MAX_UDP: u16 = 1232;
/// The one version of EDNS that there is (RFC 6891).
const EDNS_VERSION: u8 = 0;
/// Of the header, which is all that is needed to answer that the rest makes no sense.
pub(super) const HEADER: usize = 12;
/// A record with the shortest data, whose name is a pointer to the question's.
const SMALLEST_RECORD: usize = 16;
/// What the owner of a zone is called in its SOA record.
const CONTACT: &str = "hostmaster";
/// Times of the SOA record that secondary servers would go by, in seconds.
const REFRESH: i32 = 7200;
const RETRY: i32 = 1800;
const EXPIRE: i32 = 86_400;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, after its length (RFC 7766 §8).
    Tcp,
}

/// What a packet is.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Nothing that is to be answered: too short, or an answer itself.
    Noise,
    /// Something other than one question about the internet: an update, a notification. It is for the resolver.
    Foreign,
    /// A question that cannot be read, with the answer that says so.
    Malformed(Vec<u8>),
    /// A question.
    Question(Box<Question>),
}

/// One question.
#[derive(Debug)]
pub(crate) struct Question {
    message: Message,
    query: Query,
    transport: Transport,
}

/// Reads a packet.
pub(crate) fn read(packet: &[u8], transport: Transport) -> Incoming {
    let Some(&[id0, id1, flags, _, questions0, questions1, ..]) = packet.first_chunk::<HEADER>() else {
        return Incoming::Noise;
    };
    // QR, then four bits of the opcode.
    if flags & 0x80 != 0 {
        return Incoming::Noise;
    }
    if flags & 0x78 != 0 || [questions0, questions1] != [0, 1] {
        return Incoming::Foreign;
    }
    let Ok(mut message) = Message::from_vec(packet) else {
        let mut answer = Message::response(u16::from_be_bytes([id0, id1]), OpCode::Query);
        answer.metadata.recursion_desired = flags & 1 != 0;
        answer.metadata.response_code = ResponseCode::FormErr;
        return answer.to_vec().map_or(Incoming::Noise, Incoming::Malformed);
    };
    match message.queries.pop() {
        Some(query) if query.query_class == DNSClass::IN => {
            Incoming::Question(Box::new(Question { message, query, transport }))
        }
        _ => Incoming::Foreign,
    }
}

impl Question {
    /// The name that is asked for.
    pub(crate) fn name(&self) -> &Name {
        &self.query.name
    }

    /// The type of record.
    pub(crate) fn kind(&self) -> RecordType {
        self.query.query_type
    }

    /// Whether it speaks a version of EDNS that is not known.
    pub(crate) fn is_of_the_future(&self) -> bool {
        self.message.edns.as_ref().is_some_and(|edns| edns.version() != EDNS_VERSION)
    }

    /// An answer without records.
    pub(crate) fn error(&self, code: ResponseCode) -> Option<Vec<u8>> {
        let mut message = self.blank();
        message.metadata.response_code = code;
        message.to_vec().ok()
    }

    /// What the mesh says. None where a name came out too long for the wire.
    pub(crate) fn answer(&self, answer: &Answer) -> Option<Vec<u8>> {
        let mut message = self.blank();
        message.metadata.authoritative = true;
        let mut owner = self.query.name.clone();
        if let Some(alias) = &answer.alias {
            let target = alias.name()?;
            message.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
            owner = target;
        }
        for data in &answer.data {
            message.add_answer(Record::from_rdata(owner.clone(), TTL, rdata(data)?));
        }
        for (host, address) in &answer.glue {
            message.add_additional(Record::from_rdata(host.name()?, TTL, address_data(*address)));
        }
        if answer.data.is_empty() {
            message.add_authority(authority(&answer.zone)?);
        }
        self.fit(message)
    }

    /// That there is nothing of this type at a name that there is.
    pub(crate) fn no_data(&self, zone: &Host) -> Option<Vec<u8>> {
        self.answer(&Answer { alias: None, data: Vec::new(), glue: Vec::new(), zone: zone.clone() })
    }

    /// The beginning of every answer: header, question, and EDNS if the client speaks that (RFC 6891 §7).
    fn blank(&self) -> Message {
        let asked = &self.message.metadata;
        let mut message = Message::new(asked.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = asked.recursion_desired;
        message.metadata.checking_disabled = asked.checking_disabled;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        if let Some(asked) = &self.message.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP).set_version(EDNS_VERSION);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            message.set_edns(edns);
        }
        message
    }

    /// How long an answer may be.
    fn limit(&self) -> usize {
        match (self.transport, &self.message.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_UDP,
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().min(MAX_UDP)).max(PLAIN_UDP),
        }
    }

    /// The message without what the client cannot take: first the additional records go, then answers, and then it says so.
    /// As many answers as fit are left, for clients that never ask again over TCP.
    fn fit(&self, mut message: Message) -> Option<Vec<u8>> {
        let limit = self.limit();
        let mut bytes = message.to_vec().ok()?;
        if is_too_long(&message, &bytes, limit) {
            message.additionals.clear();
            bytes = message.to_vec().ok()?;
        }
        if is_too_long(&message, &bytes, limit) {
            message.metadata.truncation = self.transport == Transport::Udp;
            message.answers.truncate(limit / SMALLEST_RECORD);
            bytes = message.to_vec().ok()?;
        }
        while is_too_long(&message, &bytes, limit) && !message.answers.is_empty() {
            let count = message.answers.len();
            // Records are of about one size, so this takes a step or two. Where not even the size is known, a few more.
            let excess = match bytes.len().checked_sub(limit) {
                Some(excess) if excess > 0 => (excess * count / bytes.len()).max(1),
                _ => count.div_ceil(16),
            };
            message.answers.truncate(count - excess);
            bytes = message.to_vec().ok()?;
        }
        (!is_too_long(&message, &bytes, limit)).then_some(bytes)
    }
}

/// Whether an encoded message is longer than it may be, or so long that the encoder left something out by itself.
fn is_too_long(message: &Message, bytes: &[u8], limit: usize) -> bool {
    bytes.len() > limit || is_truncated(bytes) && !message.metadata.truncation
}

/// Whether `reply` is an answer to `query`, as far as the two show.
pub(crate) fn is_answer(reply: &[u8], query: &[u8]) -> bool {
    let (Some(reply_header), Some(query_header)) =
        (reply.first_chunk::<HEADER>(), query.first_chunk::<HEADER>())
    else {
        return false;
    };
    let opcode = |header: &[u8; HEADER]| header[2] & 0x78;
    if reply_header[..2] != query_header[..2]
        || reply_header[2] & 0x80 == 0
        || opcode(reply_header) != opcode(query_header)
    {
        return false;
    }
    // A resolver that did not understand the question may leave it out.
    if reply_header[4..6] == [0, 0] || query_header[4..6] != [0, 1] || reply_header[4..6] != [0, 1] {
        return true;
    }
    question_bytes(query).is_none_or(|asked| {
        reply.get(HEADER..HEADER + asked.len()).is_some_and(|echoed| echoed.eq_ignore_ascii_case(asked))
    })
}

/// The first question as it is on the wire.
fn question_bytes(packet: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    loop {
        match usize::from(*packet.get(end)?) {
            0 => break,
            length if length < 64 => end += 1 + length,
            // A pointer has nothing to point back to.
            _ => return None,
        }
    }
    // The root, type and class.
    packet.get(HEADER..end + 5)
}

/// Whether a message says that it was cut short.
pub(crate) fn is_truncated(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// Whether a resolver says that there is no such name.
pub(crate) fn is_no_such_name(packet: &[u8]) -> bool {
    packet.get(3).is_some_and(|flags| flags & 0x0f == ResponseCode::NXDomain.low())
}

/// A failure for a packet that was not read: its header, turned round.
pub(crate) fn failure(packet: &[u8]) -> Option<Vec<u8>> {
    let mut header = *packet.first_chunk::<HEADER>()?;
    header[2] = (header[2] & 0x79) | 0x80;
    header[3] = ResponseCode::ServFail.low();
    header[4..].fill(0);
    Some(header.to_vec())
}

fn rdata(data: &Data) -> Option<RData> {
    Some(match data {
        Data::Address(address) => address_data(*address),
        Data::Port { port, weight, target } => RData::SRV(SRV::new(0, *weight, *port, target.name()?)),
    })
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// What lets a client keep in mind that there is nothing (RFC 2308 §3).
fn authority(zone: &Host) -> Option<Record> {
    let zone = zone.name()?;
    let contact = zone.prepend_label(CONTACT).unwrap_or_else(|_| zone.clone());
    let soa = SOA::new(zone.clone(), contact, 1, REFRESH, RETRY, EXPIRE, TTL);
    Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
}
