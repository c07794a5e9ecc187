//! Compiles the protocol descriptions in `proto/`, without a `protoc` on the machine.

use std::error::Error;

const PROTOS: [&str; 4] =
    ["proto/discovery.proto", "proto/workload.proto", "proto/security.proto", "proto/ca.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptions = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        // A resource is kept as a slice of the message that it came in until it is decoded.
        .bytes(".envoy.service.discovery.v3.Any")
        .bytes(".istio.workload")
        .bytes(".istio.security")
        .compile_fds(descriptions)?;
    Ok(())
}
