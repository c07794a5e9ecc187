//! One CPU for everything that is measured: both ends of a connection, the kernel's work between them, eBPF programs.
//!
//! With both ends on one CPU a rate is the reciprocal of the work that a connection makes, and none of it hides on
//! another CPU. Threads inherit what is set here, so it is set before the first one is started.

use std::process::Command;

use anyhow::{Context as _, Result};
use harness::command;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Binds this process to the last CPU that it may use, which interrupts seldom choose, and puts it before the machine's
/// other work there. Returns the CPU.
pub(crate) fn claim() -> Result<usize> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).context("asking for the CPUs")?;
    let cpu = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let cpu = cpu.context("no CPU is allowed to this process")?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(own, &one).context("binding to one CPU")?;
    command::run(Command::new("renice").args(["-n", "-19", "-p", &std::process::id().to_string()]))?;
    Ok(cpu)
}
