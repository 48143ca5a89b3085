//! The comparison with the systems that people use today: etcd and Redis, run beside us in turn, on this machine, with the same data and
//! the same callers, which are in this process. `scripts/bench-peers` is how it is started, `docs/bench.md` says what is compared.
//!
//! **Invariants**
//! 1. No process outlives what started it: each is ended by its own id when it is dropped.
//! 2. A caller does the same for every system: make a request, wait for the reply, check the value's length, take the time.
//! 3. What each system promises when it answers stands beside its figures.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is a measurement: what fails ends it where it stands, and says so"
)]

mod callers;
mod edges;
mod etcd;
mod footprint;
mod ours;
mod process;
mod propagation;
mod redis;
mod report;
mod run;

/// etcd's protocol, as far as it is needed.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports, reason = "generated from proto")]
mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub use report::{Fact, Report, Row, Section};
pub use run::{Plan, run};
