//! Work that does not see one of the machine's directories: done by a thread with a mount namespace of its own.
//!
//! For libraries that read what they need not. Invariant: nobody else sees a difference. Where the kernel refuses, for want of
//! `CAP_SYS_ADMIN` or by a profile that forbids mount(2), the work is done all the same, and sees the directory.

use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Does `work` while `directory` is empty for it; or as it is, where it cannot be hidden.
pub fn without<T: Send>(directory: &Path, work: impl FnOnce() -> T + Send) -> T {
    let hidden = || {
        // What it would see otherwise is not wrong, only dear.
        let _ = hide(directory);
        work()
    };
    thread::scope(|scope| scope.spawn(hidden).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Covers the directory for the calling thread, which is in a mount namespace of its own from then on.
fn hide(directory: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Or the others of the namespace that was copied would be told.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("none"), directory, Some("tmpfs"), flags, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_work_sees_nothing_and_everybody_else_all() {
        let directory = std::env::temp_dir().join(format!("culvert-hidden-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("file"), "").unwrap();
        let files = || fs::read_dir(&directory).unwrap().count();
        let seen = without(&directory, || {
            // Meanwhile the first thread of the process sees it as ever.
            let of_others =
                fs::read_dir(Path::new("/proc/self/root").join(directory.strip_prefix("/").unwrap()));
            (files(), of_others.unwrap().count())
        });
        assert_eq!((seen, files()), ((0, 1), 1));
        assert!(without(&directory.join("missing"), || true), "the work is done in any case");
        fs::remove_dir_all(&directory).unwrap();
    }
}
