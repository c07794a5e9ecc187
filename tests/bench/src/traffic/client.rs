//! The client: connects, says that it is ready, waits to be told to go, and prints what came of it.

mod bulk;
mod exchanges;

use std::io::BufRead as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::exchange::Shape;
use super::{ClientArgs, GO, HEAD, Kind, Outcome, READY};

pub(crate) fn run(args: &ClientArgs) -> Result<()> {
    linux::limits::raise_descriptors().context("raising the limit of open files")?;
    ensure!(args.request as usize >= HEAD, "a request has {HEAD} bytes at least");
    let outcome = match args.kind {
        Kind::Bulk => bulk::run(args)?,
        Kind::Connect | Kind::Ask | Kind::Hold => exchanges::run(args)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Says that everything stands, and waits for the word.
fn ready() -> Result<()> {
    println!("{READY}");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("waiting to be told to go")?;
    ensure!(line.trim() == GO, "told {line:?} in place of {GO:?}");
    Ok(())
}

/// Where connections go, one after the other: addresses in turn, and of each the ports in turn.
struct Targets<'a> {
    args: &'a ClientArgs,
    next: u64,
}

impl<'a> Targets<'a> {
    const fn new(args: &'a ClientArgs) -> Self {
        Self { args, next: 0 }
    }

    fn next(&mut self) -> Result<SocketAddr> {
        let (turn, count) = (self.next, self.args.to.len() as u64);
        self.next += 1;
        let address = turn.checked_rem(count).and_then(|at| self.args.to.get(usize::try_from(at).ok()?));
        let port = (turn / count.max(1)) % u64::from(self.args.ports.max(1));
        let port = self.args.port.checked_add(u16::try_from(port)?).context("ports end at 65535")?;
        Ok(SocketAddr::new(*address.context("nowhere to connect to")?, port))
    }
}

const fn shape(args: &ClientArgs) -> Shape {
    Shape { kind: args.kind, request: args.request, reply: args.reply }
}

/// Bytes that were counted at the other end.
const fn counted(seconds: f64, bytes: u64) -> Outcome {
    Outcome { seconds, bytes, count: 0, p50: 0.0, p99: 0.0, longest: 0.0, stalls: 0 }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ClientArgs,
    }

    #[test]
    fn addresses_are_taken_in_turn_and_then_ports() {
        let words = "x connect --to 10.0.0.1 --to 10.0.0.2 --port 80 --ports 2";
        let line = Line::parse_from(words.split(' '));
        let mut targets = Targets::new(&line.args);
        let taken: Vec<_> = (0..5).map(|_| targets.next().unwrap().to_string()).collect();
        assert_eq!(taken, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:81", "10.0.0.2:81", "10.0.0.1:80"]);
    }
}
