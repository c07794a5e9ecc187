//! Limits of the process.

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// What the kernel allows at most unless `fs.nr_open` says otherwise; container runtimes give as many.
const DESCRIPTORS: rlim_t = 1 << 20;

/// Raises the number of descriptors that the process may hold: to about a million where it may (`CAP_SYS_RESOURCE`), else as far as the hard
/// limit goes; that number.
pub fn raise_descriptors() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < DESCRIPTORS && setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).is_ok() {
        return Ok(DESCRIPTORS);
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_had_is_had() {
        let (_, before) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let raised = raise_descriptors().unwrap();
        assert!(raised >= before);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, raised));
        // A second time it is there already.
        assert_eq!(raise_descriptors().unwrap(), raised);
    }
}
