//! `culvert detach`: takes a node out of capture when no agent runs on it any more.
//!
//! Every step is tried, whatever became of the others; what failed is told at the end.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::bail;
use linux::bpffs;
use linux::netns::Netns;
use redirect::OtherLayouts;
use redirect::pins::Pins;

use crate::cli::{DetachArgs, Place};
use crate::enrollment::{Record, Records};
use crate::lock::InstanceLock;

/// Removes pins, routes and records.
pub(crate) fn detach(args: &DetachArgs) -> anyhow::Result<()> {
    let _lock = InstanceLock::take(&args.place.run_dir)?;
    clear(&args.place)
}

/// The same for whoever holds the installation's lock.
pub(crate) fn clear(place: &Place) -> anyhow::Result<()> {
    let pins = Pins::new(&place.bpffs);
    let mut failures: Vec<String> = Vec::new();
    let pods = captured(&place.run_dir, &mut failures);
    for (record, netns) in &pods {
        // The pins tell what is to be removed of it.
        if let Err(error) = redirect::attachment::unguard(&pins, record.cookie, netns) {
            failures.push(format!("pod {}: {error}", record.pod));
        }
    }
    // Then the pins: from here on nothing is captured, and the routes lead nobody any more.
    // Only what is ours: the directory may be one that others share.
    if let Err(error) = bpffs::remove(&place.bpffs.join(redirect::LAYOUT)) {
        failures.push(error.to_string());
    }
    if let Err(error) = OtherLayouts::of(&pins).remove() {
        failures.push(error.to_string());
    }
    // Fails where something else is in it, which is fine.
    let _ = fs::remove_dir(&place.bpffs);
    for (record, netns) in &pods {
        if let Err(error) = redirect::attachment::put_back(netns, &record.sysctls) {
            failures.push(format!("pod {}: {error}", record.pod));
        }
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

/// The pods of which there are records, and whose namespaces are there.
fn captured(run_dir: &Path, failures: &mut Vec<String>) -> Vec<(Record, Netns)> {
    let records = match Records::open(run_dir).and_then(|records| records.list()) {
        Ok(records) => records,
        Err(error) => {
            failures.push(error.to_string());
            return Vec::new();
        }
    };
    // A namespace that is gone has taken everything along; one at the same path is another pod's.
    let there = |record: Record| {
        let netns = Netns::open(&record.netns).ok()?;
        (netns.cookie().ok()? == record.cookie).then_some((record, netns))
    };
    records.into_iter().filter_map(there).collect()
}
