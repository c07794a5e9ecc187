//! An eBPF classifier on the way out of an interface, for kernels without links for that (before 6.6): a filter of a clsact
//! qdisc, which is the kernel's place for such filters and queues nothing.
//!
//! The filter has a place of its own (preference and handle), so that ours is told from others and replaced in one step.

use std::os::fd::{AsFd, AsRawFd as _};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::NetlinkError;
use super::exchange::Exchange;
use crate::netns::Netns;

/// `ETH_P_ALL` of `linux/if_ether.h`, in network byte order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
const CLSACT: &str = "clsact";

/// The filters that a packet meets on its way out.
const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
/// The same on its way in.
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };

/// Where a filter is among those of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The lower the sooner; above 0.
    pub preference: u16,
    /// Tells filters of the same preference apart.
    pub handle: u32,
}

/// A filter on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Where it is.
    pub place: Place,
    /// The kernel's number of its program, if it is an eBPF one.
    pub program: Option<u32>,
}

/// Speaks with the kernel about the filters of one namespace.
#[derive(Debug)]
pub struct Filters {
    exchange: Exchange,
}

impl Filters {
    /// Of a namespace.
    pub fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        Ok(Self { exchange: Exchange::open(netns)? })
    }

    /// Gives an interface its clsact qdisc; whether it had none. Fails with `ENOENT` where the kernel has no such qdisc.
    pub fn add_qdisc(&mut self, interface: u32) -> Result<bool, NetlinkError> {
        let order = RouteNetlinkMessage::NewQueueDiscipline(qdisc(interface));
        let added = self.exchange.change("add a clsact qdisc", order, NLM_F_CREATE | NLM_F_EXCL);
        match added {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Puts a program at a place on the way out, instead of the one that is there.
    pub fn set(
        &mut self,
        interface: u32,
        place: Place,
        name: &str,
        program: &impl AsFd,
    ) -> Result<(), NetlinkError> {
        let mut message = filter(interface, EGRESS, place);
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd().unsigned_abs())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        let order = RouteNetlinkMessage::NewTrafficFilter(message);
        self.exchange.change("add an eBPF classifier", order, NLM_F_CREATE)
    }

    /// The filters on the way out of an interface, in the order in which packets meet them; none where it has no such qdisc.
    pub fn on_egress(&mut self, interface: u32) -> Result<Vec<Filter>, NetlinkError> {
        self.list(interface, EGRESS)
    }

    /// Removes the filter at a place on the way out; one that is not there is fine.
    pub fn remove(&mut self, interface: u32, place: Place) -> Result<(), NetlinkError> {
        let order = RouteNetlinkMessage::DelTrafficFilter(filter(interface, EGRESS, place));
        absent_is_fine(self.exchange.change("remove an eBPF classifier", order, 0))
    }

    /// Removes the clsact qdisc of an interface if no filter is on it, on either way.
    pub fn remove_empty_qdisc(&mut self, interface: u32) -> Result<(), NetlinkError> {
        for side in [EGRESS, INGRESS] {
            if !self.list(interface, side)?.is_empty() {
                return Ok(());
            }
        }
        let order = RouteNetlinkMessage::DelQueueDiscipline(qdisc(interface));
        absent_is_fine(self.exchange.change("remove a clsact qdisc", order, 0))
    }

    fn list(&mut self, interface: u32, side: TcHandle) -> Result<Vec<Filter>, NetlinkError> {
        let mut question = TcMessage::with_index(interface.cast_signed());
        question.header.parent = side;
        let listed = self.exchange.list("list filters", RouteNetlinkMessage::GetTrafficFilter(question))?;
        let of_message = |message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => of_filter(&message),
            _ => None,
        };
        Ok(listed.into_iter().filter_map(of_message).collect())
    }
}

fn absent_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        // Without the qdisc EINVAL, without the interface ENODEV.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

fn qdisc(interface: u32) -> TcMessage {
    let mut message = TcMessage::with_index(interface.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

fn filter(interface: u32, side: TcHandle, place: Place) -> TcMessage {
    let mut message = TcMessage::with_index(interface.cast_signed());
    message.header.parent = side;
    message.header.handle = TcHandle::from(place.handle);
    message.header.info = u32::from(place.preference) << 16 | ALL_PROTOCOLS;
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn of_filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    // The kernel also lists each preference by itself, without a handle.
    if handle == 0 {
        return None;
    }
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    });
    // The upper half is the preference.
    let preference = u16::try_from(message.header.info >> 16).unwrap_or_default();
    Some(Filter { place: Place { preference, handle }, program })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: u32 = 1;
    const PLACE: Place = Place { preference: 1, handle: 0xc17 };

    #[test]
    fn a_qdisc_comes_once_and_goes_when_it_is_empty() {
        let netns = Netns::create().expect("this test needs root");
        let mut filters = Filters::open(&netns).unwrap();
        assert!(filters.on_egress(LOOPBACK).unwrap().is_empty());
        assert!(filters.add_qdisc(LOOPBACK).unwrap());
        assert!(!filters.add_qdisc(LOOPBACK).unwrap());
        filters.remove(LOOPBACK, PLACE).unwrap();
        filters.remove_empty_qdisc(LOOPBACK).unwrap();
        assert!(filters.add_qdisc(LOOPBACK).unwrap(), "the empty qdisc was to go");
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        let netns = Netns::create().expect("this test needs root");
        let mut filters = Filters::open(&netns).unwrap();
        filters.remove(LOOPBACK, PLACE).unwrap();
        filters.remove_empty_qdisc(LOOPBACK).unwrap();
        filters.remove(7, PLACE).unwrap();
    }
}
