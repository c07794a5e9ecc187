//! Fifty pods at once, made and removed, round after round: nothing is left of them.

use anyhow::{Context as _, Result, anyhow, ensure};
use cri_tests::leftovers::Empty;
use cri_tests::{CriPod, PodSpec};

use crate::node;

const PODS: usize = 50;
const ROUNDS: usize = 5;
/// Calls to the runtime at once.
const WORKERS: usize = 10;

#[test]
fn fifty_pods_come_and_go_five_times_and_nothing_is_left() -> Result<()> {
    let (n1, mut mesh) = node()?;
    let name = |number: usize| format!("p{number}");
    mesh.enroll = (0..PODS).map(|number| n1.enrol(&name(number))).collect();
    mesh.write_for(&n1.node, &n1.mesh_path())?;
    let mut agent = n1.start_agent()?;
    let empty = Empty::look(&n1)?;
    for round in 0..ROUNDS {
        let numbers = (0..PODS).collect();
        let pods = in_parallel(numbers, |number| n1.sandbox(&PodSpec::named(&name(number))))?;
        let cookies = pods.iter().map(CriPod::cookie).collect::<Result<Vec<u64>>>()?;
        let enrolled = agent.log_lines(&["pod enrolled"]).len();
        ensure!(enrolled == PODS * (round + 1), "{enrolled} enrolments after round {round}");
        in_parallel(pods, |pod| n1.remove(&pod))?;
        empty.wait(&n1, &cookies).with_context(|| format!("round {round}"))?;
    }
    ensure!(agent.is_running(), "the agent has ended");
    Ok(())
}

/// Does the same to all, some at once.
fn in_parallel<T, R>(items: Vec<T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>>
where
    T: Send + Sync + Clone,
    R: Send,
{
    let share = items.len().div_ceil(WORKERS).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let each = |some: &'_ [T]| some.iter().cloned().map(work).collect::<Result<Vec<R>>>();
        let workers: Vec<_> = items.chunks(share).map(|some| scope.spawn(move || each(some))).collect();
        let mut done = Vec::new();
        for worker in workers {
            done.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        Ok(done)
    })
}
