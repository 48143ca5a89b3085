//! Three control nodes in one process, on real sockets, TLS and disks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod clocks;
mod harness;
mod levels;
mod majority;
mod members;
mod receipts;
mod tokens;
mod writes;
