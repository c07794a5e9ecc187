//! A soak: nothing fails, for a long time, under a load; and what the agents hold does not grow.
//!
//! What is held is looked at again and again, and a line is laid through what was seen. That it rises is told from noise by how
//! far single looks are from the line: it may rise over the whole time by no more than they are wide.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::levels::Levels;
use crate::load::{Counts, Load, Size};
use crate::storm::{denied, goes_on, until_it_sees, ways};
use crate::watch::Watch;
use crate::world::World;

/// New connections a second on both ways together.
pub const RATE: u64 = 300;
/// Connections that are kept, on each way.
const KEPT: usize = 100;
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);
/// The part of the time in which everything that grows at first has grown.
const WARM_UP: u32 = 4;
/// So many widths of the noise may be between the line's ends.
const WIDTHS: f64 = 4.0;
/// Rises that nobody would see: MiB, descriptors, rows.
const UNSEEN: [f64; 3] = [4.0, 8.0, 8.0];
/// Parts of a thousand of the rate that must have been reached: else it was not that load.
const REACHED: u64 = 950;

/// A soak of this length, at this rate.
pub fn soak(seed: u64, length: Duration, rate: u64) -> Result<()> {
    let world = World::new(seed, false)?;
    let watch = Watch::start(world.wire.netns())?;
    until_it_sees(&world, &watch)?;
    let size = Size { rate: rate / 2, workers: 16, kept: KEPT };
    let load = Load::start(&ways(&world), &denied(&world), size)?;
    goes_on(&load.counts, 1)?;
    let began = Instant::now();
    let mut looks: Vec<(f64, [Levels; 2])> = Vec::new();
    while began.elapsed() < length {
        std::thread::sleep(PERIOD);
        load.counts.check()?;
        watch.check()?;
        let [one, other] = &world.places;
        let levels = [Levels::of(&one.agent, &one.node)?, Levels::of(&other.agent, &other.node)?];
        let (at, served) = (began.elapsed().as_secs_f64(), Counts::now(&load.counts.served));
        println!("  {at:6.0} s  {served} served; n1 {}; n2 {}", levels[0], levels[1]);
        looks.push((at, levels));
    }
    let took = began.elapsed();
    let counts = load.end()?;
    counts.check()?;
    watch.finish()?;
    let (served, failed) = (Counts::now(&counts.served), Counts::now(&counts.failed));
    ensure!(failed == 0, "{failed} of {} connections failed", served + failed);
    let wanted = rate * took.as_secs() * REACHED / 1000;
    ensure!(
        served >= wanted,
        "{served} connections in {took:?}: this machine does not make {rate} a second; --rate sets another"
    );
    looks.retain(|(at, _)| *at >= (took / WARM_UP).as_secs_f64());
    for (number, place) in world.places.iter().enumerate() {
        let of = |what: fn(&Levels) -> f64| -> Vec<(f64, f64)> {
            looks.iter().filter_map(|(at, levels)| Some((*at, what(levels.get(number)?)))).collect()
        };
        let series: [(&str, Vec<(f64, f64)>); 3] = [
            ("MiB of memory", of(|levels| levels.memory as f64 / 1024.0)),
            ("descriptors", of(|levels| levels.descriptors as f64)),
            ("rows of maps", of(|levels| levels.all_rows() as f64)),
        ];
        for ((what, points), unseen) in series.iter().zip(UNSEEN) {
            let line = Line::through(points);
            let most = unseen.max(WIDTHS * line.noise);
            println!(
                "  {}: {what} rise by {:.2} in all; noise {:.2}",
                place.node.name(),
                line.rise,
                line.noise
            );
            ensure!(
                line.rise <= most,
                "{what} of {} rise by {:.2}, over {most:.2}",
                place.node.name(),
                line.rise
            );
        }
    }
    Ok(())
}

/// The line of least squares through what was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    /// From the first look to the last.
    rise: f64,
    /// How far a look is from the line, as a standard deviation.
    noise: f64,
}

impl Line {
    fn through(points: &[(f64, f64)]) -> Self {
        let count = points.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let common: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let slope = if spread > 0.0 { common / spread } else { 0.0 };
        let far: f64 = points.iter().map(|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sum();
        let span = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
        Self { rise: slope * span, noise: (far / count).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_told_from_noise() {
        let noise = |at: u32| if at.is_multiple_of(2) { 1.0 } else { -1.0 };
        let flat: Vec<_> = (0..100).map(|at| (f64::from(at), 50.0 + noise(at))).collect();
        let line = Line::through(&flat);
        assert!(line.rise.abs() < 0.1 && (line.noise - 1.0).abs() < 0.01, "{line:?}");
        let leak: Vec<_> =
            (0..100).map(|at| (f64::from(at), 50.0 + noise(at) + f64::from(at) * 0.1)).collect();
        let line = Line::through(&leak);
        assert!(line.rise > 9.0 && line.rise > WIDTHS * line.noise, "{line:?}");
        assert_eq!(Line::through(&[]), Line { rise: 0.0, noise: 0.0 });
    }
}
