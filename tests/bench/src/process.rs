//! What the kernel says of a process: its memory and its time.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process that is looked at from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Memory that is in use now, in MiB.
    pub(crate) fn rss(self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// The same, with what several processes share divided among them.
    pub(crate) fn pss(self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        kib(&text, "Pss:").map(|kib| kib / 1024.0)
    }

    /// The most memory that was in use since [`Self::forget_peak`], in MiB.
    pub(crate) fn peak(self) -> Result<f64> {
        self.status("VmHWM:")
    }

    /// Begins to look for the peak anew.
    pub(crate) fn forget_peak(self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.0);
        fs::write(&file, "5").with_context(|| file.clone())
    }

    /// How many files and sockets it has open.
    pub(crate) fn descriptors(self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.0);
        Ok(fs::read_dir(&path).with_context(|| path.clone())?.count())
    }

    /// The time that it has had on CPUs.
    pub(crate) fn time(self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // Behind the name, which may hold anything: utime and stime are the 14th and 15th (proc_pid_stat(5)).
        let fields: Vec<&str> =
            text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        let ticks: u64 = fields
            .get(11..13)
            .context("/proc/PID/stat is too short")?
            .iter()
            .flat_map(|text| text.parse::<u64>())
            .sum();
        let second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(Duration::from_secs_f64(ticks as f64 / second as f64))
    }

    fn status(self, name: &str) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        kib(&text, name).map(|kib| kib / 1024.0)
    }
}

/// The value of a line such as `VmRSS:     1024 kB`.
fn kib(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())
}
