//! Bad weather on an interface: the kernel's `netem` queueing discipline (tc-netem(8)), for tests. It goes with the interface.

use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};

use super::NetlinkError;
use super::exchange::Exchange;
use crate::netns::Netns;

const KIND: &str = "netem";
/// Numbers of `linux/rtnetlink.h` and `linux/pkt_sched.h`.
const TCA_OPTIONS: u16 = 2;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
/// Packets that wait at most.
const LIMIT: u32 = 1000;
/// Shares are of so many packets.
const MILLION: u64 = 1_000_000;

/// What becomes of packets on their way out. Shares are of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// How long each takes longer.
    pub delay: Duration,
    /// By how much that differs, in both directions.
    pub jitter: Duration,
    /// Do not arrive.
    pub lost: u32,
    /// Arrive twice.
    pub doubled: u32,
    /// Overtake those that are delayed.
    pub reordered: u32,
    /// Have a bit turned.
    pub corrupted: u32,
}

/// Has it from now on, on an interface that has none yet. Fails with `ENOENT` where the kernel has no netem.
pub fn set(netns: &Netns, interface: &str, weather: Weather) -> Result<(), NetlinkError> {
    const OPERATION: &str = "add a netem qdisc";
    let index = netns.run(|| if_nametoindex(interface))?.map_err(std::io::Error::from)?;
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options(weather))));
    let order = RouteNetlinkMessage::NewQueueDiscipline(message);
    Exchange::open(netns)?.change(OPERATION, order, NLM_F_CREATE | NLM_F_EXCL)
}

/// `struct tc_netem_qopt`, and after it what has found no place in it.
fn options(weather: Weather) -> Vec<u8> {
    let Weather { delay, jitter, lost, doubled, reordered, corrupted } = weather;
    // Of each pair of packets the second may overtake.
    let gap = u32::from(reordered > 0);
    // Delay and jitter are told below, in a unit that does not depend on the kernel's clock.
    let words = [0, LIMIT, probability(lost), gap, probability(doubled), 0];
    let mut bytes = words.map(u32::to_ne_bytes).concat();
    let pair = |share| [probability(share), 0].map(u32::to_ne_bytes).concat();
    let nanoseconds =
        |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX).to_ne_bytes().to_vec();
    for (kind, value) in [
        (TCA_NETEM_REORDER, pair(reordered)),
        (TCA_NETEM_CORRUPT, pair(corrupted)),
        (TCA_NETEM_LATENCY64, nanoseconds(delay)),
        (TCA_NETEM_JITTER64, nanoseconds(jitter)),
    ] {
        // Each is 12 bytes long, with its head.
        bytes.extend(u16::try_from(value.len() + 4).unwrap_or_default().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    }
    bytes
}

/// As the kernel takes it: of all numbers of 32 bits.
fn probability(share: u32) -> u32 {
    let of_all = u64::from(share).min(MILLION) * u64::from(u32::MAX) / MILLION;
    u32::try_from(of_all).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_of_all_numbers() {
        assert_eq!(
            [0, 500_000, 1_000_000, 2_000_000].map(probability),
            [0, u32::MAX / 2, u32::MAX, u32::MAX]
        );
    }

    #[test]
    fn the_options_are_those_that_tc_sends() {
        let weather = Weather {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(2),
            lost: 20_000,
            doubled: 10_000,
            reordered: 50_000,
            corrupted: 1_000,
        };
        let bytes = options(weather);
        assert_eq!(bytes.len(), 24 + 4 * 12);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!([word(0), word(4), word(12), word(20)], [0, 1000, 1, 0]);
        assert_eq!([word(8), word(16)], [probability(20_000), probability(10_000)]);
        assert_eq!(i64::from_ne_bytes(bytes[52..60].try_into().unwrap()), 5_000_000);
    }
}
