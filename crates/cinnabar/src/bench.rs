//! `cinnabar bench`: figures of this machine, with their set-up.

mod report;

use cli::{BenchCommand, Failure, Global};

pub(crate) use report::human_us;

/// Runs a bench.
pub(crate) async fn run(_global: &Global, _command: BenchCommand) -> Result<(), Failure> {
    Err(Failure::failed("not yet"))
}
