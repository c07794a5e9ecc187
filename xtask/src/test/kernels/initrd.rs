//! The archive that a kernel unpacks as its first file system: cpio in the "new ASCII" form
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

/// Kinds of entries, as in a mode (inode(7)).
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
/// Everything in the archive begins at a multiple of this.
const ALIGN: usize = 4;

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Initrd {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initrd {
    /// Adds a directory; it must come before what is in it.
    pub(super) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, &[]);
    }

    /// Adds a file.
    pub(super) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, FILE | permissions, content);
    }

    /// The archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (inode, links) = (self.entries, 1);
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Owner and time are 0, and so are device numbers and the checksum, which this form does not use.
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_each_other_as_the_kernel_reads_them() {
        let mut initrd = Initrd::default();
        initrd.directory("d");
        initrd.file("d/f", 0o644, b"hello");
        let bytes = initrd.finish();
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&bytes[range]).unwrap().to_owned();
        // Header 110 bytes, name with its end, both padded to four.
        assert_eq!(text(0..6), "070701");
        assert_eq!(text(14..22), "000041ed");
        assert_eq!(text(110..111), "d");
        let second = 112;
        assert_eq!(text(second..second + 6), "070701");
        assert_eq!(text(second + 54..second + 62), "00000005");
        assert_eq!(text(second + 110..second + 113), "d/f");
        assert_eq!(text(second + 116..second + 121), "hello");
        assert_eq!(text(second + 124..second + 130), "070701");
        assert!(bytes.len().is_multiple_of(4));
    }
}
