//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks; short, so that a test ends soon after what it waits for.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `look` until it returns something, for at most `limit`; the error then says what was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain for: {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`eventually`], for a `look` that can say why not yet; the last reason is in the error.
pub fn eventually_ok<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let found = eventually(what, limit, || look().map_err(|error| last = Some(error)).ok());
    found.map_err(|error| match last {
        Some(last) => last.context(error),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_returns_what_it_finds_and_says_what_it_did_not() {
        let mut left = 3;
        let found = eventually("zero", Duration::from_secs(5), || {
            left -= 1;
            (left == 0).then_some("zero")
        });
        assert_eq!(found.unwrap(), "zero");
        let error = eventually_ok::<()>("the moon", Duration::ZERO, || bail!("too far")).unwrap_err();
        assert!(format!("{error:#}").contains("the moon: too far"), "{error:#}");
    }
}
