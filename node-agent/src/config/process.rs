//! The process of the agent: its places on disk, its ports, its end, its log.

use std::net::SocketAddr;
use std::time::Duration;

use super::given::Source;
use super::kinds::{GRACE, LISTEN, PATH, SWITCH};
use super::reader::Reader;
use super::setting::{Kind, Section, Setting};
use crate::admin::AdminAddress;
use crate::cli::Place;
use crate::logging::{Levels, LogFormat};

/// What of the grace period of a pod is left for everything but connections.
const MARGIN: Duration = Duration::from_secs(5);

const FORMAT: Kind<LogFormat> = Kind { value: "plain|json", allowed: "plain or json", parse: format };
const FILTER: Kind<String> = Kind {
    value: "FILTER",
    allowed: "error, warn, info, debug, trace or off, and SCOPE=LEVEL with commas between, such as info,access=debug",
    parse: filter,
};
const LOOPBACK: Kind<AdminAddress> = Kind {
    value: "ADDRESS:PORT",
    allowed: "localhost:PORT, or a loopback address with a port such as 127.0.0.1:15000 or [::1]:15000",
    parse: loopback,
};
const SECONDS: Kind<Option<u64>> =
    Kind { value: "SECONDS", allowed: "a whole number of seconds; empty if it is not known", parse: seconds };

static RUN_DIR: Setting<std::path::PathBuf> = Setting::new(
    ("run-dir", "CULVERT_RUN_DIR"),
    crate::cli::RUN_DIR,
    PATH,
    "Sockets, lock and enrolment records.",
);
static BPFFS: Setting<std::path::PathBuf> = Setting::new(
    ("bpffs", "CULVERT_BPFFS"),
    crate::cli::BPFFS,
    PATH,
    "Directory in the BPF file system for links and maps that outlive the agent.",
);
static PROC: Setting<std::path::PathBuf> = Setting::new(
    ("proc", "CULVERT_PROC"),
    crate::cli::PROC,
    PATH,
    "The process table that shows the node's containers.",
);
static METRICS: Setting<SocketAddr> = Setting::new(
    ("metrics-address", "CULVERT_METRICS_ADDRESS"),
    "[::]:15020",
    LISTEN,
    "Address of /metrics and /stats/prometheus.",
);
static READINESS: Setting<SocketAddr> = Setting::new(
    ("readiness-address", "CULVERT_READINESS_ADDRESS"),
    "[::]:15021",
    LISTEN,
    "Address of /healthz/ready.",
);
static ADMIN: Setting<AdminAddress> = Setting::new(
    ("admin-address", "CULVERT_ADMIN_ADDRESS"),
    "localhost:15000",
    LOOPBACK,
    "Address of the admin interface, which this host alone can ask; localhost is both loopback addresses. See docs/admin.md.",
);
static TAKE_OVER: Setting<bool> = Setting::new(
    ("take-over", "CULVERT_TAKE_OVER"),
    "false",
    SWITCH,
    "If another agent of this installation runs, ask it to hand its pods over, instead of waiting until it ends.",
);
static DRAIN_LIMIT: Setting<Duration> = Setting::new(
    ("drain-limit", "CULVERT_DRAIN_LIMIT"),
    "3600s",
    GRACE,
    "For how long connections that are open go on after the pods were handed over to another agent.",
);
pub(super) static DEADLINE: Setting<Duration> = Setting::new(
    ("connection-termination-deadline", "CONNECTION_TERMINATION_DEADLINE"),
    "5s",
    GRACE,
    "For how long connections that are open go on after the agent was told to end (SIGTERM) with no other one to take over. \
     By default 5 s less than the pod's grace period, if that is known.",
);
pub(super) static GRACE_PERIOD: Setting<Option<u64>> = Setting::new(
    ("termination-grace-period-seconds", "TERMINATION_GRACE_PERIOD_SECONDS"),
    "",
    SECONDS,
    "The grace period of the agent's pod, which decides how long connections go on when it ends.",
);
static LOG_FORMAT: Setting<LogFormat> =
    Setting::new(("log-format", "LOG_FORMAT"), "plain", FORMAT, "Form of the log.");
static LOG: Setting<String> = Setting::new(("log", "RUST_LOG"), "info", FILTER, "What is logged.");

pub(super) static SECTION: Section = Section {
    title: "Process",
    settings: &[
        &RUN_DIR,
        &BPFFS,
        &PROC,
        &METRICS,
        &READINESS,
        &ADMIN,
        &TAKE_OVER,
        &DRAIN_LIMIT,
        &DEADLINE,
        &GRACE_PERIOD,
        &LOG_FORMAT,
        &LOG,
    ],
    families: &[],
};

/// What the agent needs of its surroundings as a process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Where it keeps its things.
    pub(crate) place: Place,
    /// The port of the metrics.
    pub(crate) metrics_address: SocketAddr,
    /// The port of the readiness probe.
    pub(crate) readiness_address: SocketAddr,
    /// The port of the admin interface.
    pub(crate) admin_address: AdminAddress,
    /// Whether another agent is asked to hand over.
    pub(crate) take_over: bool,
    /// How long connections go on after the pods were handed over.
    pub(crate) drain_limit: Duration,
    /// How long connections go on after the agent was told to end.
    pub(crate) termination_deadline: Duration,
    /// The form of the log.
    pub(crate) log_format: LogFormat,
    /// What is logged, in the words of `RUST_LOG`; a good filter.
    pub(crate) log: String,
}

/// Reads what the process needs.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Process> {
    let [run_dir, bpffs, proc] = [&RUN_DIR, &BPFFS, &PROC].map(|one| reader.read(one));
    let [metrics, readiness] = [&METRICS, &READINESS].map(|one| reader.read(one));
    let [drain_limit, deadline] = [&DRAIN_LIMIT, &DEADLINE].map(|one| reader.read(one));
    let admin = reader.read(&ADMIN);
    let (take_over, log_format, log) = (reader.read(&TAKE_OVER), reader.read(&LOG_FORMAT), reader.read(&LOG));
    reader.read(&GRACE_PERIOD)?;
    Some(Process {
        place: Place { run_dir: run_dir?, bpffs: bpffs?, proc: proc? },
        metrics_address: metrics?,
        readiness_address: readiness?,
        admin_address: admin?,
        take_over: take_over?,
        drain_limit: drain_limit?,
        termination_deadline: deadline?,
        log_format: log_format?,
        log: log?,
    })
}

/// The deadline that follows from the pod's grace period, if that is a good one.
pub(super) fn deadline_within(grace_period: &str) -> Option<(String, Source)> {
    let grace = Duration::from_secs(GRACE_PERIOD.parse(grace_period).ok()??);
    let deadline = humantime::format_duration(grace.saturating_sub(MARGIN)).to_string();
    Some((deadline, Source::DefaultFor("by TERMINATION_GRACE_PERIOD_SECONDS")))
}

fn format(text: &str) -> Result<LogFormat, String> {
    match text {
        "plain" => Ok(LogFormat::Plain),
        "json" => Ok(LogFormat::Json),
        _ => Err("no such form".to_owned()),
    }
}

fn filter(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a filter is missing".to_owned());
    }
    match Levels::filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("no filter: {error}")),
    }
}

fn loopback(text: &str) -> Result<AdminAddress, String> {
    text.parse()
}

fn seconds(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() { Ok(None) } else { super::kinds::number(text).map(Some) }
}
