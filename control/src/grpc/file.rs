//! Small files that are read again and again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The whole file, unless it is larger than `limit` bytes. Read beside the runtime: the file may be on a slow disk.
pub(crate) async fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let owned = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_now(&owned, limit));
    let outcome = reading.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    outcome.map_err(|source| FileError { path: path.to_owned(), source })
}

/// The same, at once.
pub(crate) fn read_now(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length > limit) {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(content)
}
