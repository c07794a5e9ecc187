//! What a node's runtimes make of the plugin, and the plugin of their calls.

#![forbid(unsafe_code)]

mod chain;
mod churn;
mod image;
mod kubernetes;
mod outage;
mod podman;
mod verbs;

use anyhow::Result;
use cri_tests::CriNode;
use harness::{MeshFile, Run, Wire};

/// A node on a wire of its own, whose agent is not started, and an empty mesh.
fn node() -> Result<(CriNode, MeshFile)> {
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let node = CriNode::start(&wire, "n1")?;
    let mesh = MeshFile::with_ca(&run.dir().join("ca"));
    Ok((node, mesh))
}
