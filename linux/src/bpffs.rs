//! The BPF file system, in which links and maps outlive the agent.
//!
//! A pinned link keeps its program attached while no process holds it; removing the file detaches it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use thiserror::Error;

/// Magic number of bpffs (`linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// What went wrong in the BPF file system.
#[derive(Debug, Error)]
pub enum BpffsError {
    /// The file system cannot be mounted.
    #[error(
        "no BPF file system at {path}, and mounting one failed: {source}; run as root: mount -t bpf bpf /sys/fs/bpf"
    )]
    Mount {
        /// Mount point.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Nothing can be written to it.
    #[error(
        "{operation} {path}: the BPF file system is read-only, so nothing that outlives the agent can be kept in it; run as root: \
         mount -o remount,rw /sys/fs/bpf"
    )]
    ReadOnly {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A file or directory in it cannot be made or removed.
    #[error("{operation} {path}: {source}")]
    Path {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Makes sure that `directory`, which lies below `/sys/fs/bpf` or another BPF file system, exists; mounts `/sys/fs/bpf`
/// where nothing is mounted there yet.
pub fn ensure(directory: &Path) -> Result<(), BpffsError> {
    let standard = Path::new("/sys/fs/bpf");
    if directory.starts_with(standard) && !is_bpffs(standard) {
        mount(Some("bpf"), standard, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|e| BpffsError::Mount { path: standard.to_owned(), source: e.into() })?;
    }
    fs::create_dir_all(directory).map_err(path_error("create", directory))?;
    if !is_bpffs(directory) {
        let source = io::Error::other("not on a BPF file system");
        return Err(BpffsError::Path { operation: "use", path: directory.to_owned(), source });
    }
    Ok(())
}

/// Removes a directory of pins; one that is not there is fine.
pub fn remove(directory: &Path) -> Result<(), BpffsError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(path_error("remove", directory)(error)),
        _ => Ok(()),
    }
}

/// Puts `from` in the place of `to` in one step.
pub fn replace(from: &Path, to: &Path) -> Result<(), BpffsError> {
    fs::rename(from, to).map_err(path_error("rename to", to))
}

/// Names of the entries of a directory; none where it is not there.
pub fn entries(directory: &Path) -> Result<Vec<String>, BpffsError> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(path_error("read", directory)(error)),
    };
    Ok(read.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn path_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BpffsError {
    move |source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => BpffsError::ReadOnly { operation, path: path.to_owned() },
        _ => BpffsError::Path { operation, path: path.to_owned(), source },
    }
}

fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == BPF_FS_MAGIC)
}

/// Removes one pin; one that is not there is fine.
pub fn remove_file(path: &Path) -> Result<(), BpffsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(path_error("remove", path)(error)),
        _ => Ok(()),
    }
}
