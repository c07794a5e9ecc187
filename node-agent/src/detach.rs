//! `culvert detach`: takes a node out of capture when no agent runs on it any more.
//!
//! Every step is tried, whatever became of the others; what failed is told at the end.

use std::fs;
use std::io;

use anyhow::bail;
use linux::bpffs;
use linux::netns::Netns;
use redirect::OtherLayouts;
use redirect::pins::Pins;

use crate::cli::DetachArgs;
use crate::enrollment::Records;
use crate::lock::InstanceLock;

/// Removes pins, routes and records.
pub(crate) fn detach(args: &DetachArgs) -> anyhow::Result<()> {
    let place = &args.place;
    let _lock = InstanceLock::take(&place.run_dir)?;
    let mut failures: Vec<String> = Vec::new();
    // First the pins: from here on nothing is captured, and the routes lead nobody any more.
    // Only what is ours: the directory may be one that others share.
    if let Err(error) = bpffs::remove(&place.bpffs.join(redirect::LAYOUT)) {
        failures.push(error.to_string());
    }
    if let Err(error) = OtherLayouts::of(&Pins::new(&place.bpffs)).remove() {
        failures.push(error.to_string());
    }
    // Fails where something else is in it, which is fine.
    let _ = fs::remove_dir(&place.bpffs);
    match Records::open(&place.run_dir).and_then(|records| records.list()) {
        Ok(records) => {
            for record in records {
                // A namespace that is gone has taken its routes along; one at the same path is another pod's.
                let Ok(netns) = Netns::open(&record.netns) else { continue };
                if netns.cookie().ok() != Some(record.cookie) {
                    continue;
                }
                if let Err(error) = redirect::attachment::put_back(&netns, &record.sysctls) {
                    failures.push(format!("pod {}: {error}", record.pod));
                }
            }
        }
        Err(error) => failures.push(error.to_string()),
    }
    match fs::remove_dir_all(place.run_dir.join("pods")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => failures.push(error.to_string()),
        _ => {}
    }
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("not everything could be removed: {}", failures.join("; "))
    }
}
