//! Which cipher suites are offered, and whose code seals and opens their records.
//!
//! AES-128-GCM comes first: it is about a third faster than AES-256-GCM and no weaker against anything practical. All else of
//! a handshake is AWS-LC's on every machine. Records are sealed and opened by the one of two libraries that has code for what
//! the processor can do:
//!
//! | processor | who | why |
//! |---|---|---|
//! | x86-64 with AVX-512 and VAES | AWS-LC | four blocks an instruction |
//! | x86-64 with VAES but without AVX-512 (AMD Zen 3, Intel from Alder Lake on) | ring | two blocks an instruction; AWS-LC has one there |
//! | any other | AWS-LC | the same code in both |
//!
//! Invariant: the suites, and so what a peer sees, are the same whoever seals.

use rustls::SupportedCipherSuite;
use rustls::crypto::{aws_lc_rs, ring};

const BY_AWS_LC: [SupportedCipherSuite; 2] =
    [aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
const BY_RING: [SupportedCipherSuite; 2] =
    [ring::cipher_suite::TLS13_AES_128_GCM_SHA256, ring::cipher_suite::TLS13_AES_256_GCM_SHA384];

/// Suites of TLS 1.3, in the order of preference.
pub(super) fn modern() -> Vec<SupportedCipherSuite> {
    if has_two_blocks_at_most() { BY_RING.to_vec() } else { BY_AWS_LC.to_vec() }
}

/// Suites of TLS 1.2, in the order of preference: they are for old peers, and nobody waits for them.
pub(super) fn old() -> [SupportedCipherSuite; 4] {
    use aws_lc_rs::cipher_suite as suite;
    [
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ]
}

/// Whether the processor has AES for two blocks at a time, and not for four.
#[cfg(target_arch = "x86_64")]
fn has_two_blocks_at_most() -> bool {
    let two = is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2");
    let four = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    two && !four
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_two_blocks_at_most() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_sees_the_same_suites_whoever_seals() {
        let seen = |suites: [SupportedCipherSuite; 2]| suites.map(|suite| suite.suite());
        assert_eq!(seen(BY_AWS_LC), seen(BY_RING));
    }
}
