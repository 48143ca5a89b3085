//! Whole processes: the real binary on real sockets and disks, in temporary folders, driven as its users drive it.
//!
//! [`Fleet`] grows a cluster as an operator does: founded by a command, joined by token, its nodes reached through cables that can be cut
//! ([`Net`]), with clients that remember what they saw ([`Writers`], [`Readers`]). [`Cluster`] prepares a folder with
//! `cinnabar dev --prepare` and runs a control node and edges from it, each a [`Server`] that can be killed, stopped and started again.
//! [`Cli`] runs operator commands as a shell does; [`Operator`] and [`Reader`] are the typed clients. [`raw`] speaks HTTP/2 by hand, for what no well-behaved client sends.
//!
//! **Invariants**
//! 1. Nothing waits for time: [`until`] looks for a value until it is there, and fails loudly at its deadline.
//! 2. Every process is ended by its own id when its owner is dropped; when a test fails, what it logged is printed.
//! 3. Every cluster carries a marked secret ([`crate::canary::Canary`]), and a test in which it was left behind somewhere fails at its end.
//! 4. A port is claimed for as long as its cluster lives ([`Ports`]): no other test's server answers in the place of one's own.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this is a test: it fails where it stands, and says so"
)]

mod binary;
mod clients;
mod clock;
mod cluster;
mod command;
mod fleet;
mod net;
mod port;
pub mod raw;
mod server;
mod wait;
mod witness;

pub use binary::binary;
pub use clients::{CONSUMER, Operator, Reader, STORE, consumer_ref};
pub use clock::WallClock;
pub use cluster::Cluster;
pub use command::{Cli, Run, run};
pub use fleet::{Extra, Fleet, Role};
pub use net::{Net, Weather};
pub use port::Ports;
pub use server::{Server, http};
pub use wait::{PATIENCE, until};
pub use witness::{Readers, Writers, Written};
