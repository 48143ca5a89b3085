//! What hears of applied entries: the feed, and who measures.

use std::sync::Arc;

use consensus::Applied;
use feed::{Acks, AcksOptions, Publisher, PublisherOptions, PublisherParts, SigningKey, WindowLimits};
use runtime::config::ControlConfig;
use state::{ChangeSet, State};
use types::{ClusterId, NodeId, UnixMillis};

use crate::{keys::Envelopes, lookups::Lookups, options::Observer, recent::Recent};

/// Hands what was applied to those who follow.
pub(crate) struct Glue {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) recent: Arc<Recent>,
    /// The lookups of this node, when it serves them.
    pub(crate) lookups: Option<Arc<Lookups>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Applied for Glue {
    fn replaced(&self, state: &State) {
        self.recent.start_at(state.position());
        self.publisher.replaced(state);
        if let Some(lookups) = &self.lookups {
            lookups.applied(state);
        }
    }

    fn applied(&self, sets: &[Arc<ChangeSet>], state: &State) {
        if let Some(observer) = self.observer.as_ref().filter(|_| !sets.is_empty()) {
            observer.applied(state.position());
        }
        for set in sets {
            self.recent.applied(set);
        }
        self.publisher.applied(sets, state);
        if let Some(lookups) = self.lookups.as_ref().filter(|_| !sets.is_empty()) {
            lookups.applied(state);
        }
        metrics::gauge!("cinnabar_control_revision").set(state.position().revision.get() as f64);
    }

    fn ticked(&self, state: &State, time: UnixMillis) {
        self.publisher.ticked(state, time);
        if let Some(lookups) = &self.lookups {
            lookups.ticked(time);
        }
    }
}

/// The feed's publisher, as configured.
pub(crate) fn publisher(
    config: &ControlConfig,
    (cluster, node): (ClusterId, NodeId),
    signing: SigningKey,
    clock: &Arc<dyn seams::Clock>,
) -> Arc<Publisher> {
    let mut options = PublisherOptions::new(cluster, node);
    options.window = WindowLimits { bytes_max: config.limits.window_bytes.bytes() as usize, ..options.window };
    options.subscribers_max = config.limits.subscribers_max;
    options.cuts_max = config.limits.snapshots_sent_max;
    let parts = PublisherParts {
        clock: clock.clone(),
        offload: Arc::new(Blocking),
        handover: Arc::new(Envelopes),
        acks: Acks::new(AcksOptions::default(), clock.clone()),
    };
    Publisher::new(options, signing, parts, &State::empty())
}

/// Runs the feed's heavy work on tokio's threads for blocking work.
struct Blocking;

impl feed::Offload for Blocking {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
}
