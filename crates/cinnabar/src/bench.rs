//! `cinnabar bench`: figures of this machine, with their set-up.
//!
//! Each bench starts whole nodes, in this process or as processes of their own, with real sockets, TLS and disks in a temporary folder, measures, prints a
//! [`Report`](report::Report), and removes the folder. `docs/bench.md` says what each figure means.
//!
//! **Invariants**
//! 1. What is measured is the production path: hooks only take the time, on the thread where something happens.
//! 2. Every report states what shares the machine and the disk, and a debug build says that its figures are not to be quoted.

mod bare;
mod disk;
mod fleet;
mod ground;
mod lookup;
mod machine;
mod milestones;
mod node;
mod propagate;
mod records;
mod report;
mod scale;
mod voters;
mod write;

use cli::{BenchCommand, Failure, Global, Output};
use runtime::{
    config::{LogConfig, LogFormat},
    process, telemetry,
};

pub(crate) use report::human_us;

use ground::Ground;

/// Runs a bench.
pub(crate) async fn run(global: &Global, command: BenchCommand) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::failed(crate::chain(error));
    process::harden().map_err(|error| Failure::failed(format!("cannot harden the process: {error}")))?;
    let filter = std::env::var("CINNABAR_LOG").unwrap_or_else(|_| "error".to_owned());
    telemetry::init_logging(&LogConfig { format: LogFormat::Pretty, filter }).map_err(|error| failed(&error))?;
    let metrics = telemetry::init_metrics().map_err(|error| failed(&error))?;
    let signals = process::cancelled_by_signals().map_err(|error| failed(&error))?;

    let common = match &command {
        BenchCommand::Lookup(arguments) => &arguments.common,
        BenchCommand::Write(arguments) => &arguments.common,
        BenchCommand::Propagate(arguments) => &arguments.common,
        BenchCommand::Scale(arguments) => &arguments.common,
    };
    let ground = Ground::new(global, common, metrics).map_err(anyhow)?;
    let measured = async {
        match &command {
            BenchCommand::Lookup(arguments) => lookup::run(&ground, arguments).await,
            BenchCommand::Write(arguments) => match arguments.voters {
                Some(voters) => voters::run(&ground, arguments, voters).await,
                None => write::run(&ground, arguments).await,
            },
            BenchCommand::Propagate(arguments) => propagate::run(&ground, arguments).await,
            BenchCommand::Scale(arguments) => scale::run(&ground, arguments).await,
        }
    };
    let measured = tokio::select! {
        biased;
        () = signals.cancelled() => None,
        report = measured => Some(report),
    };
    match measured {
        // Dropping the ground removes its folder.
        Some(report) => report.map_err(anyhow)?.print(Output::new(global)),
        None => {
            ground.abandon().await;
            Err(Failure::failed("interrupted: nothing was measured to its end"))
        }
    }
}

fn anyhow(error: anyhow::Error) -> Failure {
    Failure::failed(format!("{error:#}"))
}
