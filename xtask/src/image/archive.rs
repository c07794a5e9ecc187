//! A tar archive that is the same whenever and wherever it is made (ustar, POSIX.1-1988).
//!
//! Everything in it belongs to root and is of the first second of 1970.

use anyhow::{Result, bail};

const BLOCK: usize = 512;

/// An archive that is being made.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &str) {
        let header = header(&format!("{path}/"), 0, 0o755, b'5');
        self.bytes.extend_from_slice(&header);
    }

    /// Adds a file with this content and mode.
    pub(super) fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        if path.len() > 100 {
            bail!("{path}: a path of the archive has at most 100 bytes");
        }
        self.bytes.extend_from_slice(&header(path, content.len(), mode, b'0'));
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The whole of it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

/// A header: fields of text and of octal digits at fixed places.
fn header(path: &str, size: usize, mode: u32, kind: u8) -> Vec<u8> {
    let mut header = Vec::with_capacity(BLOCK);
    let mut field = |text: &str, width: usize| {
        let end = header.len() + width;
        header.extend(text.bytes().take(width));
        header.resize(end, 0);
    };
    field(path, 100);
    field(&format!("{mode:07o}"), 8);
    field("0000000", 8);
    field("0000000", 8);
    field(&format!("{size:011o}"), 12);
    field("00000000000", 12);
    // The checksum counts as blanks while it is made.
    field("        ", 8);
    field(&char::from(kind).to_string(), 1);
    field("", 100);
    field("ustar", 6);
    field("00", 2);
    field("root", 32);
    field("root", 32);
    header.resize(BLOCK, 0);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header.splice(148..156, format!("{sum:06o}\0 ").bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_it() {
        let mut archive = Archive::default();
        archive.directory("usr");
        archive.file("usr/program", &[7; 700], 0o755).unwrap();
        archive.file("usr/empty", b"", 0o644).unwrap();
        assert!(archive.file(&"x".repeat(101), b"", 0o644).is_err());
        let bytes = archive.finish();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut list = Command::new("tar");
        list.args(["--utc", "-tvf", "-"]).env("LC_ALL", "C");
        let ended = harness::command::finish(&mut list, &bytes).unwrap();
        let lines: Vec<_> = ended.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{}{}", ended.stdout, ended.stderr);
        assert!(lines[0].starts_with("drwxr-xr-x root/root") && lines[0].ends_with(" usr/"), "{lines:?}");
        assert!(
            lines[1].starts_with("-rwxr-xr-x root/root") && lines[1].contains(" 700 1970-01-01 00:00"),
            "{lines:?}"
        );
        assert!(lines[2].ends_with(" usr/empty"), "{lines:?}");
    }
}
