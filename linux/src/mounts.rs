//! The mounts that this process sees (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::io;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub path: PathBuf,
    /// File system type, such as `cgroup2`.
    pub kind: String,
    /// Which directory of the file system is mounted there: `/` unless it is a bind mount of a part.
    pub root: PathBuf,
}

/// All mounts, in the order in which they were made.
pub fn list() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // 36 35 98:0 /root /mount options optional* - type source super-options
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let root = unescape(fields.next()?);
    let path = unescape(fields.next()?);
    Some(Mount { path, kind: after.split(' ').next()?.to_owned(), root })
}

/// Blanks and backslashes come as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        match escaped.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = escaped.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = escaped;
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_are_read_with_optional_fields_and_escapes() {
        let text = "30 23 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    31 23 0:27 /part /mnt/with\\040blank rw - cgroup2 x rw\ngarbage\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].path, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!((mounts[0].kind.as_str(), mounts[0].root.as_path()), ("cgroup2", Path::new("/")));
        assert_eq!(mounts[1].path, Path::new("/mnt/with blank"));
    }
}
