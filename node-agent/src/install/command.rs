//! `culvert install` and `culvert uninstall`: the same once, by hand.

use std::io::Write as _;

use anyhow::{Context as _, bail};

use super::plan::Plan;
use crate::config::{Config, Flags, Install};

/// Installs the plugin as `culvert run` would with the same flags, and says what was done.
pub(crate) fn install(flags: &Flags) -> anyhow::Result<()> {
    let report = plan(flags)?.install()?;
    let mut lines = vec![format!("culvert-cni is in {}", report.configuration.display())];
    if !report.others.is_empty() {
        lines.push(format!("with {}", report.others.join(", ")));
    }
    lines.extend(report.written.iter().map(|path| format!("written: {}", path.display())));
    lines.extend(report.cautions.iter().map(|caution| format!("caution: {caution}")));
    say(&lines)
}

/// Removes it, and says what was done.
pub(crate) fn uninstall(flags: &Flags) -> anyhow::Result<()> {
    let removal = plan(flags)?.remove();
    say(&removal.changed.iter().map(|path| format!("changed: {}", path.display())).collect::<Vec<_>>())?;
    if !removal.failures.is_empty() {
        bail!("not everything could be removed: {}", removal.failures.join("; "));
    }
    Ok(())
}

fn plan(flags: &Flags) -> anyhow::Result<Plan> {
    let install: Install = Config::read_install(flags)?;
    install.plan.context(
        "where to? Name the directory of the container runtime's network configurations with --cni-conf-dir (CNI_CONF_DIR), and \
         that of its plugins with --cni-bin-dir (CNI_BIN_DIR)",
    )
}

fn say(lines: &[String]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(stdout, "{line}"))?;
    Ok(stdout.flush()?)
}
