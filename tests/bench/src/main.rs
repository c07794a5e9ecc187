//! `culvert-bench`: measures what the product costs against the same thing without it, in one run on one CPU.
//!
//! Figures that are judged are ratios of neighbouring slices of time, so that they mean the same on another machine and
//! what else the machine does cancels out. Nothing here is a test of behaviour: a path that does not work ends the run.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to people")]

mod capture;
mod control;
mod cpu;
mod data;
mod enrol;
mod figures;
mod load;
mod process;
mod stats;
mod traffic;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "culvert-bench", about = "Benchmarks of Culvert; as root, from a release build")]
enum Bench {
    /// What capture costs a connection, a pod and a node.
    Capture(capture::Args),
    /// What the mesh costs: memory, updates, look-ups, start-up, and a control plane's changes under load.
    Control(control::Args),
    /// What the data path costs: throughput, connections, requests and memory, beside the same without a mesh.
    Data(data::Args),
    /// What many at once cost: idle connections, and a pod that opens more than its neighbours do.
    Crowd(data::crowd::Args),
    /// What enrolment costs: the time that the plugin adds to a pod's start.
    Enrol(enrol::Args),
    /// One figure of `control`, in a process of its own.
    #[command(hide = true)]
    Store(control::StoreArgs),
    /// The server of `data`, in a pod.
    #[command(hide = true)]
    Serve(traffic::ServerArgs),
    /// The client of `data`, in a pod.
    #[command(hide = true)]
    Load(traffic::ClientArgs),
}

fn main() -> ExitCode {
    let outcome = match Bench::parse() {
        Bench::Capture(args) => capture::run(&args),
        Bench::Control(args) => control::run(&args),
        Bench::Data(args) => data::run(&args),
        Bench::Crowd(args) => data::crowd::run(&args),
        Bench::Enrol(args) => enrol::run(&args),
        Bench::Store(args) => control::run_store(&args),
        Bench::Serve(args) => traffic::run_server(&args),
        Bench::Load(args) => traffic::run_client(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
