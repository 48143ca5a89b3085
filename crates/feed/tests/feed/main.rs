//! Both halves together: a publisher and a follower over streams in memory, on simulated disks.

#![allow(unreachable_pub, reason = "one test program; its harness is for its own modules")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test cannot go on without, fails it")]

mod crashes;
mod following;
mod forged;
mod generations;
mod harness;
mod large;
mod mutations;
mod power;
mod recovery;
mod scripts;
mod serving;
mod snapshots;
mod upstream;
