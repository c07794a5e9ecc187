//! From exec to ready with a mesh file, empty and full, and what the agent weighs then.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use harness::mesh_file::{self, Service, Workload};
use harness::{MeshFile, Node, Run, Wire};

use super::agent::{self, Cpus, On, Started};
use super::plane::Size;
use crate::figures::Figures;
use crate::stats::Spread;

/// Most milliseconds from exec to ready: with an empty file, with a full one.
const EMPTY_READY: f64 = 40.0;
const FULL_READY: f64 = 120.0;
/// Most MiB with the full one.
const FULL_RSS: f64 = 28.0;
/// After this long freed memory has gone back, and what is in use is what is needed.
const SETTLED: Duration = Duration::from_secs(12);

pub(super) fn measure(
    run: &Arc<Run>,
    cpus: &Cpus,
    size: Size,
    rounds: usize,
    figures: &mut Figures,
) -> Result<()> {
    println!("\nThe agent with a mesh file, {rounds} starts each");
    let wire = Wire::new(run)?;
    let node = wire.add_node("start")?;
    let nothing = Size { workloads: 0, services: 0 };
    for (size, form, ready, rss) in [
        (nothing, Form::Yaml, EMPTY_READY, None),
        (size, Form::Yaml, FULL_READY, Some(FULL_RSS)),
        (size, Form::Json, FULL_READY, Some(FULL_RSS)),
    ] {
        let path = write(run, &node, size, form)?;
        let what = format!("{} workloads in {}", size.workloads, form.name());
        let mut times = Vec::new();
        for _ in 0..rounds {
            let Started { mut agent, took, .. } = agent::start(On::All(cpus), &node, &path, &[])?;
            times.push(took.as_secs_f64() * 1e3);
            agent.stop()?;
        }
        let spread = Spread::of(times);
        figures.at_most(&format!("{what}: exec to ready, median"), spread.median, ready, "ms");
        let Started { mut agent, process, .. } = agent::start(On::All(cpus), &node, &path, &[])?;
        std::thread::sleep(SETTLED);
        let what = format!("{what}: memory");
        match rss {
            Some(target) => figures.at_most(&what, process.rss()?, target, "MiB"),
            None => figures.note(&what, process.rss()?, "MiB"),
        }
        figures.note(&format!("{what} at its peak"), process.peak()?, "MiB");
        agent.stop()?;
    }
    Ok(())
}

/// How the file is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As people write it.
    Yaml,
    /// As dumps are.
    Json,
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::Yaml => "YAML",
            Self::Json => "JSON",
        }
    }
}

fn write(run: &Run, node: &Node, size: Size, form: Form) -> Result<PathBuf> {
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    let address = |base: u32, n: u32| IpAddr::from(Ipv4Addr::from(base + n));
    mesh.services = (0..size.services)
        .map(|n| {
            let namespace = format!("ns-{}", n % 50);
            Service::new(&format!("service-{n}"), &namespace, &[address(0xac18_0000, n)], &[(80, 8080)])
        })
        .collect();
    for (n, service) in (0..size.workloads).zip(mesh.services.iter().cycle()) {
        let namespace = format!("ns-{}", n % 50);
        let pod = Workload::hbone(&format!("pod-{n}"), &namespace, node, &[address(0x0a80_0000, n)]);
        mesh.workloads.push(Workload { node: format!("node-{}", n / 100), ..pod }.serving(service));
    }
    let path = run.dir().join(format!("start-{}.{}", size.workloads, form.name()));
    match form {
        Form::Yaml => mesh.write(&path)?,
        Form::Json => mesh_file::replace(&path, &serde_json::to_string(&mesh)?)?,
    }
    Ok(path)
}
