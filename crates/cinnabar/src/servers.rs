//! `control`, `edge` and `config`: load, build, run, drain.

use std::path::Path;

use cli::{ConfigCommand, Failure, Global, Output, ServerArgs};
use control::{Control, ControlOptions};
use edge::{Edge, EdgeOptions};
use runtime::{
    config::{self, Checks, ControlConfig, EdgeConfig, LogConfig},
    process,
    telemetry::{self, Metrics},
};

use crate::{chain, joining};

/// Runs a control node until a signal comes or its voter stops.
pub(crate) async fn control(arguments: &ServerArgs) -> Result<(), Failure> {
    let config: ControlConfig = load(&arguments.config)?;
    let deadline = config.shutdown.deadline;
    let metrics = server_process(&config.log)?;
    let signals = process::cancelled_by_signals().map_err(|error| failed(&error))?;
    tokio::select! {
        biased;
        joined = joining::control(&config) => joined?,
        () = signals.cancelled() => return Err(Failure::failed("ended by a signal before it had joined its cluster")),
    }
    let control = Box::pin(Control::start(ControlOptions::new(config, metrics))).await.map_err(|error| failed(&error))?;
    process::notify_ready(&format!("serving at {}", control.address()));
    let stopped = tokio::select! {
        biased;
        () = signals.cancelled() => None,
        reason = control.stopped() => Some(reason),
    };
    process::notify_stopping();
    let drained = control.shutdown(deadline).await;
    match stopped {
        Some(reason) => Err(Failure::failed(reason)),
        None if drained => Ok(()),
        None => Err(Failure::failed(format!(
            "not everything ended within {}; what was not acknowledged may be lost",
            humantime::format_duration(deadline)
        ))),
    }
}

/// Runs an edge until a signal comes.
pub(crate) async fn edge(arguments: &ServerArgs) -> Result<(), Failure> {
    let config: EdgeConfig = load(&arguments.config)?;
    let deadline = config.shutdown.deadline;
    let metrics = server_process(&config.log)?;
    let signals = process::cancelled_by_signals().map_err(|error| failed(&error))?;
    tokio::select! {
        biased;
        joined = joining::edge(&config) => joined?,
        () = signals.cancelled() => return Err(Failure::failed("ended by a signal before it had joined its cluster")),
    }
    let edge = tokio::select! {
        biased;
        edge = Edge::start(EdgeOptions::new(config, metrics)) => edge.map_err(|error| failed(&error))?,
        () = signals.cancelled() => return Err(Failure::failed("ended by a signal before it served")),
    };
    process::notify_ready(&format!("serving at {}", edge.addresses().grpc));
    signals.cancelled().await;
    process::notify_stopping();
    edge.shutdown(deadline).await.map_err(|undrained| failed(&undrained))
}

/// Checks or shows a configuration; touches nothing else.
pub(crate) fn config(global: &Global, command: ConfigCommand) -> Result<(), Failure> {
    let (ConfigCommand::Check { file, role } | ConfigCommand::Show { file, role }) = &command;
    let shown = match role.as_str() {
        "control" => rendered::<ControlConfig>(file)?,
        _ => rendered::<EdgeConfig>(file)?,
    };
    let output = Output::new(global);
    match command {
        ConfigCommand::Check { .. } => output.line(&format!(
            "{} is a valid configuration of {} node",
            file.display(),
            if role == "edge" { "an edge" } else { "a control" }
        )),
        ConfigCommand::Show { .. } => output.line(shown.trim_end()),
    }
}

fn rendered<C: Checks>(file: &Path) -> Result<String, Failure> {
    config::render(&load::<C>(file)?).map_err(|error| failed(&error))
}

fn load<C: Checks>(file: &Path) -> Result<C, Failure> {
    config::load(file).map_err(|error| Failure::usage(chain(&error)))
}

/// What a server's process has: structured logs, and one recorder of metrics.
fn server_process(log: &LogConfig) -> Result<Metrics, Failure> {
    telemetry::init_logging(log).map_err(|error| failed(&error))?;
    telemetry::init_metrics().map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed(chain(error))
}
