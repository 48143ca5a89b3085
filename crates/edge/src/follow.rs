//! Keeping a follower running: opened from disk, and opened again when it lost its disk.
//!
//! A stream that is lost is the follower's own matter. A log or a disk that failed leaves it unknown what is durable, so the follower
//! ends and is opened again, after a pause that grows: a full disk is tried again until there is room. Readers keep what was published.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use feed::{Core, CoreOptions, CoreParts, FeedError, Follower, FollowerOptions, FollowerParts, FollowerStatus, Offload, SyncState};
use seams::{Clock, Dial, Disk, Entropy};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;
use wire::internal::{RefusedKind, SubscribeDown, SubscribeUp};

use crate::{glue::Glue, keys::EdgeKeys, table::SledTables};

/// The first pause before a failed disk is tried again; it doubles.
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// The longest pause: a minute after room was made, an edge follows again.
const REOPEN_MAX: Duration = Duration::from_secs(60);

/// All that a follower is opened with, again and again.
pub(crate) struct Following {
    pub(crate) core: CoreOptions,
    pub(crate) options: FollowerOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dial: Arc<dyn Dial<SubscribeUp, SubscribeDown>>,
    pub(crate) glue: Arc<Glue>,
    pub(crate) keys: Arc<EdgeKeys>,
    /// The folder in which the table lies.
    pub(crate) data: std::path::PathBuf,
    pub(crate) table_cache_bytes: u64,
    pub(crate) blocking: Blocking,
    pub(crate) seen: Seen,
}

/// What is known of the follower from outside. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<SeenInner>>);

#[derive(Default)]
struct SeenInner {
    status: Option<watch::Receiver<FollowerStatus>>,
    /// Why there is no follower; none while there is one.
    ended: Option<String>,
}

/// Tokio's threads for blocking work.
#[derive(Clone)]
pub(crate) struct Blocking(pub(crate) Handle);

impl Offload for Blocking {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(work));
    }
}

impl Following {
    /// Recovers from disk; what can be proven is published before this returns.
    ///
    /// # Errors
    /// [`FeedError`] of the disk, or of a folder that a newer Cinnabar wrote.
    pub(crate) async fn open(&self) -> Result<Follower, FeedError> {
        let options = self.core.clone();
        let parts = CoreParts {
            clock: Arc::clone(&self.clock),
            disk: Arc::clone(&self.disk),
            tables: Box::new(SledTables::new(Arc::clone(&self.disk), &self.data, self.table_cache_bytes)),
            publish: Arc::clone(&self.glue) as _,
            keys: Arc::clone(&self.keys) as _,
        };
        let opened = self.blocking.0.spawn_blocking(move || Core::open(options, parts)).await;
        let core = opened.map_err(|_| FeedError::Lost)??;
        let parts = FollowerParts {
            dial: Arc::clone(&self.dial),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            offload: Arc::new(self.blocking.clone()),
            keys: Arc::clone(&self.keys) as _,
        };
        let follower = Follower::new(core, self.options.clone(), parts);
        self.seen.follows(follower.status());
        Ok(follower)
    }

    /// Follows until `stop` is cancelled. Only the follower's own loop is watched for a revocation: a relay, which may lie, is none of
    /// the nodes whose certificates are accepted here.
    pub(crate) async fn run(self, first: Follower, stop: CancellationToken) {
        let mut follower = Some(first);
        let mut pauses = Pauses::default();
        while !stop.is_cancelled() {
            let ended = match follower.take() {
                Some(follower) => {
                    let status = follower.status();
                    let durable = status.borrow().durable;
                    let refused = self.until_revoked(follower.status());
                    let mut running = std::pin::pin!(follower.run(stop.clone()));
                    let ended = tokio::select! {
                        biased;
                        ended = &mut running => ended,
                        () = refused => running.await,
                    };
                    if status.borrow().durable > durable {
                        pauses.worked();
                    }
                    ended
                }
                None => match self.open().await {
                    Ok(opened) => {
                        follower = Some(opened);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let Err(error) = ended else { return };
            let (chain, pause) = (chain(&error), pauses.next());
            metrics::counter!("cinnabar_edge_follower_failures_total", "node" => self.options.node.to_string()).increment(1);
            tracing::error!(error = chain, retry_in_ms = pause.as_millis() as u64, "following has failed; what is held is served on");
            self.seen.ended(chain);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.clock.sleep(pause) => {}
            }
        }
    }
}

impl Following {
    /// Completes when a control node has refused this node as revoked, and all that follows from it is done and on the disk. The chain
    /// says so too, but a revoked node is cut off before it hears it (P7).
    async fn until_revoked(&self, mut status: watch::Receiver<FollowerStatus>) {
        let revoked = |status: &FollowerStatus| status.refused == Some(RefusedKind::Revoked.as_str_name());
        if status.wait_for(revoked).await.is_err() {
            // The follower has ended, and its end is what counts.
            std::future::pending::<()>().await;
        }
        while !self.glue.revoked("a control node refuses this node as revoked") {
            self.clock.sleep(REOPEN_MAX).await;
        }
    }
}

impl Seen {
    /// Whether the stream to the control plane brings what is applied.
    pub(crate) fn connected(&self) -> bool {
        let inner = self.lock();
        inner.ended.is_none() && inner.status.as_ref().is_some_and(|status| status.borrow().sync == SyncState::Following)
    }

    /// Whether there is a follower, which has its disk.
    pub(crate) fn keeping(&self) -> bool {
        self.lock().ended.is_none()
    }

    /// What is wrong, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let inner = self.lock();
        let mut problems: Vec<String> = inner.ended.iter().map(|ended| format!("not following: {ended}")).collect();
        if let (None, Some(status)) = (&inner.ended, &inner.status) {
            let status = status.borrow();
            if status.sync != SyncState::Following {
                let why = status.last_error.as_deref().unwrap_or("connecting");
                problems.push(format!("no stream to the control plane: {why}"));
            }
        }
        problems
    }

    fn follows(&self, status: watch::Receiver<FollowerStatus>) {
        *self.lock() = SeenInner { status: Some(status), ended: None };
    }

    fn ended(&self, why: String) {
        self.lock().ended = Some(why);
    }

    fn lock(&self) -> MutexGuard<'_, SeenInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pauses before a failed disk is tried again. Opening alone, which reads only, says nothing of whether it can be written.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(REOPEN_MIN)
    }
}

impl Pauses {
    /// Something has become durable: the next failure is a new one.
    fn worked(&mut self) {
        *self = Self::default();
    }

    fn next(&mut self) -> Duration {
        let longer = (self.0 * 2).min(REOPEN_MAX);
        std::mem::replace(&mut self.0, longer)
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_has_become_durable() {
        let mut pauses = Pauses::default();
        let seconds: Vec<_> = (0..8).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        pauses.worked();
        assert_eq!(pauses.next(), REOPEN_MIN);
    }
}
