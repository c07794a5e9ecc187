//! `culvert top` on a real terminal, and what that shows as a page.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::Agent;

/// What each frame begins with.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// The frames that are waited for: rates are those since the one before.
const FRAMES: usize = 3;
/// Most that is read of it.
const MOST: usize = 1 << 20;

/// A whole frame of it, as the terminal gets it.
pub(crate) fn top(agent: &Agent, run_dir: &Path) -> Result<String> {
    let line = agent.command_line()?;
    let program = line.first().context("the agent's program")?;
    let top = format!("exec {program} top --every 2 --run-dir {}", run_dir.display());
    // It makes a terminal of its own (util-linux), and passes on what is written there.
    let mut on_terminal = Command::new("script");
    on_terminal.args(["--quiet", "--flush", "--command", &top, "/dev/null"]);
    on_terminal.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    let mut child =
        on_terminal.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting script")?;
    let shown = frames(child.stdout.take().context("stdout")?);
    // Its terminal goes with it, and with that whoever writes there.
    child.kill()?;
    child.wait()?;
    let shown = shown?;
    let frame = shown.split(CLEAR).nth(FRAMES - 1).context("no whole frame")?;
    Ok(frame.replace('\r', "").trim_end().to_owned())
}

/// Reads until a frame is whole.
fn frames(mut from: impl std::io::Read) -> Result<String> {
    let (mut shown, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let length = from.read(&mut piece)?;
        shown.extend_from_slice(piece.get(..length).unwrap_or_default());
        let text = String::from_utf8_lossy(&shown).into_owned();
        if text.matches(CLEAR).count() >= FRAMES {
            return Ok(text);
        }
        ensure!(length > 0 && shown.len() < MOST, "top ended: {text}");
    }
}

/// The terminal as a page: its text, and its colours.
pub(crate) fn page(shown: &str) -> String {
    let mut text = String::new();
    for (number, part) in shown.split("\x1b[").enumerate() {
        let (code, rest) = if number == 0 { ("", part) } else { part.split_once('m').unwrap_or(("", part)) };
        let (before, after) = match code {
            "31" => ("<b class=\"bad\">", "</b>"),
            "32" => ("<b class=\"good\">", "</b>"),
            "33" => ("<b class=\"warn\">", "</b>"),
            _ => ("", ""),
        };
        let escaped = rest.replace('&', "&amp;").replace('<', "&lt;");
        // Writing to a String does not fail.
        let _ = write!(text, "{before}{escaped}{after}");
    }
    format!("{HEAD}<pre><i>n2 # culvert top</i>\n{text}</pre>")
}

const HEAD: &str = "<!DOCTYPE html><meta charset=\"utf-8\"><style>
html { background: #10151b; }
body { margin: 0; width: max-content; }
pre { margin: 0; padding: 18px 26px 22px; font: 15px/1.45 'DejaVu Sans Mono', monospace; color: #dbe2ea; }
i { font-style: normal; color: #8b98a5; }
b { font-weight: 400; } .bad { color: #ff7b72; } .good { color: #4ac26b; } .warn { color: #e3b341; }
</style>";
