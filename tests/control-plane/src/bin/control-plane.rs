//! The control plane as a process of its own: it serves a mesh, and does what it is told on its input.
//!
//! Once it listens it prints `listening ADDRESS`. Each line of input is a command, answered by `ok` or by
//! `error: …`; it ends with its input, at once.
//!
//! | Command | What it does |
//! |---|---|
//! | `fill W S` | makes up W pods and S services and adds them, in one push |
//! | `churn N` | changes N pods of the generated mesh a second from now on; 0 for none |
//! | `resend` | sends everything to every client once more |
//! | `close` | ends every connection as istiod does with old ones |
//! | `drop` | closes every socket |
//! | `load FILE` | adds the mesh of a file |
//! | `synced [N]` | waits until N clients, or one, are there and have accepted everything |
//! | `play M N` | lets M responses of the recording out, and waits until N clients have accepted each |

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use control_plane::generate::{Size, churn, fill};
use control_plane::{ControlPlane, Ending, Options, Recording, file};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::{MissedTickBehavior, interval};

/// How often changes are pushed: istiod gathers them for as long.
const PERIOD: Duration = Duration::from_millis(100);
const PERIODS: u32 = 10;

/// A control plane for tests.
#[derive(Parser)]
struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where its roots lie: `root-cert.pem`, and the key, which is made if it is not there.
    #[arg(long)]
    dir: PathBuf,
    /// A name or an address of its certificate, beside those of this host itself. May be repeated.
    #[arg(long)]
    name: Vec<String>,
    /// A mesh, JSON.
    #[arg(long)]
    mesh: Option<PathBuf>,
    /// A recording to play in place of a mesh, JSON line by line; nothing of it is out before `play`.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Pods to make up.
    #[arg(long, default_value_t = 0)]
    workloads: u32,
    /// Services to make up.
    #[arg(long, default_value_t = 0)]
    services: u32,
    /// The largest request that it reads, in bytes; istiod's own is 4 MiB.
    #[arg(long, default_value_t = 4 << 20)]
    largest_request: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("make {}", args.dir.display()))?;
    let plane = ControlPlane::start(Options {
        listen: args.listen,
        names: args.name,
        largest_request: args.largest_request,
        ..Options::new(&args.dir)
    })
    .await?;
    let mut size = Size { workloads: args.workloads, services: args.services };
    plane.update(|world| fill(world, size));
    if let Some(path) = &args.mesh {
        load(&plane, path)?;
    }
    if let Some(path) = &args.replay {
        plane.play(Recording::read(path)?);
    }
    say(&format!("listening {}", plane.address()))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut rate, mut round) = (0, 0);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                match obey(&plane, &line, &mut size, &mut rate).await {
                    Ok(()) => say("ok")?,
                    Err(error) => say(&format!("error: {error:#}"))?,
                }
            }
            _ = ticks.tick(), if rate > 0 => plane.update(|world| {
                for _ in 0..rate / PERIODS {
                    churn(world, size, round);
                    round = round.wrapping_add(1);
                }
            }),
        }
    }
}

async fn obey(plane: &ControlPlane, line: &str, size: &mut Size, rate: &mut u32) -> Result<()> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words.as_slice() {
        ["fill", workloads, services] => {
            *size = Size {
                workloads: workloads.parse().context("how many pods")?,
                services: services.parse().context("how many services")?,
            };
            plane.update(|world| fill(world, *size));
        }
        ["churn", number] => *rate = number.parse().context("changes a second")?,
        ["resend"] => plane.resend(),
        ["close"] => plane.end_connections(Ending::Graceful),
        ["drop"] => plane.end_connections(Ending::Abrupt),
        ["load", path] => load(plane, Path::new(path))?,
        ["play", responses, clients] => {
            let responses = responses.parse().context("how many responses")?;
            plane.until(responses);
            plane.accepted_by(clients.parse().context("how many clients")?, responses).await?;
        }
        ["synced"] => plane.synced_by(1).await?,
        ["synced", clients] => plane.synced_by(clients.parse().context("how many clients")?).await?,
        _ => bail!("there is no command {line:?}"),
    }
    Ok(())
}

fn load(plane: &ControlPlane, path: &Path) -> Result<()> {
    let mut loaded = Ok(());
    plane.update(|world| loaded = file::load(world, path));
    loaded
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
