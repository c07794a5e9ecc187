//! libFuzzer's way to the targets of [`fuzz::TARGETS`]: the one that `FUZZ_TARGET` names, for libFuzzer's own arguments are its own.
//!
//! One program for all, so that one link makes them all.

#![no_main]

use std::sync::OnceLock;

use fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.into_iter().find(|(known, _)| *known == name);
        let (_, target) = found.unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, which is no target"));
        CHOSEN.get_or_init(|| target);
    },
    |data: &[u8]| CHOSEN.get().expect("it was chosen before anything came")(data)
);
