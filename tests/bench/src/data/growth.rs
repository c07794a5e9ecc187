//! What things cost as work grows: connections, pods of a node, sizes of messages, workers.

use anyhow::Result;
use serde::Serialize;

use super::proxy::Program;
use super::slice::{Order, Slice};
use super::world::{Size, Way, World};

const PODS: [usize; 5] = [1, 2, 4, 8, 16];
const CONNECTIONS: [usize; 4] = [1, 8, 64, 512];
const MESSAGES: [u32; 5] = [100, 1 << 10, 10 << 10, 100 << 10, 1 << 20];

/// One point of a curve.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    /// The curve.
    pub(super) what: &'static str,
    /// Where on it.
    pub(super) at: usize,
    pub(super) agent: String,
    /// Workers of each agent.
    pub(super) workers: usize,
    pub(super) direct: Slice,
    pub(super) meshed: Slice,
}

pub(super) const BULK: &str = "bulk by connections";
const ASK: &str = "messages by size";
const BULK_PODS: &str = "bulk by pods";
const CONNECT_PODS: &str = "new connections by pods";
/// All curves.
pub(super) const CURVES: [&str; 4] = [BULK, ASK, BULK_PODS, CONNECT_PODS];

/// Measures every curve, in slices of so many seconds.
pub(super) fn measure(program: &Program, workers: usize, seconds: f64) -> Result<Vec<Point>> {
    let pairs = PODS.into_iter().max().unwrap_or(1);
    let world = World::new(program, Size { pairs, cold: 0, workers: Some(workers) })?;
    let mut points = Vec::new();
    let mut point = |what, at, order: Order| {
        let order = Order { seconds, ..order };
        let (direct, meshed) = (world.slice(Way::Direct, &order)?, world.slice(Way::Meshed, &order)?);
        println!("  {what} {at}: {}", line(what, &direct, &meshed).join(", "));
        points.push(Point { what, at, agent: program.name.clone(), workers, direct, meshed });
        anyhow::Ok(())
    };
    for streams in CONNECTIONS {
        point(BULK, streams, Order { pairs: Some(1), ..Order::bulk(streams) })?;
    }
    for bytes in MESSAGES {
        point(ASK, bytes as usize, Order { pairs: Some(1), request: bytes, reply: bytes, ..Order::ask(16) })?;
    }
    for pods in PODS {
        point(BULK_PODS, pods, Order { pairs: Some(pods), ..Order::bulk(16) })?;
        point(CONNECT_PODS, pods, Order { pairs: Some(pods), ..Order::connect(16) })?;
    }
    Ok(points)
}

impl Point {
    /// What the curve shows at this point, without and with the mesh, in [`unit`].
    pub(super) fn figures(&self) -> [f64; 2] {
        [&self.direct, &self.meshed].map(|slice| figure(self.what, slice))
    }
}

/// In what a curve is drawn.
pub(super) fn unit(what: &str) -> &'static str {
    if is_bulk(what) { "Gb/s" } else { "/s" }
}

fn is_bulk(what: &str) -> bool {
    what == BULK || what == BULK_PODS
}

fn figure(what: &str, slice: &Slice) -> f64 {
    if is_bulk(what) { slice.gigabits() } else { slice.rate() }
}

/// Both figures of a point, and what the agents cost.
fn line(what: &str, direct: &Slice, meshed: &Slice) -> [String; 3] {
    let (work, per) = if is_bulk(what) { (meshed.gibs(), "GiB") } else { (meshed.thousands(), "1000") };
    let (unit, cost) = (unit(what), meshed.mesh() / work.max(f64::MIN_POSITIVE));
    let [direct, meshed] = [direct, meshed].map(|slice| figure(what, slice));
    [
        format!("{direct:.1} {unit} direct"),
        format!("{meshed:.1} {unit} in the mesh"),
        format!("{cost:.3} CPU-s/{per} of the agents"),
    ]
}

/// Prints all points, in the form of docs/performance.md.
pub(super) fn print(points: &[Point]) {
    println!("\n| | | agent, workers | direct | in the mesh | cost of the two agents |");
    println!("|---|---|---|---|---|---|");
    for Point { what, at, agent, workers, direct, meshed } in points {
        println!("| {what} | {at} | {agent}, {workers} | {} |", line(what, direct, meshed).join(" | "));
    }
}
