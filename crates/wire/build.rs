//! Generates the code for `proto` without a protoc binary: protox compiles the files, tonic and prost write the Rust.
//!
//! Byte fields become `Bytes`, which shares the receive buffer instead of copying it, except in [`CARRIERS`]: a plaintext
//! must not pin, nor live in, a shared buffer. For the same messages no `Debug` is derived; `src/redact.rs` writes one that
//! shows lengths only. A test holds the list against the descriptors.

use std::{error::Error, fs, io, path::PathBuf};

include!("src/carriers.rs");

const PROTO: &str = "../../proto";
const FILES: [&str; 22] = [
    "cinnabar/v1/error.proto",
    "cinnabar/v1/common.proto",
    "cinnabar/v1/accounts.proto",
    "cinnabar/v1/stores.proto",
    "cinnabar/v1/secrets.proto",
    "cinnabar/v1/consumers.proto",
    "cinnabar/v1/bindings.proto",
    "cinnabar/v1/receipts.proto",
    "cinnabar/v1/lookup.proto",
    "cinnabar/v1/status.proto",
    "cinnabar/v1/nodes.proto",
    "cinnabar/v1/members.proto",
    "cinnabar/v1/tokens.proto",
    "cinnabar/v1/snapshots.proto",
    "cinnabar/v1/fleet.proto",
    "cinnabar/v1/cluster.proto",
    "cinnabar/v1/levels.proto",
    "cinnabar/v1/audit.proto",
    "cinnabar/internal/v1/feed.proto",
    "cinnabar/internal/v1/raft.proto",
    "cinnabar/internal/v1/peers.proto",
    "cinnabar/internal/v1/enrol.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<_> = FILES.iter().map(|file| format!("{PROTO}/{file}")).collect();
    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();

    let messages: Vec<String> = descriptors
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(|message| format!("{}.{}", file.package(), message.name())))
        .collect();
    if let Some(unknown) = CARRIERS.iter().find(|carrier| !messages.iter().any(|message| message == *carrier)) {
        return Err(format!("src/carriers.rs names {unknown}, which is in no proto file").into());
    }

    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set: run through cargo"))?);
    fs::write(out.join("cinnabar.descriptors"), compiler.encode_file_descriptor_set())?;
    let mut builder = tonic_prost_build::configure();
    for message in &messages {
        let path = format!(".{message}");
        builder = if CARRIERS.contains(&message.as_str()) { builder.skip_debug([path]) } else { builder.bytes(path) };
    }
    builder.compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={PROTO}");
    println!("cargo:rerun-if-changed=src/carriers.rs");
    Ok(())
}
