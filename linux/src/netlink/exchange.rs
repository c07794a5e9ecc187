//! Questions to the kernel's routing, one after the other on one socket, without a runtime: an inspection asks half a dozen
//! of them for each pod every few seconds.

use std::io;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{NetlinkError, kernel};
use crate::netns::Netns;
use crate::sockopt;

/// The kernel fills at most this much of an answer's datagram (`NLMSG_GOODSIZE` is a page, dumps take up to 32 KiB).
const BUFFER: usize = 32 * 1024;
/// The kernel answers within the call; this only keeps a defect from hanging a thread.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A netlink socket in one namespace.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Exchange {
    /// Opens one in `netns`; the thread need not stay there.
    pub(super) fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        Ok(netns.run(Self::here)??)
    }

    fn here() -> io::Result<Self> {
        let kind = Type::RAW.cloexec();
        let socket =
            Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        // So that a listing of one table's routes is that, and not one of all tables.
        sockopt::set_netlink_strict(&socket)?;
        Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 0 })
    }

    /// Asks for a list.
    pub(super) fn list(
        &mut self,
        operation: &'static str,
        question: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.send(question, NLM_F_DUMP)?;
        self.receive(operation, true)
    }

    /// Has something changed, `flags` being `NLM_F_CREATE` and the like.
    pub(super) fn change(
        &mut self,
        operation: &'static str,
        order: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.send(order, NLM_F_ACK | flags)?;
        self.receive(operation, false).map(drop)
    }

    /// Asks for one thing.
    pub(super) fn one(
        &mut self,
        operation: &'static str,
        question: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        self.send(question, NLM_F_ACK)?;
        Ok(self.receive(operation, true)?.pop())
    }

    fn send(&mut self, question: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes)?;
        Ok(())
    }

    /// Everything up to the end of the answer; that what was asked for is not there may be an answer.
    fn receive(
        &mut self,
        operation: &'static str,
        absent_is_fine: bool,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        use std::io::Read as _;
        let mut found = Vec::new();
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages are aligned to four bytes (netlink(7)); the last one's padding may be cut off.
                let taken = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(taken..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    // An error of zero is the acknowledgement.
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(found),
                    // A table that has never had a route is not there.
                    NetlinkPayload::Error(error) if absent_is_fine && error.raw_code() == -libc::ENOENT => {
                        return Ok(found);
                    }
                    NetlinkPayload::Error(error) => {
                        return Err(kernel(operation)(rtnetlink::Error::NetlinkError(error)));
                    }
                    _ => {}
                }
            }
        }
    }
}
