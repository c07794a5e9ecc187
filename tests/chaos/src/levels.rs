//! What an agent holds: asked of the kernel, not of the agent.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use harness::{Agent, Node};
use linux::bpf;
use linux::testing::keys;

/// Descriptors more than before: pools keep tunnels to peers for a while, and one thread of the runtime more may be there.
const MORE_DESCRIPTORS: usize = 24;
/// Memory more than before, in KiB, and as a part of what there was: an allocator does not give all back.
const MORE_MEMORY: u64 = 32 << 10;
const MEMORY_PART: u64 = 4;

/// Counts what was decided, for a namespace (the first bytes of a key) and a kind of decision. A kind that was not decided before is
/// no leak, so here it is namespaces that count.
const DECISIONS: &str = "DECISIONS";
const NAMESPACE: usize = 8;

/// What is held at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// Resident memory, KiB.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Rows of the maps that are pinned, by the maps' names.
    pub rows: BTreeMap<String, usize>,
}

impl Levels {
    /// Of the agent of a node, now.
    pub fn of(agent: &Agent, node: &Node) -> Result<Self> {
        let pid = agent.pid().context("the agent is not running")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let mut held = BTreeMap::new();
        count(&node.bpffs(), &mut held)?;
        Ok(Self {
            memory: memory.context("no VmRSS")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            rows: held,
        })
    }

    /// Whether these are no more than those before; an error says what is.
    pub fn are_back(&self, before: &Self) -> Result<()> {
        let most = before.memory + before.memory / MEMORY_PART + MORE_MEMORY;
        if self.descriptors > before.descriptors + MORE_DESCRIPTORS {
            bail!("{} descriptors, {} before", self.descriptors, before.descriptors);
        }
        if self.rows != before.rows {
            bail!("rows of maps: {:?}, before {:?}", self.rows, before.rows);
        }
        if self.memory > most {
            bail!("{} KiB of memory, {} before", self.memory, before.memory);
        }
        Ok(())
    }

    /// All rows.
    pub fn all_rows(&self) -> usize {
        self.rows.values().sum()
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (memory, descriptors, rows) = (self.memory, self.descriptors, self.all_rows());
        write!(f, "{memory} KiB, {descriptors} descriptors, {rows} rows of maps")
    }
}

/// Adds the rows of all maps that are pinned below a directory.
fn count(directory: &Path, held: &mut BTreeMap<String, usize>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            count(&path, held)?;
            continue;
        }
        // What is taken down meanwhile is not there.
        let Ok(object) = bpf::open_pin(&path) else { continue };
        if !bpf::is_map(&object)? {
            continue;
        }
        let Some(found) = keys(&object).with_context(|| path.display().to_string())? else { continue };
        let name = bpf::map_info(&object)?.name;
        let rows = if name == DECISIONS {
            found.iter().filter_map(|key| key.get(..NAMESPACE)).collect::<HashSet<_>>().len()
        } else {
            found.len()
        };
        *held.entry(name).or_default() += rows;
    }
    Ok(())
}
