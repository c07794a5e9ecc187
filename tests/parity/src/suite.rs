//! One run: the world, its groups of rows one after the other, and what became of each row.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use recordings::parity::{self, Row};

use crate::agents::{AGENTS, Agents};
use crate::chance::Chance;
use crate::compare::Verdict;
use crate::differences::Difference;
use crate::report::Group;
use crate::rows::{steps, target, title};
use crate::step::{Judging, Mark, connect, settle};
use crate::world::World;
use crate::{live, server};

/// The row in which the control plane is ended as istiod ends.
const STOPS: &str = "istiod stops";
/// Pods that have no servers: what listens there is something else.
const WITHOUT_SERVERS: &str = "waypoint";
/// A node that servers are on, too.
const HOST_NETWORK: &str = "node-a";
const OUTSIDE: &str = "outside";

/// A world in which rows can be made.
pub struct Suite {
    agents: Agents,
    world: World,
    differences: Vec<Difference>,
    /// How much of the present recording has been told.
    told: usize,
    playing: PathBuf,
}

/// A group of rows, and what the control plane said meanwhile.
pub struct Script {
    name: &'static str,
    rows: Vec<Row>,
    conversation: &'static str,
}

impl Script {
    /// All of them, in the order in which they were recorded.
    pub fn all() -> Result<[Self; 3]> {
        let script = |name, rows, conversation| Self { name, rows, conversation };
        Ok([
            script("routing", parity::routing()?, "parity/routing_xds"),
            script("policy", parity::policy()?, "parity/policy_xds"),
            script("live", parity::live()?, "parity/live_xds"),
        ])
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name
    }
}

impl Suite {
    /// Makes the world for a first script.
    pub fn new(first: &Script, differences: Vec<Difference>) -> Result<Self> {
        let world = World::new(parity::world()?)?;
        let recorded = &world.recorded;
        let pods = recorded.pods.keys().map(String::as_str).filter(|name| *name != WITHOUT_SERVERS);
        for name in pods.chain([HOST_NETWORK, OUTSIDE]) {
            server::start(world.place(name)?, &recorded.servers.ports)?;
        }
        let playing = write(&world, first)?;
        let told = first.rows.first().context("a group has rows")?.xds_before;
        let agents = Agents::start(&world, &playing, told)?;
        Ok(Self { agents, world, differences, told, playing })
    }

    /// What differs on purpose.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Makes all rows of a script; `tell` hears of those that are worse.
    pub fn run(&mut self, script: &Script, tell: &mut dyn FnMut(&str, &str)) -> Result<Group> {
        let chance = Chance::of(&recordings::conversation(script.conversation)?);
        let path = write(&self.world, script)?;
        if path != self.playing {
            self.agents.plane.replay(&path)?;
            (self.told, self.playing) = (0, path);
        }
        let rows = &script.rows;
        let mut verdicts: Vec<Option<Verdict>> = rows.iter().map(|_| None).collect();
        for step in steps(rows) {
            let members: Vec<&Row> = step.iter().filter_map(|index| rows.get(*index)).collect();
            let made = self
                .step(&members, &chance)
                .with_context(|| members.first().map(|row| title(row)).unwrap_or_default())?;
            ensure!(made.len() == step.len(), "{} verdicts of {} rows", made.len(), step.len());
            for ((index, row), verdict) in step.into_iter().zip(members).zip(made) {
                if let Verdict::Worse(how) = &verdict {
                    tell(&title(row), how);
                }
                if let Some(slot) = verdicts.get_mut(index) {
                    *slot = Some(verdict);
                }
            }
        }
        let verdicts =
            rows.iter().map(title).zip(verdicts).filter_map(|(title, it)| Some((title, it?))).collect();
        Ok(Group { name: script.name.to_owned(), recorded: rows.len(), verdicts })
    }

    /// Makes rows at the same time.
    fn step(&mut self, rows: &[&Row], chance: &Chance) -> Result<Vec<Verdict>> {
        let first = rows.first().context("a step has rows")?;
        self.tell_until(first.xds_before)?;
        let since = Mark::now(&self.agents.all)?;
        let places = rows.iter().map(|row| Ok((*row, self.world.place(&row.from)?.clone())));
        let places: Vec<_> = places.collect::<Result<_>>()?;
        let placed: Vec<_> = places.iter().map(|(row, place)| (*row, place)).collect();
        let results = match placed.as_slice() {
            [(row, place)] if is_live(row) => vec![live::through(place, target(row)?, || self.change(row))?],
            rows => connect(rows)?,
        };
        let judging = Judging { chance, differences: &self.differences };
        settle(&placed, &results, &since, &self.agents.all, &judging)
    }

    /// What happens while the connection of a row is open.
    fn change(&mut self, row: &Row) -> Result<()> {
        if row.about == STOPS {
            self.agents.plane.tell("close")?;
            return self.agents.plane.kill9();
        }
        self.tell_until(row.xds_messages)
    }

    fn tell_until(&mut self, count: usize) -> Result<()> {
        ensure!(count >= self.told, "{count} responses after {}", self.told);
        if count > self.told {
            self.agents.plane.play(count, AGENTS)?;
            self.told = count;
        }
        Ok(())
    }
}

/// Whether a row looks twice at one connection.
fn is_live(row: &Row) -> bool {
    row.results.iter().any(|result| result.get("live").is_some())
}

/// Puts a script's recording where the control plane can read it.
fn write(world: &World, script: &Script) -> Result<PathBuf> {
    let path = world.run.dir().join(format!("{}.jsonl", script.name));
    std::fs::write(&path, recordings::text(&format!("{}.jsonl", script.conversation))?)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
