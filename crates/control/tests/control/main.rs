//! Whole control nodes on real sockets, TLS and disks, through the public API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod doors;
mod enrolment;
mod harness;
mod levels;
mod life;
mod lookups;
mod pages;
mod requests;
mod snapshots;
mod tokens;
mod writes;
