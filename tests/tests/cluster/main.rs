//! A cluster of whole processes, grown as an operator grows it, under faults. What is judged is what clients saw.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

mod audit;
mod authority;
mod cables;
mod clocks;
mod damage;
mod faults;
mod following;
mod full_disk;
mod ground;
mod growth;
mod histories;
mod minority;
mod revocation;
mod rolling;
mod snapshots;
