//! libFuzzer's way to [`fuzz::xds_authorization`].

#![no_main]
#![expect(missing_docs, reason = "libFuzzer's macro makes functions of its own")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::xds_authorization(data));
