//! The loop around the heart: dial, say where one stands, collect what waits, hand it over, acknowledge, and begin again when the
//! stream is lost.
//!
//! Where there are several peers, a stream that fails is followed by one to the next of them at once, and only when all have failed in
//! turn is there a pause ([`Turns`]). So is one that brings nothing new: a control node that is cut off from its majority goes on
//! serving what it has, and only the checkpoints that it cannot make tell. A peer that asks to be left alone is left alone, and
//! the others are not.
//!
//! **Concurrency**: one task. Each turn chooses one event and then handles it; blocking work goes where [`Offload`] says, and the
//! core goes with it and comes back. Stopping is asked for by a token, and ends with all files closed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use seams::{BoxFuture, Clock, Dial, DialError, Entropy, Link, LinkClosed};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use types::{ClusterId, FeatureLevel, NodeId, Position, UnixMillis};
use wire::internal::{self as proto, SubscribeDown, SubscribeUp, subscribe_down::Message, subscribe_up::Message as Up};

use super::{Core, Handled, KeyReceiver, Offload, Synced, core::SET_OVERHEAD, run_blocking, turns::Turns};
use crate::{
    FeedError,
    publisher::CHAIN,
    serve::{marks_out, position_out},
};

/// The longest wait in one piece.
const PAUSE: Duration = Duration::from_secs(30);

/// What a follower is made with.
#[derive(Clone, Debug)]
pub struct FollowerOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node's number in the registry.
    pub node: NodeId,
    /// The version of the binary, for status pages.
    pub software: String,
    /// The highest feature level that this binary knows.
    pub level: FeatureLevel,
    /// A stream that brings nothing new for this long is dropped: a live control plane sends a checkpoint each second.
    pub silence_max: Duration,
    /// Where there are other peers, a stream that brings nothing new for this long is given up for one of them. It doubles, up to
    /// [`FollowerOptions::silence_max`], each time that all of them were as silent.
    pub quiet_max: Duration,
    /// The longest wait before the first new attempt; it doubles with each failure.
    pub backoff_min: Duration,
    /// The longest wait before any attempt.
    pub backoff_max: Duration,
    /// Waiting messages are handled together up to this many bytes.
    pub merge_bytes_max: usize,
}

impl FollowerOptions {
    /// The usual patience: 10 s of silence, 3 s where there are others; waits from 100 ms up to 10 s; 4 MiB at once.
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            cluster,
            node,
            software: env!("CARGO_PKG_VERSION").into(),
            level: state::FEATURE_LEVEL_MAX,
            silence_max: Duration::from_secs(10),
            quiet_max: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            merge_bytes_max: 4 << 20,
        }
    }
}

/// What a follower works with.
pub struct FollowerParts {
    /// Opens streams to control nodes or relays, another one after each failure.
    pub dial: Arc<dyn Dial<SubscribeUp, SubscribeDown>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Where blocking work is done.
    pub offload: Arc<dyn Offload>,
    /// Asked which key epochs are held already.
    pub keys: Arc<dyn KeyReceiver>,
}

/// How a follower stands with the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncState {
    /// Nothing is held that may be shown.
    #[default]
    NotSynced,
    /// Something is shown; no stream is open.
    Alone,
    /// A stream is open, and what it brings is applied.
    Following,
}

/// What there is to know about a follower from outside.
#[derive(Clone, Debug, Default)]
pub struct FollowerStatus {
    /// How it stands.
    pub sync: SyncState,
    /// What is durable.
    pub durable: Option<Position>,
    /// What readers see.
    pub published: Option<Position>,
    /// The time of the last verified checkpoint.
    pub checkpoint: Option<UnixMillis>,
    /// Who feeds it now.
    pub peer: Option<String>,
    /// Why the last stream ended, with its causes.
    pub last_error: Option<String>,
    /// The kind of refusal with which the last stream ended, by name; none when it ended otherwise.
    pub refused: Option<&'static str>,
    /// The name of the last fault that cost a stream.
    pub last_fault: Option<&'static str>,
    /// How many streams were dropped for a fault.
    pub faults: u64,
}

/// Follows the chain until it is told to stop.
pub struct Follower {
    options: FollowerOptions,
    parts: FollowerParts,
    /// Away while blocking work is done with it.
    core: Option<Core>,
    status: watch::Sender<FollowerStatus>,
    snapshot: Option<oneshot::Receiver<Result<Position, FeedError>>>,
    /// Who was dialled last.
    peer: Option<String>,
}

/// What a turn of the loop waits for.
enum Event {
    Stop,
    Message(Result<SubscribeDown, LinkClosed>),
    Silence,
    Snapshot(Result<Position, FeedError>),
}

impl Follower {
    /// A follower around a core that has recovered.
    pub fn new(core: Core, options: FollowerOptions, parts: FollowerParts) -> Self {
        let follower = Self { options, parts, core: Some(core), status: watch::Sender::default(), snapshot: None, peer: None };
        follower.report(|_| {});
        follower
    }

    /// The status, and its changes.
    pub fn status(&self) -> watch::Receiver<FollowerStatus> {
        self.status.subscribe()
    }

    /// Follows until `stop` is cancelled, then closes all files.
    ///
    /// # Errors
    /// [`FeedError::Log`], [`FeedError::Disk`] or [`FeedError::Lost`]: what is durable is not known any more. What was published stays
    /// good; the owner opens a new [`Core`] and goes on with it.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), FeedError> {
        let mut turns = Turns::new(self.parts.dial.peers());
        loop {
            self.keep_mark().await.inspect_err(|error| self.lost(error))?;
            let mut fresh = false;
            let error = match self.follow(&stop, &turns, &mut fresh).await {
                Ok(()) => FeedError::Stopping,
                Err(error) => error,
            };
            if let Some(core) = &mut self.core {
                core.disconnected();
            }
            if stop.is_cancelled() {
                return self.close().await;
            }
            self.lost(&error);
            if !error.retryable() {
                return Err(error);
            }
            let peer = self.peer.take();
            turns.ended(&error, peer, fresh, self.parts.clock.monotonic());
            let wait = self.backoff(turns.failures()).max(turns.asked(self.parts.clock.monotonic()));
            self.pause(wait, &stop).await?;
        }
    }

    /// Waits between two streams. Control may be away for days: the mark is kept meanwhile.
    async fn pause(&mut self, wait: Duration, stop: &CancellationToken) -> Result<(), FeedError> {
        let until = self.parts.clock.monotonic().saturating_add(wait);
        loop {
            let rest = until.saturating_sub(self.parts.clock.monotonic());
            if rest.is_zero() || stop.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.parts.clock.sleep(rest.min(PAUSE)) => {}
            }
            self.keep_mark().await.inspect_err(|error| self.lost(error))?;
        }
    }

    /// Writes the mark when that is due. Called at least once in [`PAUSE`] and twice the silence that is borne.
    async fn keep_mark(&mut self) -> Result<(), FeedError> {
        let Some(mut core) = self.core.take_if(|core| core.mark_due()) else { return Ok(()) };
        let work = move || {
            let kept = core.keep_mark();
            (core, kept)
        };
        let (core, kept) = run_blocking(&*self.parts.offload, work).await?;
        self.core = Some(core);
        kept
    }

    /// One stream, from dialling to its end.
    async fn follow(&mut self, stop: &CancellationToken, turns: &Turns, fresh: &mut bool) -> Result<(), FeedError> {
        let silence_max = turns.patience(self.options.quiet_max, self.options.silence_max);
        let dialled = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            dialled = next_peer(&self.parts, turns) => dialled,
            () = self.parts.clock.sleep(self.options.silence_max) => {
                return Err(FeedError::Silent { peer: "whoever was dialled".into(), silent_ms: millis(self.options.silence_max) });
            }
        };
        let mut link = dialled.map_err(FeedError::Dial)?;
        self.peer = Some(link.peer.clone());
        let hello = self.hello()?;
        self.send(&mut link, Up::Hello(hello)).await?;
        self.report(|status| status.peer = Some(link.peer.clone()));
        let mut last_fresh = self.parts.clock.monotonic();
        let mut silence = self.parts.clock.sleep(silence_max);
        loop {
            match self.choose(&mut link, stop, &mut silence).await {
                Event::Stop => return Ok(()),
                Event::Message(first) => {
                    let first = first.map_err(|closed| FeedError::Closed { peer: link.peer.clone(), reason: closed.reason })?;
                    let (messages, closed) = self.collect(&mut link, first);
                    let handled = self.handle(messages).await.map_err(|error| name_peer(error, &link.peer))?;
                    if handled.fresh {
                        *fresh = true;
                        last_fresh = self.parts.clock.monotonic();
                    }
                    if let Some(synced) = handled.acknowledge {
                        self.send(&mut link, Up::Ack(self.ack(synced))).await?;
                    }
                    self.report(|status| {
                        status.sync = if status.published.is_some() { SyncState::Following } else { SyncState::NotSynced }
                    });
                    if let Some(closed) = closed {
                        return Err(FeedError::Closed { peer: link.peer.clone(), reason: closed.reason });
                    }
                    self.snapshot_when_due();
                }
                Event::Silence => {
                    let silent = self.parts.clock.monotonic().saturating_sub(last_fresh);
                    let Some(rest) = silence_max.checked_sub(silent).filter(|rest| !rest.is_zero()) else {
                        return Err(FeedError::Silent { peer: link.peer.clone(), silent_ms: millis(silent) });
                    };
                    silence = self.parts.clock.sleep(rest);
                }
                Event::Snapshot(written) => self.snapshot_done(written).await?,
            }
            self.keep_mark().await?;
        }
    }

    /// The next event. Nothing is lost when the others win: receiving is safe to cancel, and the timer lives outside.
    async fn choose(
        &mut self,
        link: &mut Link<SubscribeUp, SubscribeDown>,
        stop: &CancellationToken,
        silence: &mut BoxFuture<'static, ()>,
    ) -> Event {
        let snapshot = async {
            match &mut self.snapshot {
                Some(running) => running.await.unwrap_or(Err(FeedError::Lost)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            written = snapshot => Event::Snapshot(written),
            message = link.receiver.recv() => Event::Message(message),
            () = silence => Event::Silence,
        }
    }

    /// What else waits already, so that it becomes one append and one swap; and the stream's end if that waits too.
    fn collect(&self, link: &mut Link<SubscribeUp, SubscribeDown>, first: SubscribeDown) -> (Vec<SubscribeDown>, Option<LinkClosed>) {
        let mut bytes = size(&first);
        let mut messages = vec![first];
        while bytes < self.options.merge_bytes_max {
            match link.receiver.recv().now_or_never() {
                Some(Ok(message)) => {
                    bytes += size(&message);
                    messages.push(message);
                }
                Some(Err(closed)) => return (messages, Some(closed)),
                None => break,
            }
        }
        (messages, None)
    }

    async fn handle(&mut self, messages: Vec<SubscribeDown>) -> Result<Handled, FeedError> {
        let mut core = self.core.take().ok_or(FeedError::Lost)?;
        let work = move || {
            let handled = core.handle(messages);
            (core, handled)
        };
        let (core, handled) = run_blocking(&*self.parts.offload, work).await?;
        self.core = Some(core);
        let handled = handled?;
        for fault in &handled.passed_over {
            tracing::debug!(fault = fault.name(), "passed over: {fault}");
        }
        Ok(handled)
    }

    fn hello(&self) -> Result<proto::Hello, FeedError> {
        let core = self.core.as_ref().ok_or(FeedError::Lost)?;
        let synced = core.synced();
        Ok(proto::Hello {
            cluster: Bytes::copy_from_slice(self.options.cluster.as_bytes()),
            node: self.options.node.get(),
            position: synced.map(|synced| position_out(synced.position)),
            chain_hash: synced.map(|synced| Bytes::copy_from_slice(synced.chain_hash.as_bytes())).unwrap_or_default(),
            chain: CHAIN.get(),
            feature_level: self.options.level.get(),
            resume: core.resume(),
            software: self.options.software.clone(),
            holds: self.parts.keys.holds(),
            held_back: synced.is_some() && core.published().is_none(),
            marks: marks_out(core.marks()),
        })
    }

    fn ack(&self, synced: Synced) -> proto::Ack {
        proto::Ack {
            position: Some(position_out(synced.position)),
            chain_hash: Bytes::copy_from_slice(synced.chain_hash.as_bytes()),
            signature: Bytes::new(),
            feature_level: self.options.level.get(),
        }
    }

    async fn send(&self, link: &mut Link<SubscribeUp, SubscribeDown>, message: Up) -> Result<(), FeedError> {
        let peer = link.peer.clone();
        tokio::select! {
            biased;
            sent = link.sender.send(SubscribeUp { message: Some(message) }) => {
                sent.map_err(|closed| FeedError::Closed { peer, reason: closed.reason })
            }
            () = self.parts.clock.sleep(self.options.silence_max) => {
                Err(FeedError::Silent { peer, silent_ms: millis(self.options.silence_max) })
            }
        }
    }

    /// Writes a snapshot file beside the work, when enough log has grown.
    fn snapshot_when_due(&mut self) {
        let due = self.core.as_mut().filter(|core| self.snapshot.is_none() && core.snapshot_due());
        let Some(job) = due.and_then(Core::begin_snapshot) else { return };
        let (done, written) = oneshot::channel();
        self.parts.offload.run(Box::new(move || {
            // Nobody waits any more when the follower has ended; the file is good all the same.
            let _ = done.send(job.run());
        }));
        self.snapshot = Some(written);
    }

    async fn snapshot_done(&mut self, written: Result<Position, FeedError>) -> Result<(), FeedError> {
        self.snapshot = None;
        let position = match written {
            Ok(position) => position,
            Err(error) => {
                // The log goes on growing, and the next one is tried after as much again.
                metrics::counter!("cinnabar_feed_snapshot_failures_total").increment(1);
                tracing::error!(error = &error as &dyn std::error::Error, "a snapshot file could not be written; the log is not cut");
                return Ok(());
            }
        };
        tracing::info!(%position, "snapshot file written");
        let mut core = self.core.take().ok_or(FeedError::Lost)?;
        let work = move || {
            let cut = core.snapshot_written();
            (core, cut)
        };
        let (core, cut) = run_blocking(&*self.parts.offload, work).await?;
        self.core = Some(core);
        cut
    }

    async fn close(&mut self) -> Result<(), FeedError> {
        let Some(core) = self.core.take() else { return Err(FeedError::Lost) };
        run_blocking(&*self.parts.offload, move || core.close()).await?
    }

    fn lost(&self, error: &FeedError) {
        let chain = chain_of(error);
        let fault = if let FeedError::Fault(fault) = error { Some(fault) } else { None };
        if let Some(fault) = fault {
            metrics::counter!("cinnabar_feed_refused_total", "fault" => fault.name()).increment(1);
        }
        match fault {
            Some(fault) if fault.alarms() => tracing::error!(fault = fault.name(), "refused, the last good state stays: {chain}"),
            Some(fault) => tracing::warn!(fault = fault.name(), "refused, syncing again: {chain}"),
            None => tracing::warn!("the stream was lost: {chain}"),
        }
        self.report(|status| {
            status.peer = None;
            status.sync = if status.published.is_some() { SyncState::Alone } else { SyncState::NotSynced };
            status.last_error = Some(chain);
            status.refused = if let FeedError::Refused { kind, .. } = error { Some(*kind) } else { None };
            if let Some(fault) = fault {
                status.last_fault = Some(fault.name());
                status.faults += 1;
            }
        });
    }

    fn report(&self, change: impl FnOnce(&mut FollowerStatus)) {
        self.status.send_modify(|status| {
            if let Some(core) = &self.core {
                status.durable = core.synced().map(|synced| synced.position);
                status.published = core.published();
                status.checkpoint = core.checkpoint_time();
                if status.sync == SyncState::NotSynced && status.published.is_some() {
                    status.sync = SyncState::Alone;
                }
            }
            change(status);
        });
    }

    /// A random wait up to a bound that doubles with each failure, so that a thousand edges do not come back at once.
    fn backoff(&self, failures: u32) -> Duration {
        let bound = self.options.backoff_min.saturating_mul(1 << failures.min(16)).min(self.options.backoff_max);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.parts.entropy.number() % micros)
    }
}

/// A stream to the next peer that has not asked to be left alone; to the next of all, when all have.
async fn next_peer(parts: &FollowerParts, turns: &Turns) -> Result<Link<SubscribeUp, SubscribeDown>, DialError> {
    let mut dialled = parts.dial.dial().await;
    for _ in 1..parts.dial.peers() {
        let away = dialled.as_ref().is_ok_and(|link| turns.is_away(&link.peer, parts.clock.monotonic()));
        if !away {
            break;
        }
        dialled = parts.dial.dial().await;
    }
    dialled
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The bytes that count for merging.
fn size(message: &SubscribeDown) -> usize {
    match &message.message {
        Some(Message::Batch(batch)) => batch.change_sets_encoded.iter().map(|set| set.len() + SET_OVERHEAD).sum(),
        Some(Message::SnapshotChunk(chunk)) => chunk.records.len(),
        _ => 256,
    }
}

fn name_peer(error: FeedError, name: &str) -> FeedError {
    match error {
        FeedError::Refused { kind, message, retry_after_ms, .. } => FeedError::Refused { peer: name.into(), kind, message, retry_after_ms },
        other => other,
    }
}

/// An error and its causes in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
