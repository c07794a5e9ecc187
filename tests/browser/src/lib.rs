//! A real Chromium without a screen, told what to do by the DevTools protocol over two pipes.
//!
//! No driver, no Node.js and no port stand between a test and the browser: messages are JSON with a NUL behind each, so that what is seen
//! and what is refused is the browser's own word. It lives in a node's network namespace, and reaches nothing but what is there.

#![forbid(unsafe_code)]

mod keys;
mod page;
mod pipe;

pub use keys::Key;
pub use page::{Node, Page};

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{command, node};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::json;

use pipe::Pipe;

/// Starting takes a browser a while, on a busy machine a long one.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end when it is told to.
const END: Duration = Duration::from_secs(10);
/// The pipes are looked for at these descriptors.
const WITH_PIPES: &str = "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null";
/// It runs as root, on machines without a processor for graphics, and is not to ask anybody for anything of its own accord.
const FLAGS: [&str; 14] = [
    "--remote-debugging-pipe",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "about:blank",
];

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    page: Page,
}

impl Browser {
    /// Starts Debian's Chromium (`CHROMIUM_BIN`) in a network namespace, with its files in a directory of its own.
    ///
    /// # Errors
    ///
    /// It is not there, or does not start; its stderr is in `chromium.log` of that directory.
    pub fn start(netns: &Path, home: &Path) -> Result<Self> {
        std::fs::create_dir_all(home)?;
        let program = node::binary("CHROMIUM_BIN", "chromium-headless-shell")?;
        let log = home.join("chromium.log");
        let mut start = command::in_netns(netns, Path::new("/bin/sh"));
        start.args(["-c", WITH_PIPES, "sh"]).arg(&program).args(FLAGS);
        start.arg(format!("--user-data-dir={}", home.join("profile").display()));
        start.env("HOME", home).stdin(Stdio::piped()).stdout(Stdio::piped());
        start.stderr(std::fs::File::create(&log)?);
        // Debian's program is a script that starts another.
        std::os::unix::process::CommandExt::process_group(&mut start, 0);
        let mut child = start.spawn().with_context(|| format!("starting {}", program.display()))?;
        let (to, from) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
        let attached = Pipe::new(to, from).and_then(Page::attach);
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        match attached {
            Ok(page) => Ok(Self { child, page }),
            Err(error) => {
                end(&mut child);
                Err(error.context(format!("Chromium did not start; it said: {}", said())))
            }
        }
    }

    /// Its page.
    pub fn page(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // One that ended by itself is as good.
        let _ = self.page.tell("Browser.close", &json!({}));
        if command::wait(&mut self.child, END).is_err() {
            end(&mut self.child);
        }
    }
}

/// Ends the whole group.
fn end(child: &mut Child) {
    let _ = signal::killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.wait();
}
