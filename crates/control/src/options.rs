//! What a control node is started with.

use std::sync::Arc;

use runtime::{config::ControlConfig, telemetry::Metrics};
use seams::{Clock, Disk, Entropy};
use types::{FeatureLevel, NodeId, Position};

/// Hears of positions at the moment something becomes of them, on the thread where it does: for measuring. Must return at once.
pub trait Observer: Send + Sync + 'static {
    /// Everything up to `position` is committed and applied here. Called before anything else hears of it.
    fn applied(&self, position: Position);

    /// `node` has said that it holds everything up to `position` durably.
    fn acknowledged(&self, node: NodeId, position: Position);
}

/// What a control node is started with. The process's own affairs (logging, the recorder of metrics, signals) are its `main`'s.
pub struct ControlOptions {
    /// The checked configuration. Ports of 0 are chosen by the system; [`crate::Control::address`] tells them.
    pub config: ControlConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: ids, keys, nonces.
    pub entropy: Arc<dyn Entropy>,
    /// The disk of log and snapshot files. The table opens its own files.
    pub disk: Arc<dyn Disk>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Who measures; nobody in production.
    pub observer: Option<Arc<dyn Observer>>,
    /// The feature level up to which this node goes along, at most the build's; none: as the environment says ([`runtime::feature_level_max`]).
    pub level_max: Option<FeatureLevel>,
}

impl ControlOptions {
    /// On this machine's clock, randomness and disk.
    pub fn new(config: ControlConfig, metrics: Metrics) -> Self {
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
