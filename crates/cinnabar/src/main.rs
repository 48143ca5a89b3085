//! The binary: servers, the development cluster, benches, and the operator's commands.
//!
//! `main` parses, then either runs an operator command or, for a server: load, build, run, drain.
//!
//! **Invariants**
//! 1. Freed memory is zeroed by the allocator, so what libraries leave behind of a value does not stay (P2).
//! 2. A server leaves no core dump, and a panic prints no payload.

mod audit;
mod bench;
mod cluster;
mod dev;
mod init;
mod joining;
mod prepare;
mod proof;
mod servers;
mod snapshot;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use cli::{Cli, ClusterCommand, Command, Failure, Output};

#[global_allocator]
static ZEROING: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> = zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    // Every command may hold a token or a value, so none leaves a core dump.
    if let Err(error) = runtime::process::harden() {
        return report(&Failure::failed(format!("cannot harden the process: {error}")));
    }
    runtime::tls::install_provider();
    runtime::process::install_panic_hook(runtime::process::TABLE_THREADS);
    let tokio = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return report(&Failure::failed(format!("cannot start: {error}"))),
    };
    let result = tokio.block_on(async {
        match command {
            Command::Dev(arguments) => dev::run(&global, arguments).await,
            Command::Control(arguments) => servers::control(&arguments).await,
            Command::Edge(arguments) => servers::edge(&arguments).await,
            Command::Cluster(ClusterCommand::Init(arguments)) => init::run(&global, &arguments),
            Command::Config(command) => servers::config(&global, command),
            Command::Completion { shell } => {
                // Into memory first: what the generator cannot write it panics about, and a reader may leave early.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "cinnabar", &mut script);
                Output::new(&global).bytes(&script, false)
            }
            Command::Audit(command) => audit::run(&global, command).await,
            Command::Snapshot(command) => snapshot::run(&global, command).await,
            Command::Bench(command) => Box::pin(bench::run(&global, command)).await,
            command => cli::run(&global, command).await,
        }
    });
    // Threads that still read a terminal or a pipe must not hold the process up.
    tokio.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failure is told to the person")]
fn report(failure: &Failure) -> ExitCode {
    if !failure.is_silent() {
        eprintln!("cinnabar: {failure}");
    }
    ExitCode::from(failure.code())
}

/// An error with all its causes, for the one who has to act on it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
