//! What an edge is started with.

use std::sync::Arc;

use runtime::{config::EdgeConfig, telemetry::Metrics};
use seams::{Clock, Disk, Entropy};
use types::{FeatureLevel, Position};

/// Hears of positions at the moment something becomes of them, on the thread where it does: for measuring. Must return at once.
pub trait Observer: Send + Sync + 'static {
    /// Everything up to `position` is verified, in memory only: neither durable nor visible.
    fn verified(&self, position: Position);

    /// Everything up to `position` is durable here, and lookups see it from now on.
    fn readable(&self, position: Position);
}

/// What an edge is started with. The process's own affairs (logging, the recorder of metrics, signals) are its `main`'s.
pub struct EdgeOptions {
    /// The checked configuration. Ports of 0 are chosen by the system; [`crate::Edge::addresses`] tells them.
    pub config: EdgeConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: jitter, and the node's key at the first start.
    pub entropy: Arc<dyn Entropy>,
    /// The disk of log, snapshot files and envelopes. The table opens its own files.
    pub disk: Arc<dyn Disk>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Who measures; nobody in production.
    pub observer: Option<Arc<dyn Observer>>,
    /// The feature level up to which this node goes along, at most the build's; none: as the environment says ([`runtime::feature_level_max`]).
    pub level_max: Option<FeatureLevel>,
}

impl EdgeOptions {
    /// On this machine's clock, randomness and disk.
    pub fn new(config: EdgeConfig, metrics: Metrics) -> Self {
        Self {
            config,
            clock: Arc::new(runtime::RealClock::new()),
            entropy: Arc::new(runtime::OsEntropy),
            disk: Arc::new(runtime::RealDisk),
            metrics,
            observer: None,
            level_max: None,
        }
    }
}
