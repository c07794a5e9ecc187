//! Scripts for both ends, made up at random: what they see through our relay is what they see through a plain one.
//!
//! Whatever the sizes of writes, reads and buffers: all that was sent comes, in order, with an end behind it; and where an end
//! resets, the other never takes what came for the whole. The seed is fixed and shown with a failure; `RELAY_SEED` sets another.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::ends::{Begins, End, Script, Seen};
use super::subjects::{Tunnel, plain, reference, tunnelled};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SEED: u64 = 7;
/// The preface of a client has to fit into the connection (RFC 9113 section 3.4): it and the server's SETTINGS are written before
/// either end reads.
const NARROWEST: usize = 24;

/// What the two ends have to see, whoever relays.
fn judge(seen: [Seen; 2], scripts: [&Script; 2], by: &str) {
    let [near, far] = scripts;
    for (seen, own, other) in [(seen[0], near, far), (seen[1], far, near)] {
        let told = format!("{by}: {seen:?}, of {} bytes", other.length());
        assert!(seen.came <= other.length(), "{told}");
        match (own.resets, other.resets) {
            (true, _) => assert_eq!(seen.end, End::Left, "{told}"),
            (false, true) => assert_eq!(seen.end, End::Reset, "{told}"),
            (false, false) => {
                assert_eq!(seen, Seen { end: End::Finished, came: other.length() }, "{told}");
            }
        }
    }
}

fn compare(near: &Script, far: &Script, tunnel: Tunnel) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        judge(reference(near, far).await, [near, far], "the plain relay");
        judge(plain(near, far).await, [near, far], "ours between sockets");
        judge(tunnelled(near, far, tunnel).await, [near, far], "ours with a tunnel");
    });
}

fn script() -> impl Strategy<Value = Script> {
    let burst = (prop_oneof![1..100_usize, 1..20 * KIB, 1..MIB], prop_oneof![1..100_usize, 1..300 * KIB]);
    // A megabyte byte by byte is no other case than a few kilobytes.
    let burst = burst.prop_map(|(bytes, piece)| (bytes.min(piece * 2_000), piece));
    let read = prop_oneof![Just(1_usize), 2..100_usize, 1..300 * KIB];
    let buffer = prop_oneof![Just(None), Just(Some(4 << 10)), Just(Some(64 << 10))];
    (vec(burst, 0..6), any::<bool>(), any::<bool>(), read, any::<bool>(), buffer).prop_map(
        |(bursts, one, another, read, holds, buffer)| {
            // One in four.
            let resets = one && another;
            let begins = if holds { Begins::Resisted } else { Begins::AtOnce };
            Script { bursts, resets, read, begins, buffer }
        },
    )
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let window = prop_oneof![1..2_000_u32, 16_000..100_000_u32, Just(4 << 20)];
    let frame = prop_oneof![Just(1 << 14), Just(1 << 20)];
    let pipe = prop_oneof![NARROWEST..500, NARROWEST..128 * KIB];
    (window, frame, pipe).prop_map(|(window, frame, pipe)| Tunnel { window, frame, pipe })
}

/// A byte at a time through a window of a few bytes is slow and shows nothing that a kilobyte does not.
fn bounded(mut script: Script, tunnel: Tunnel, other_read: usize) -> Script {
    let narrowest = (tunnel.window as usize).min(tunnel.pipe).min(other_read);
    for (bytes, piece) in &mut script.bursts {
        *bytes = (*bytes).min(narrowest.min(*piece).saturating_mul(2_000));
    }
    script
}

#[test]
fn both_ends_see_what_a_plain_relay_shows_them() {
    let seed = std::env::var("RELAY_SEED").ok().map_or(SEED, |seed| seed.parse().expect("RELAY_SEED"));
    println!("RELAY_SEED={seed}");
    let config =
        Config { cases: 60, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(script(), script(), tunnel()), |(near, far, tunnel)| {
        let (near_read, far_read) = (near.read, far.read);
        let (near, far) = (bounded(near, tunnel, far_read), bounded(far, tunnel, near_read));
        compare(&near, &far, tunnel);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("with RELAY_SEED={seed}: {error}"));
}

const WIDE: Tunnel = Tunnel { window: 4 << 20, frame: 1 << 20, pipe: 256 * KIB };

/// The same for a stream that is soon full.
const NARROW: Tunnel = Tunnel { window: 256 << 10, ..WIDE };

fn sends(bytes: usize, piece: usize) -> Script {
    let bursts = if bytes == 0 { Vec::new() } else { vec![(bytes, piece)] };
    Script { bursts, resets: false, read: 64 * KIB, begins: Begins::AtOnce, buffer: None }
}

#[test]
fn sixteen_mebibytes_pass_both_ways_while_nobody_reads_at_first() {
    let burst = Script { begins: Begins::Resisted, ..sends(16 * MIB, MIB) };
    compare(&burst, &burst, WIDE);
}

#[test]
fn back_pressure_of_one_direction_leaves_the_other_alone() {
    // More than the kernel and the windows hold of it.
    let writes = sends(16 * MIB, MIB);
    let reads = Script { begins: Begins::Heard, buffer: Some(64 << 10), ..sends(MIB, KIB) };
    compare(&writes, &reads, NARROW);
    compare(&reads, &writes, NARROW);
}

#[test]
fn a_window_of_a_few_bytes_lets_everything_pass_in_the_end() {
    let narrow = Tunnel { window: 7, frame: 1 << 14, pipe: NARROWEST };
    compare(&sends(5 * KIB, 3 * KIB), &sends(3 * KIB, 100), narrow);
}

#[test]
fn what_is_written_and_read_byte_by_byte_passes() {
    let script = Script { read: 1, ..sends(3 * KIB, 1) };
    compare(&script, &script, WIDE);
}

#[test]
fn an_end_that_is_done_still_hears_the_other_to_its_end() {
    compare(&sends(0, 1), &sends(2 * MIB, 10 * KIB), WIDE);
    compare(&sends(2 * MIB, 10 * KIB), &sends(0, 1), WIDE);
}

#[test]
fn a_reset_is_never_taken_for_an_end() {
    let resets = |bytes| Script { resets: true, ..sends(bytes, 64 * KIB) };
    for bytes in [0, 1, 100 * KIB, 4 * MIB] {
        compare(&resets(bytes), &sends(MIB, 64 * KIB), WIDE);
        compare(&sends(MIB, 64 * KIB), &resets(bytes), WIDE);
    }
}
