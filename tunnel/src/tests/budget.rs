//! What a connection may cost in memory while it idles. Raising a budget is a decision, not an accident.

/// The size of what an async function keeps, without running it.
fn kept<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_connections_task_is_small() {
    for (name, size, budget) in [
        // What is known of its limits and of the tunnel that it shares is 350 bytes of it.
        ("outbound", kept(crate::outbound::serve), 4352),
        ("plaintext", kept(crate::plaintext::serve), 4096),
        // What is read ahead of TLS is described by 32 bytes of it; the bytes themselves are a buffer that is lent. Where its streams are
        // served are 16, and that a few requests are taken a turn 24. That a peer which is
        // asked is heard meanwhile 32, and whom it comes from 24.
        ("inbound tunnel", kept(crate::inbound::serve), 5504),
        // The timer of its limits, and what they look at, are 250 bytes of it.
        ("inbound client", kept(crate::inbound::Arrival::connect), 4352),
        ("record", size_of::<crate::telemetry::Record>(), 1024),
    ] {
        assert!(size <= budget, "{name}: {size} bytes, {budget} allowed");
    }
}
