//! The wall clock of an agent that is tested: follows a file of the run directory, which says by how many seconds it is ahead.
//!
//! Only in a build with assertions, which is never shipped; in any other there is neither this nor the file's meaning. The run directory is
//! root's alone. What the file says is in force a moment later, and from the start on if it is there then.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the file.
const FILE: &str = "clock-ahead";
/// How often it is read.
const PERIOD: Duration = Duration::from_millis(100);

/// Follows the file until the process ends.
pub(crate) fn follow(run_dir: &Path) -> std::io::Result<()> {
    let file = run_dir.join(FILE);
    read(&file);
    let thread = std::thread::Builder::new().name("clock".to_owned());
    thread.spawn(move || {
        loop {
            std::thread::sleep(PERIOD);
            read(&file);
        }
    })?;
    Ok(())
}

/// Sets the clock as the file says; one that is not there, or says nothing that can be read, leaves it with the machine's.
fn read(file: &PathBuf) {
    let said = std::fs::read_to_string(file).unwrap_or_default();
    let seconds = said.trim().parse().unwrap_or_default();
    if linux::wall_clock::set_ahead(seconds) != seconds {
        tracing::warn!(
            ahead_secs = seconds,
            "the wall clock of this process is set apart from the machine's, for a test"
        );
    }
}
