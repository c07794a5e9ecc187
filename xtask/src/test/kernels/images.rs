//! Debian's kernels: downloaded with apt once, unpacked without being installed, kept in `target/kernels`.
//!
//! To get a newer build of a series, remove its directory there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::initrd::Initrd;
use crate::shell;

/// What Debian's cloud kernels have as modules and the checks need; none depends on another.
const MODULES: [&str; 2] = ["sch_netem", "veth"];
/// The same of what the checks look for the lack of before they load it.
const OPTIONAL: [&str; 2] = ["cls_bpf", "sch_ingress"];

/// A kernel that can be booted.
pub(super) struct Image {
    /// As uname says it.
    pub(super) release: String,
    /// The kernel itself.
    pub(super) vmlinuz: PathBuf,
    directory: PathBuf,
}

impl Image {
    /// The kernel of a series (`6.1`), downloaded if it is not there yet.
    pub(super) fn get(series: &str) -> Result<Self> {
        let kernels = shell::root().join("target/kernels");
        let directory = kernels.join(series);
        let is_whole = |name: &&str| directory.join(format!("{name}.ko")).exists();
        if !MODULES.iter().chain(&OPTIONAL).all(is_whole) {
            if directory.exists() {
                // Of a time when the checks needed less.
                fs::remove_dir_all(&directory)?;
            }
            // Made beside and renamed, so that what is there is whole.
            let making = kernels.join(format!("{series}.new"));
            if making.exists() {
                fs::remove_dir_all(&making)?;
            }
            fs::create_dir_all(&making)?;
            download(series, &making)?;
            fs::rename(&making, &directory)?;
        }
        let release = fs::read_to_string(directory.join("release"))?;
        Ok(Self { release, vmlinuz: directory.join("vmlinuz"), directory })
    }

    /// Packs `program`, as the guest's first, and the agent that it starts, with this kernel's modules.
    pub(super) fn initrd(&self, program: &Path, agent: &Path) -> Result<PathBuf> {
        let mut initrd = Initrd::default();
        for (place, modules) in [("modules", &MODULES[..]), ("optional", &OPTIONAL[..])] {
            initrd.directory(place);
            for module in modules {
                let name = format!("{module}.ko");
                initrd.file(&format!("{place}/{name}"), 0o644, &read(&self.directory.join(&name))?);
            }
        }
        initrd.file("init", 0o755, &read(program)?);
        initrd.file("culvert", 0o755, &read(agent)?);
        let path = self.directory.join("initrd");
        fs::write(&path, initrd.finish())?;
        Ok(path)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn download(series: &str, to: &Path) -> Result<()> {
    let package = match newest(series)? {
        Some(package) => package,
        None => {
            shell::run(Command::new("apt-get").args(["update", "-q"]))?;
            let found = newest(series)?;
            found.with_context(|| format!("apt knows no {}", pattern(series)))?
        }
    };
    println!("Not here yet, so it is downloaded now, and not installed: {package}");
    if fetch(&package, to).is_err() {
        // apt's lists are older than the newest build.
        shell::run(Command::new("apt-get").args(["update", "-q"]))?;
        let package = newest(series)?.with_context(|| format!("apt knows no {}", pattern(series)))?;
        fetch(&package, to)?;
    }
    unpack(to)
}

fn fetch(package: &str, to: &Path) -> Result<()> {
    // Without the option apt complains that its own user may not write here.
    let mut download = Command::new("apt-get");
    shell::run(
        download.current_dir(to).args(["download", "-q", "-o", "APT::Sandbox::User=root"]).arg(package),
    )
}

/// Names of the series' signed images, as apt-cache takes it.
fn pattern(series: &str) -> String {
    format!(r"^linux-image-{}\.[^ ]*-cloud-amd64$", series.replace('.', r"\."))
}

fn newest(series: &str) -> Result<Option<String>> {
    let mut search = Command::new("apt-cache");
    let found = shell::output(search.args(["search", "--names-only", &pattern(series)]))?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    Ok(names.max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// The numbers of a name, by which builds are ordered.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Takes what is needed out of the one package in a directory, and removes the rest.
fn unpack(directory: &Path) -> Result<()> {
    let package = one(directory, |name| name.ends_with(".deb"))?;
    let tree = directory.join("tree");
    shell::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
    let kernel = one(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    let name = kernel.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    fs::write(directory.join("release"), name.trim_start_matches("vmlinuz-"))?;
    fs::rename(&kernel, directory.join("vmlinuz"))?;
    for module in MODULES.iter().chain(&OPTIONAL) {
        let name = format!("{module}.ko");
        let packed = find(&tree, &name)?.with_context(|| format!("{} has no {name}", package.display()))?;
        copy_unpacked(&packed, &directory.join(&name))?;
    }
    fs::remove_dir_all(&tree)?;
    fs::remove_file(&package)?;
    Ok(())
}

/// Older kernels cannot unpack their modules themselves.
fn copy_unpacked(packed: &Path, to: &Path) -> Result<()> {
    if packed.extension().is_some_and(|extension| extension == "xz") {
        let mut xz = Command::new("xz");
        shell::run(xz.arg("-dc").arg(packed).stdout(Stdio::from(File::create(to)?)))
    } else {
        fs::copy(packed, to)?;
        Ok(())
    }
}

fn one(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut found =
        entries.flatten().filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|e| e.path());
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} holds something else than one Debian kernel", directory.display()),
    }
}

/// A file of this name, perhaps packed, somewhere in a tree.
fn find(tree: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(tree)?.flatten() {
        let (path, own) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if own
            .to_string_lossy()
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest == ".xz")
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_build_has_the_greatest_numbers() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[1]));
        let names = ["linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64"];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[1]));
    }
}
