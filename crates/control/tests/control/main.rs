//! Whole control nodes on real sockets, TLS and disks, through the public API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]
mod again;
mod audit;
mod deleted;
mod description;
mod doors;
mod enrolment;
mod harness;
mod http;
mod levels;
mod life;
mod lookups;
mod members;
mod mutations;
mod pages;
mod permissions;
mod rates;
mod requests;
mod rest;
mod snapshots;
mod tokens;
mod writes;
