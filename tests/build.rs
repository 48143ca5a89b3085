//! Generates the client of etcd that `scripts/bench-peers` compares us with, as `wire` generates our own: protox compiles, tonic and prost
//! write the Rust.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
