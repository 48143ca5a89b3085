//! Whole control nodes on real sockets, TLS and disks, through the public API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod doors;
mod harness;
mod life;
mod pages;
mod requests;
mod writes;
