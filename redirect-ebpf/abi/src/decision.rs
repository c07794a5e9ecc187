//! What the programs decide, for counters and metrics.

/// What became of a call of a pod's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Decision {
    /// TCP: to the agent.
    Captured = 0,
    /// TCP: the agent's own, left alone.
    Agent = 1,
    /// TCP: to the pod itself, by a loopback address or one of its own; left alone.
    Loopback = 2,
    /// TCP: refused, for no agent listens in the pod.
    RefusedWithoutAgent = 3,
    /// TCP: refused, for an IPv6 link-local destination cannot be captured.
    RefusedLinkLocal = 4,
    /// TCP: refused, for the kernel would not set the mark or unbind the device.
    RefusedUnmarkable = 5,
    /// DNS: to the agent.
    DnsSteered = 6,
    /// DNS: straight to the resolver.
    DnsLeftAlone = 7,
}

impl Decision {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Captured,
        Self::Agent,
        Self::Loopback,
        Self::RefusedWithoutAgent,
        Self::RefusedLinkLocal,
        Self::RefusedUnmarkable,
        Self::DnsSteered,
        Self::DnsLeftAlone,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Agent => "agent",
            Self::Loopback => "loopback",
            Self::RefusedWithoutAgent => "refused_without_agent",
            Self::RefusedLinkLocal => "refused_link_local",
            Self::RefusedUnmarkable => "refused_unmarkable",
            Self::DnsSteered => "dns_steered",
            Self::DnsLeftAlone => "dns_left_alone",
        }
    }
}

/// A counter's place: a pod and a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DecisionKey {
    cookie: u64,
    decision: u32,
    pad: u32,
}

const _: () = assert!(core::mem::size_of::<DecisionKey>() == 16);

impl DecisionKey {
    /// Of the pod with this namespace cookie.
    #[inline(always)]
    pub const fn new(cookie: u64, decision: Decision) -> Self {
        Self { cookie, decision: decision as u32, pad: 0 }
    }
}

/// What `steer` did with a connection that was delivered in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Steering {
    /// To the outbound listener.
    Outbound = 0,
    /// To the HBONE listener.
    Hbone = 1,
    /// To the plaintext listener.
    Plaintext = 2,
    /// Of the kubelet: to the application.
    Probe = 3,
    /// Of the agent or the pod itself: to the application.
    Own = 4,
    /// To the application, for the pod has it so.
    Bypassed = 5,
    /// Refused, for the agent does not listen.
    Dropped = 6,
}

impl Steering {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Outbound, Self::Hbone, Self::Plaintext, Self::Probe, Self::Own, Self::Bypassed, Self::Dropped];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "steered_outbound",
            Self::Hbone => "steered_hbone",
            Self::Plaintext => "steered_plaintext",
            Self::Probe => "probe",
            Self::Own => "own",
            Self::Bypassed => "bypassed",
            Self::Dropped => "dropped_without_agent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        assert!(Decision::ALL.iter().enumerate().all(|(place, decision)| place == *decision as usize));
        assert!(Steering::ALL.iter().enumerate().all(|(place, steering)| place == *steering as usize));
    }
}
