//! The generated modules. Their documentation is the comments of the proto files.

/// The public API, package `cinnabar.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports, reason = "generated from proto")]
pub mod v1 {
    tonic::include_proto!("cinnabar.v1");
}

/// What nodes say among themselves, package `cinnabar.internal.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports, reason = "generated from proto")]
pub mod internal {
    tonic::include_proto!("cinnabar.internal.v1");
}

/// The descriptors of all proto files, an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cinnabar.descriptors"));
