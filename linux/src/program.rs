//! The memory that the program itself takes: its code and its constants, as the kernel maps them from its file.
//!
//! Most of a program's code runs once, at the start, and stays mapped until the machine is short of memory; so it counts as the
//! process's own. Invariant: only what the kernel can read from the file again is let go, so nothing is lost whenever this is called.

use std::fs;
use std::io;
use std::ops::Range;

/// How much comes back when one page of it is needed. Otherwise the kernel maps 64 KiB around each page that is touched (`do_fault_around` in
/// mm/memory.c), and code that runs is spread thinly over all that there is: four times as much came back as was used. A piece is a mapping of
/// its own, which costs the kernel some 260 bytes.
const PIECE: usize = 16 << 10;

/// Lets go of all code and constants; what is needed comes back from the page cache as it is used (madvise(2),
/// `MADV_DONTNEED`). Returns how many bytes were let go.
pub fn let_go_of_code() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let mut bytes = 0;
    for Part { range, resident } in parts(&maps, let_go_of_code as *const () as usize) {
        let (start, length) = (std::ptr::without_provenance_mut(range.start), range.len());
        // SAFETY: no page of this mapping was ever written, and none is writable, so that the kernel finds each again in the file of
        // which the mapping holds the program. What runs or is read meanwhile waits for that.
        if unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
        bytes += resident;
        split(range)?;
    }
    Ok(bytes)
}

/// Divides a mapping of the program's file into pieces, of which every other one is marked as nothing for a core dump, where none of them would be:
/// neighbours that differ stay apart.
fn split(range: Range<usize>) -> io::Result<()> {
    for start in range.clone().step_by(2 * PIECE) {
        let (length, start) = (PIECE.min(range.end - start), std::ptr::without_provenance_mut(start));
        // SAFETY: it is a part of a mapping of the program's file, whose contents this does not touch (madvise(2), `MADV_DONTDUMP`).
        if unsafe { libc::madvise(start, length, libc::MADV_DONTDUMP) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A mapping of the program's file of which nothing was written.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    range: Range<usize>,
    /// Bytes of it that are in memory.
    resident: usize,
}

/// A mapping as proc_pid_smaps(5) has it.
#[derive(Debug, Default)]
struct Mapping<'a> {
    range: Range<usize>,
    permissions: &'a str,
    /// Device and inode.
    file: [&'a str; 2],
    resident: usize,
    /// Pages that are the process's own.
    anonymous: Option<usize>,
}

/// The mappings to let go: of the file from which the code at `address` comes.
fn parts(smaps: &str, address: usize) -> Vec<Part> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        match (mapping(line), mappings.last_mut()) {
            (Some(mapping), _) => mappings.push(mapping),
            (None, Some(last)) => {
                let kilobytes = |text: &str| text.trim().strip_suffix(" kB")?.parse::<usize>().ok();
                match line.split_once(':') {
                    Some(("Rss", size)) => last.resident = kilobytes(size).unwrap_or(0) << 10,
                    Some(("Anonymous", size)) => last.anonymous = kilobytes(size),
                    _ => {}
                }
            }
            (None, None) => {}
        }
    }
    let Some(own) = mappings.iter().find(|mapping| mapping.range.contains(&address)).map(|own| own.file)
    else {
        return Vec::new();
    };
    let is_clean = |mapping: &&Mapping<'_>| {
        mapping.file == own && ["r-xp", "r--p"].contains(&mapping.permissions) && mapping.anonymous == Some(0)
    };
    let part = |mapping: &Mapping<'_>| Part { range: mapping.range.clone(), resident: mapping.resident };
    mappings.iter().filter(is_clean).map(part).collect()
}

/// The first line of a mapping.
fn mapping(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = number(start)?..number(end)?;
    let (permissions, _offset) = (words.next()?, words.next()?);
    let file = [words.next()?, words.next()?];
    Some(Mapping { range, permissions, file, ..Mapping::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 77                         /usr/bin/culvert
Size:                  8 kB
Rss:                   4 kB
Anonymous:             0 kB
3000-9000 r-xp 00002000 fe:00 77                         /usr/bin/culvert
Rss:                  20 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
9000-a000 r--p 00008000 fe:00 77                         /usr/bin/culvert
Rss:                   4 kB
Anonymous:             4 kB
a000-b000 rw-p 00009000 fe:00 77                         /usr/bin/culvert
Rss:                   4 kB
Anonymous:             0 kB
c000-d000 r-xp 00000000 fe:00 78                         /usr/lib/other
Rss:                   4 kB
Anonymous:             0 kB
e000-f000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
Anonymous:             0 kB
";

    #[test]
    fn what_was_written_and_what_is_of_other_files_stays() {
        let part = |range, resident| Part { range, resident };
        assert_eq!(parts(SMAPS, 0x4000), [part(0x1000..0x3000, 4 << 10), part(0x3000..0x9000, 20 << 10)]);
        assert_eq!(parts(SMAPS, 0xffff), []);
        // A kernel that does not tell is not guessed at.
        assert_eq!(parts(&SMAPS.replace("Anonymous:", "Anon:"), 0x4000), []);
    }

    #[test]
    fn the_program_goes_on_without_its_code_in_memory() {
        let (constant, before) = (include_str!("program.rs"), let_go_of_code().unwrap());
        assert!(before > 0);
        assert!(
            constant.contains("a constant that is read again")
                && std::hint::black_box(parts)(SMAPS, 0x4000).len() == 2
        );
        // What was needed since has come back, which is little.
        assert!(let_go_of_code().unwrap() > 0);
    }
}
