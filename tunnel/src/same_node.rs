//! Connections between two pods of one agent, without TLS and HTTP/2: opt-in, [`SameNode::Direct`].
//!
//! The bytes take the way of a tunnel, from pod to pod and to the HBONE port, so that whoever watches or filters the
//! node's network sees the same flow. What a tunnel would prove with certificates and say in a CONNECT request passes inside
//! the process: who dials leaves an [`Offer`] with the pod that is dialled, under the two ends of the very socket, and
//! who accepts there looks for it before speaking TLS.
//!
//! Invariants:
//! - A connection that this process did not make is TLS or nothing. To be taken for one it would need both ends of a
//!   socket of ours while an offer waits, and 32 random bytes that only the offer and that socket have seen.
//! - An offer is taken once, and only by the pod it was left with; when who dialled gives up it is gone.
//! - The application's bytes are held back until the other end has said, inside the process, that it has them.
//! - What does not come about falls back to HBONE, once, and is not tried again for a while. A refusal by the other end
//!   is none of that: it is final, as the status of a CONNECT is.

mod arrive;
mod dial;
mod offers;
mod pauses;

pub(crate) use arrive::{DirectRequest, serve};
pub(crate) use dial::{Made, Wanted, make};
pub(crate) use offers::Offers;
#[cfg(test)]
pub(crate) use offers::Taken;
pub(crate) use pauses::Pauses;

/// How two pods of one agent are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SameNode {
    /// As any two pods: in a tunnel.
    #[default]
    Hbone,
    /// Over plain TCP to the same port, vouched for by the agent that has both ends.
    Direct,
}

/// What the client's end sends first: words that are no TLS record, so that a TLS server that gets them by mistake answers
/// with an alert at once, and then the offer's token.
const GREETING: &[u8; 16] = b"culvert-direct/1";
