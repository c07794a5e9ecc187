//! `test cri`: real agents and the plugin under Debian's containerd, runc and podman, and the image as the chart runs it.

use std::path::Path;

use anyhow::Result;
use harness::run::find_tool;

use crate::binaries::Binaries;
use crate::built::Built;
use crate::image;
use crate::setup::{self, Need};

/// The runtimes, and what they call.
const RUNTIMES: [Need; 4] = [
    Need {
        package: "containerd",
        present: || find_tool("containerd").is_some() && find_tool("ctr").is_some(),
    },
    Need { package: "runc", present: || find_tool("runc").is_some() },
    Need { package: "podman", present: || find_tool("podman").is_some() },
    Need { package: "conmon", present: || Path::new("/usr/bin/conmon").exists() },
];

pub(super) fn run(filter: Option<&str>) -> Result<()> {
    println!("\n== cri: real agents and the plugin under containerd and podman");
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    // portmap calls it.
    setup::ensure(&setup::NETFILTER)?;
    setup::ensure(&RUNTIMES)?;
    let helm = super::deploy::tools::ensure_helm()?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    let image = image::of(&binaries)?;
    let of_the_image: [(&str, &Path); 2] = [("CULVERT_IMAGE", &image), ("HELM_BIN", &helm)];
    built.run_those_of(&super::CRI, filter, &[binaries.environment().as_slice(), &of_the_image].concat())
}
