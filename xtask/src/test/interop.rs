//! `test interop`: real agents against a real Envoy.

use anyhow::Result;

use crate::binaries::Binaries;
use crate::built::Built;
use crate::{envoy, setup};

pub(super) fn run(filter: Option<&str>) -> Result<()> {
    println!("\n== interop: real agents against Envoy {}", envoy::VERSION);
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    let envoy = envoy::ensure()?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    let mut environment = binaries.environment().to_vec();
    environment.push(("ENVOY_BIN", &envoy));
    built.run_those_of(&super::INTEROP, filter, &environment)
}
