//! Files that others read while we write them: the runtime's configurations, its plugins, the plugin's kubeconfig.
//!
//! Invariant: at each moment there is the old file or the new one, whole. A new one is written beside the old one, brought to the
//! disk and then put into its place in one step; what a crash leaves is a file that nobody reads, which the next write replaces.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}{}", path.display(), hint(source))]
pub(crate) struct FileError {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// What a new file may be used by, if there was none before.
pub(crate) const FOR_ALL: u32 = 0o644;
/// For a program.
pub(crate) const PROGRAM: u32 = 0o755;
/// For what is secret.
pub(crate) const SECRET: u32 = 0o600;

/// The end of the name of a file that is being written.
const BESIDE: &str = ".culvert-new";

/// What a file is to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// These bits, whatever the file before it had.
    Exactly(u32),
    /// Mode and, where we may give it away, owner of another file.
    Like,
}

/// Puts a file with this content at `path`, with mode and owner of `like` if that is there.
///
/// # Errors
/// A [`FileError`]; then what was there before is still there.
pub(crate) fn replace(path: &Path, content: &[u8], mode: Mode, like: &Path) -> Result<(), FileError> {
    let beside = beside(path);
    let outcome = write(&beside, content, mode, like).and_then(|()| {
        fs::rename(&beside, path)?;
        sync_directory(path)
    });
    if outcome.is_err() {
        // It may not be there, or not be removable, which is no worse than the failure itself.
        let _ = fs::remove_file(&beside);
    }
    outcome.map_err(|source| FileError { operation: "write", path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8], mode: Mode, like: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (bits, owner) = match (mode, fs::metadata(like)) {
        (Mode::Exactly(bits), _) => (bits, None),
        (Mode::Like, Ok(known)) => (known.mode() & 0o7777, Some((known.uid(), known.gid()))),
        (Mode::Like, Err(_)) => (FOR_ALL, None),
    };
    // Nobody may read a secret before its mode is set.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(path)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(bits))?;
    if let Some((user, group)) = owner {
        let own = file.metadata()?;
        let given = (own.uid(), own.gid()) != (user, group);
        match given.then(|| fchown(&file, Some(user), Some(group))) {
            // Root may read it in any case, which is who a runtime runs as.
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Some(Err(error)) => return Err(error),
            _ => {}
        }
    }
    file.sync_all()
}

/// Whether a file is allowed what it is to be allowed.
pub(crate) fn has(path: &Path, mode: Mode) -> bool {
    match mode {
        Mode::Exactly(bits) => fs::metadata(path).is_ok_and(|known| known.mode() & 0o7777 == bits),
        Mode::Like => true,
    }
}

/// Whether it is what a write has left that did not come to its end.
pub(crate) fn is_left_over(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(BESIDE)
}

/// A name beside it that neither a runtime nor a person takes for a configuration.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{BESIDE}"))
}

/// Makes what happened to the names in a file's directory last.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes a file; whether it was there.
///
/// # Errors
/// A [`FileError`] if it is there and stays.
pub(crate) fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => {
            let _ = sync_directory(path);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError { operation: "remove", path: path.to_owned(), source }),
    }
}

/// The whole of a regular file, if it has at most `limit` bytes.
///
/// # Errors
/// A [`FileError`], also for what is no regular file.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let read = || {
        // A pipe would be waited for.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
        if u64::try_from(content.len()).is_ok_and(|length| length > limit) {
            return Err(io::Error::other(format!("it is larger than {limit} bytes")));
        }
        Ok(content)
    };
    read().map_err(|source| FileError { operation: "read", path: path.to_owned(), source })
}

/// What a system that is made to be read only is told.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; this platform keeps its directory elsewhere: choose the chart's `platform`, or set cniBinDir and cniConfDir"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_and_owner_are_kept_and_nothing_is_left_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-x.conflist");
        replace(&path, b"one", Mode::Like, &path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), FOR_ALL);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Whoever may not give files away has the tests run as its own.
        let given_away = std::os::unix::fs::chown(&path, Some(1234), Some(4321)).is_ok();
        replace(&path, b"two", Mode::Like, &path).unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o640, b"two".to_vec()));
        let owner = fs::metadata(&path).map(|known| (known.uid(), known.gid())).unwrap();
        assert!(!given_away || owner == (1234, 4321), "{owner:?}");
        replace(&path, b"secret", Mode::Exactly(SECRET), &path).unwrap();
        assert_eq!(mode(&path), SECRET);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_is_no_obstacle_and_the_old_file_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-x.conflist");
        fs::write(&path, "old").unwrap();
        // As if the process had ended between writing and renaming.
        write(&beside(&path), b"ne", Mode::Like, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(super::super::chain::Form::of(beside(&path).file_name().unwrap().to_str().unwrap()), None);
        replace(&path, b"new", Mode::Like, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"x", Mode::Like, &path).unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("/name"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside");
        assert!(read(&path, 10).unwrap_err().to_string().contains("no regular file"));
        let file = dir.path().join("large");
        fs::write(&file, "12345678901").unwrap();
        assert!(read(&file, 10).unwrap_err().to_string().contains("larger than 10 bytes"));
        assert!(remove(&file).unwrap() && !remove(&file).unwrap());
    }
}
