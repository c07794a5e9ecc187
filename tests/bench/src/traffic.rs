//! The traffic of `bench data`: a client and a server, each in a process of its own that is started in a pod.
//!
//! Both are one thread that never blocks but in epoll(7), so that they cost little beside what is measured, at one connection
//! and at hundreds. The head of a connection tells the server what is wanted, so that one server does for all measurements.
//! Whatever goes wrong with a connection ends the process with an error: a rate of failures is no rate.

mod client;
mod exchange;
mod latency;
mod poll;
mod server;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(crate) use self::client::run as run_client;
pub(crate) use self::server::run as run_server;

/// What a client says that it is ready with, and what it is told to begin with.
pub(crate) const READY: &str = "ready";
pub(crate) const GO: &str = "go";

/// The head of a connection: kind, request and reply, big-endian.
const HEAD: usize = 12;
/// Bytes of one write or read in bulk.
const CHUNK: usize = 256 * 1024;

/// How the server is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// First port.
    #[arg(long)]
    pub(crate) port: u16,
    /// How many.
    #[arg(long, default_value_t = 1)]
    pub(crate) ports: u16,
}

/// What a client does.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    pub(crate) kind: Kind,
    /// Where to; several are used in turn.
    #[arg(long, required = true)]
    pub(crate) to: Vec<IpAddr>,
    /// First port.
    #[arg(long)]
    pub(crate) port: u16,
    /// How many are used in turn, so that no pair of ports comes again while the kernel remembers it.
    #[arg(long, default_value_t = 1)]
    pub(crate) ports: u16,
    /// Connections at once.
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Exchanges a second, on all connections together; without it each follows the one before.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// So many exchanges, whatever time they take.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Bytes of a request, its head among them.
    #[arg(long, default_value_t = 128)]
    pub(crate) request: u32,
    /// Bytes of a reply.
    #[arg(long, default_value_t = 1024)]
    pub(crate) reply: u32,
}

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Bytes to the server for as long as it takes; then it says how many have come.
    Bulk,
    /// One exchange, then the server closes.
    Connect,
    /// Exchanges on connections that stay.
    Ask,
    /// One exchange, then nothing, until all are closed.
    Hold,
}

/// What came of it, as the client prints it in one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Bytes that arrived, in bulk.
    pub(crate) bytes: u64,
    /// Exchanges.
    pub(crate) count: u64,
    /// Microseconds: half of the exchanges, nearly all of them, and the longest.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) longest: f64,
    /// Exchanges that took 8 ms or more.
    pub(crate) stalls: u64,
}

impl Kind {
    /// As it is written on a command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Connect => "connect",
            Self::Ask => "ask",
            Self::Hold => "hold",
        }
    }

    const fn letter(self) -> u8 {
        match self {
            Self::Bulk => b'b',
            Self::Connect => b'c',
            Self::Ask | Self::Hold => b'a',
        }
    }

    const fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'b' => Some(Self::Bulk),
            b'c' => Some(Self::Connect),
            b'a' => Some(Self::Ask),
            _ => None,
        }
    }
}
