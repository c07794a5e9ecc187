//! `cargo xtask`: builds what plain cargo cannot, demonstrates the product, runs the tests and benchmarks.
//!
//! One file a subcommand. Whatever is missing on the machine is named with the command that brings it; the demo and the
//! tests bring it themselves, and say so before they do.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to people")]

mod bench;
mod binaries;
mod build_ebpf;
mod built;
mod debian;
mod demo;
mod envoy;
mod fuzz;
mod image;
mod screenshots;
mod setup;
mod shell;
mod test;
mod tools;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, demonstrates and tests Culvert")]
enum Task {
    /// Measure what the product costs.
    Bench(bench::Args),
    /// Build the eBPF programs into target/bpf.
    BuildEbpf(build_ebpf::Args),
    /// Show the product on two nodes made of network namespaces.
    Demo(demo::Args),
    /// Feed the places that read bytes of strangers with inputs made up by libFuzzer.
    Fuzz(fuzz::Args),
    /// Make a container image of agent and plugin, without a container engine.
    Image(image::Args),
    /// Make the pictures of the documentation anew.
    Screenshots(screenshots::Args),
    /// Run the tests: all of them, or one suite.
    Test(test::Args),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::BuildEbpf(args) => build_ebpf::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Image(args) => image::run(&args),
        Task::Screenshots(args) => screenshots::run(&args),
        Task::Test(args) => test::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
