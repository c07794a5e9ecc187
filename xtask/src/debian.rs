//! Programs of Debian packages that are not installed: downloaded with apt once, unpacked below the target directory.
//!
//! For packages that would start a service of their own, or bring half a desktop along. What is on the machine already is taken as
//! it is. A download that does not come to its end leaves nothing that counts as there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::run::find_tool;

use crate::binaries::target_dir;
use crate::shell;

/// A package, and the programs in its `/usr/bin` that are wanted.
pub(crate) struct Package<const N: usize> {
    pub(crate) name: &'static str,
    pub(crate) programs: [&'static str; N],
}

/// Prometheus, and what checks its rules. Both need the C library and nothing else.
pub(crate) const PROMETHEUS: Package<2> =
    Package { name: "prometheus", programs: ["promtool", "prometheus"] };

impl<const N: usize> Package<N> {
    /// Where its programs are, in their order.
    ///
    /// # Errors
    ///
    /// The package can neither be found on this machine nor be downloaded.
    pub(crate) fn ensure(&self) -> Result<[PathBuf; N]> {
        let on_machine: Vec<_> = self.programs.iter().filter_map(|program| find_tool(program)).collect();
        if let Ok(all) = on_machine.try_into() {
            return Ok(all);
        }
        let home = target_dir()?.join("tools/debian").join(self.name);
        let unpacked = self.programs.map(|program| home.join("usr/bin").join(program));
        if !unpacked.iter().all(|program| program.is_file()) {
            self.download(&home)?;
        }
        match unpacked.iter().find(|program| !program.is_file()) {
            None => Ok(unpacked),
            Some(lacking) => bail!("the package {} has no {}", self.name, lacking.display()),
        }
    }

    fn download(&self, home: &PathBuf) -> Result<()> {
        let name = self.name;
        if find_tool("apt-get").is_none() || find_tool("dpkg-deb").is_none() {
            bail!("missing on this machine: {}; install {name}", self.programs.join(", "));
        }
        println!("Missing on this machine, so it is downloaded now, and not installed: {name} of Debian's");
        // Made beside and renamed, so that what is there is whole.
        let making = home.with_extension("new");
        for old in [home, &making] {
            if old.exists() {
                std::fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        std::fs::create_dir_all(&making)?;
        let fetch = || {
            let mut download = Command::new("apt-get");
            // Without the option apt complains that its own user may not write here.
            download.args(["download", "-q", "-o", "APT::Sandbox::User=root", name]);
            shell::run(download.current_dir(&making))
        };
        if fetch().is_err() {
            // apt's lists are not there, or are older than the newest build.
            shell::run(Command::new("apt-get").args(["update", "-q"]))?;
            fetch()?;
        }
        let files = std::fs::read_dir(&making)?.collect::<Result<Vec<_>, _>>()?;
        let archive = files.first().with_context(|| format!("apt-get left no {name} behind"))?.path();
        shell::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&making))?;
        std::fs::remove_file(&archive)?;
        std::fs::rename(&making, home).with_context(|| format!("renaming {}", making.display()))
    }
}
