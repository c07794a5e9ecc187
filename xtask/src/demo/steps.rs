//! The steps, in the order in which they are told.

mod before;
mod cni;
mod crash;
mod enrol;
mod evidence;
mod logs;
mod policy;
mod tunnel;

use anyhow::{Context as _, Result};
use harness::Narrator;

use super::world::World;

/// From the first plain request to the last metric.
pub(crate) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    before::tell(say, world).context("before enrolment")?;
    enrol::tell(say, world).context("enrolling running pods")?;
    tunnel::tell(say, world).context("through the tunnel")?;
    logs::tell(say, world).context("logs")?;
    cni::tell(say, world).context("a pod that starts in the mesh")?;
    policy::tell(say, world).context("policy")?;
    crash::tell(say, world).context("a crash")?;
    evidence::tell(say, world).context("evidence")
}

/// The last step; it follows whatever happened before.
pub(crate) fn take_down(say: &mut Narrator, world: World) {
    say.step("Taking everything down");
    let id = world.run.id().to_owned();
    let traces = [world.run.dir(), world.run.bpffs()];
    let namespaces: Vec<_> = world.pods().map(|pod| pod.netns().to_owned()).collect();
    drop(world);
    let left: Vec<_> = traces
        .iter()
        .chain(&namespaces)
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    say.saw(&left.join("\n"));
    say.claim(left.is_empty(), &format!("no namespace, pin or file of {id} is left"));
}
