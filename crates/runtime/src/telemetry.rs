//! Logs and metrics.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter has another syntax.
    #[error("{filter:?} is no filter; write a level, such as \"info\", or \"info,feed=debug\"")]
    Filter {
        /// The filter.
        filter: String,
        /// The cause.
        #[source]
        source: ParseError,
    },
    /// Something in this process logs already.
    #[error("logging is set up already")]
    Twice(#[source] TryInitError),
    /// The buckets of a histogram are not accepted.
    #[error("the metrics cannot be set up")]
    Buckets(#[source] BuildError),
    /// Something in this process records metrics already.
    #[error("another recorder of metrics is set up already")]
    Recorder,
}

/// Sends log lines of this process to standard error.
///
/// # Errors
/// [`TelemetryError::Filter`], and [`TelemetryError::Twice`] at a second call.
pub fn init_logging(config: &LogConfig) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = parse_filter(&config.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
        LogFormat::Pretty => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colours).compact().finish().try_init()
        }
    }
    .map_err(TelemetryError::Twice)
}

pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

/// Seconds, from 1 us to 10 s: a lookup takes a few microseconds, a write milliseconds, a snapshot seconds.
const SECONDS_BUCKETS: [f64; 18] =
    [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 10.0];

/// Entries of a batch: from one, by four, to what may wait for the log.
const ENTRIES_BUCKETS: [f64; 7] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// Bytes, from 64 to 16 MiB, by four: a value, a batch, a change set at its limit.
const BYTES_BUCKETS: [f64; 10] = [64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// The metrics of this process. Clones show the same ones.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    /// Held by the one of a process's servers that folds for all.
    folding: std::sync::Arc<tokio::sync::Mutex<()>>,
}

impl Metrics {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples into their histograms. Unless it is called regularly, samples pile up between two scrapes;
    /// [`crate::health::serve`] does it.
    pub fn fold(&self) {
        self.handle.run_upkeep();
    }

    /// Folds at each `interval`, while no other server of this process does.
    pub async fn fold_regularly(&self, interval: std::time::Duration) {
        let _turn = self.folding.lock().await;
        let mut interval = tokio::time::interval(interval);
        loop {
            interval.tick().await;
            self.fold();
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Starts recording. A second call returns what the first made, so that several servers may share a process.
///
/// # Errors
/// [`TelemetryError::Recorder`] when other code has installed a recorder.
pub fn init_metrics() -> Result<Metrics, TelemetryError> {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(metrics) = INSTALLED.get() {
        return Ok(metrics.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &BYTES_BUCKETS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_entries".into()), &ENTRIES_BUCKETS))
        .map_err(TelemetryError::Buckets)?;
    let recorder = builder.build_recorder();
    let metrics = Metrics { handle: recorder.handle(), folding: std::sync::Arc::default() };
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Recorder)?;
    Ok(INSTALLED.get_or_init(|| metrics).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_second_call_shows_the_same_and_histograms_have_buckets() {
        let (first, second) = (init_metrics().unwrap(), init_metrics().unwrap());
        metrics::histogram!("cinnabar_test_seconds").record(3e-6);
        metrics::histogram!("cinnabar_test_entries").record(3.0);
        first.fold();
        let text = second.render();
        assert!(text.contains("cinnabar_test_seconds_bucket{le=\"0.000005\"} 1"), "{text}");
        assert!(text.contains("cinnabar_test_entries_bucket{le=\"4\"} 1"), "{text}");
    }

    #[test]
    fn filter_of_another_syntax_is_refused_by_name() {
        assert!(parse_filter("info,feed=debug").is_ok());
        let error = parse_filter("info,feed=loud").unwrap_err().to_string();
        assert!(error.starts_with("\"info,feed=loud\""), "{error}");
    }
}
