//! Whole edges on real sockets, TLS and disks, behind a control plane in the same process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod generations;
mod large;
mod plane;
mod restart;
mod serve;
mod trouble;
