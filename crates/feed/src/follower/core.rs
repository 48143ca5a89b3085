//! The synchronous heart of an edge: verify, append and fdatasync, swap the root, acknowledge.
//!
//! [`Core::handle`] takes what waits on the stream. It verifies batch after batch in memory, each against its own seal; then all that
//! was verified becomes one append with one fdatasync, one swap, one acknowledgement. The table follows behind.
//!
//! **Invariants**
//! 1. `held` was verified and is durable (in the log, or in a snapshot file).
//! 2. What is published is `held`, and not before everything that was ever published is contained in it (see [`Mark`]).
//! 3. After an error of `handle`, `held` is the last good state and nothing half-verified remains but a snapshot's proven chunks.
//!
//! **Concurrency**: one owner at a time; every method may block for disks, so it runs where [`Offload`](crate::Offload) says.
//!
//! **Failure**: [`FeedError::Fault`] and a refusal cost the stream. [`FeedError::Log`] and [`FeedError::Disk`] mean that it is not
//! known what is durable: this core must be dropped and opened again. A table that fails is replaced on the spot, unless large values
//! went with it: then [`FeedError::Table`] says so, and this core must be opened again too.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use seams::{
    TableError,
    mutation::{self, Mutation},
};
use state::{ChangeSet, CheckpointStatement, Propagated, Root, SealStatement, Signed};
use store::{LogReader, LogWriter, SnapshotFolder};
use types::{Hash, Position, UnixMillis};
use wire::internal::{self as proto, RefusedKind, SubscribeDown, subscribe_down::Message};

use super::{
    CheckpointSeen,
    mark::{Mark, MarkFile, STRIDE},
    mutated,
    parts::{CoreOptions, CoreParts},
    past::{Past, PastFile},
    record,
    table::TableBehind,
    values::Values,
    verify,
};
use crate::{
    Fault, FeedError, SnapshotBuilder,
    block::block_on,
    serve::{is_cluster, level_in_force},
    sign::{Trust, generation_of},
};

/// What a change set costs in memory beside its bytes: also one of no bytes is counted.
pub(super) const SET_OVERHEAD: usize = 64;

/// How often an edge that is alone writes the mark, so that a clock that begins too early after a loss of power is told from one
/// that goes right.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// How far this node's clock may be behind the control plane's without being held for one that is wrong.
const SKEW: Duration = Duration::from_secs(5);

/// A position and the chain hash there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The position.
    pub position: Position,
    /// The chain hash.
    pub chain_hash: Hash,
}

/// What [`Core::handle`] did.
#[derive(Debug, Default)]
pub struct Handled {
    /// What is now durable and shown, and is to be acknowledged.
    pub acknowledge: Option<Synced>,
    /// Whether anything verified came: the stream is alive.
    pub fresh: bool,
    /// What was refused without costing the stream: checkpoints that are not newer than the last.
    pub passed_over: Vec<Fault>,
    /// Whether a signed acknowledgement was asked for.
    pub ack_wanted: bool,
}

/// What is verified and durable.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) state: Propagated,
    pub(crate) trust: Trust,
    /// None while nothing is held.
    pub(crate) seal: Option<Signed<SealStatement>>,
}

/// The follower's state and files.
pub struct Core {
    pub(super) options: CoreOptions,
    pub(super) parts: CoreParts,
    pub(super) log: LogWriter,
    pub(super) reader: LogReader,
    pub(super) snapshots: SnapshotFolder,
    pub(super) mark_file: MarkFile,
    pub(super) mark: Mark,
    pub(super) past_file: PastFile,
    pub(super) past: Past,
    pub(super) table: TableBehind,
    /// Where the large values of `held`, and of all roots that came from it, are read.
    pub(super) values: Arc<Values>,
    pub(super) held: Held,
    /// The latest log time that is proven to be contained in `held`: of a change set accepted here, or of a checkpoint for it.
    pub(super) proven_time: UnixMillis,
    /// What readers see; never goes back.
    pub(super) published: Option<Position>,
    pub(super) checkpoint: Option<Signed<CheckpointStatement>>,
    /// Change sets that came without their seal yet.
    pub(super) unsealed: Vec<Bytes>,
    pub(super) builder: Option<SnapshotBuilder>,
    pub(super) log_bytes: u64,
    pub(super) base: Base,
    /// A wall time that had certainly come at this monotonic time, whatever the wall clock shows since.
    pub(super) wall_floor: (UnixMillis, Duration),
    /// When the mark was written last, on the monotonic clock.
    pub(super) marked: Duration,
}

/// What a start went on from, before the log was replayed on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// Nothing: the log begins the chain, or it is empty.
    #[default]
    Nothing,
    /// The table, which had the state root of its seal at this position.
    Table(Position),
    /// The newest snapshot file that had: table missing, damaged, or of no use for the log.
    Snapshot(Position),
}

/// Verified in memory, not yet durable.
pub(super) struct Staged {
    pub(super) held: Held,
    pub(super) sets: Vec<Arc<ChangeSet>>,
    pub(super) entries: Vec<Bytes>,
    checkpoint: Option<Signed<CheckpointStatement>>,
}

impl Core {
    /// Takes the messages that wait, in order. On an error, what was good before it has been made durable and published.
    ///
    /// # Errors
    /// [`FeedError`]; see the module.
    pub fn handle(&mut self, messages: Vec<SubscribeDown>) -> Result<Handled, FeedError> {
        self.is_whole()?;
        let began = self.parts.clock.monotonic();
        let mut handled = Handled::default();
        let mut staged = Staged { held: self.held.clone(), sets: Vec::new(), entries: Vec::new(), checkpoint: None };
        let mut result = Ok(());
        for message in messages {
            result = self.one(message, &mut staged, &mut handled);
            if result.is_err() {
                self.unsealed.clear();
                break;
            }
        }
        self.settle(staged, &mut handled, began)?;
        self.is_whole()?;
        result.map(|()| handled)
    }

    /// Whether all large values can still be read. If not, a start finds them again: in snapshot file and log, or at the control plane.
    fn is_whole(&self) -> Result<(), FeedError> {
        let detail = match self.values.trouble() {
            Some(detail) => detail,
            None if self.table.has_lost() => "it failed, and large values went with it".to_owned(),
            None => return Ok(()),
        };
        Err(FeedError::Table { operation: "served large values", source: TableError::Damaged { operation: "get", detail } })
    }

    /// What is durable, when anything is; to be presented on subscribing.
    pub fn synced(&self) -> Option<Synced> {
        self.held.seal.as_ref().map(|_| Synced { position: self.held.state.position(), chain_hash: self.held.state.chain_hash() })
    }

    /// What readers see, when anything is published.
    pub fn published(&self) -> Option<Position> {
        self.published
    }

    /// What the start went on from.
    pub fn base(&self) -> Base {
        self.base
    }

    /// The time of the last verified checkpoint.
    pub fn checkpoint_time(&self) -> Option<UnixMillis> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.statement.time)
    }

    /// How far a snapshot has come that can be gone on with.
    pub fn resume(&self) -> Option<proto::SnapshotResume> {
        self.builder.as_ref().map(SnapshotBuilder::resume)
    }

    /// The stream was lost: what came without a seal goes with it. A snapshot's proven chunks stay.
    pub fn disconnected(&mut self) {
        self.unsealed.clear();
        self.held.trust.forget_announced();
    }

    /// Whether enough log has grown for a snapshot file.
    pub fn snapshot_due(&self) -> bool {
        self.log_bytes >= self.options.snapshot_every_bytes && self.held.seal.is_some()
    }

    /// Whether the mark has not been written for a minute, or [`Core::keep_mark`] has a failure to tell.
    pub fn mark_due(&self) -> bool {
        self.is_whole().is_err() || self.held.seal.is_some() && self.parts.clock.monotonic().saturating_sub(self.marked) >= MARK_EVERY
    }

    /// Writes the mark if it is due: how late it is by now must be known also after days alone.
    ///
    /// # Errors
    /// [`FeedError::Disk`]; [`FeedError::Table`] when a large value could not be read.
    pub fn keep_mark(&mut self) -> Result<(), FeedError> {
        self.is_whole()?;
        if self.mark_due() { self.write_mark() } else { Ok(()) }
    }

    /// Makes the mark durable, writes what waits for the table, and closes all files. What comes next is [`Core::open`].
    ///
    /// # Errors
    /// [`FeedError`] of the disk.
    pub fn close(mut self) -> Result<(), FeedError> {
        if self.held.seal.is_some() {
            self.write_mark()?;
        }
        self.table.close();
        self.log.close().map_err(|source| FeedError::Log { operation: "closed", source: Box::new(source) })
    }

    fn one(&mut self, message: SubscribeDown, staged: &mut Staged, handled: &mut Handled) -> Result<(), FeedError> {
        let message = message.message.ok_or(Fault::Protocol("a message without content"))?;
        if !self.unsealed.is_empty() && !may_divide_a_batch(&message) {
            return Err(Fault::Unsigned { have: staged.held.state.position() }.into());
        }
        match message {
            Message::Welcome(welcome) if is_cluster(&welcome.cluster, self.options.cluster) => Ok(()),
            Message::Welcome(_) => Err(Fault::Protocol("the server is of another cluster").into()),
            Message::Batch(batch) => self.batch(batch, staged, handled),
            Message::Checkpoint(checkpoint) => self.checkpoint(&checkpoint.checkpoint_encoded, staged, handled),
            Message::SnapshotBegin(begin) => {
                self.settle_now(staged, handled)?;
                self.snapshot_begin(&begin)
            }
            Message::SnapshotChunk(chunk) => {
                let builder = self.builder.as_mut().ok_or(Fault::Protocol("a snapshot's chunk without its beginning"))?;
                // A chunk that is not proven voids what the same sender proved before no less than itself: begin anew.
                builder.chunk(&chunk).inspect_err(|_| self.builder = None)?;
                self.table.relieve();
                handled.fresh = true;
                Ok(())
            }
            Message::SnapshotEnd(_) => {
                self.settle_now(staged, handled)?;
                self.snapshot_end(handled)?;
                staged.held = self.held.clone();
                Ok(())
            }
            Message::Envelopes(envelopes) => {
                self.parts.keys.received(envelopes.envelopes);
                Ok(())
            }
            Message::AckWanted(_) => {
                handled.ack_wanted = true;
                Ok(())
            }
            Message::Generation(begun) => {
                self.settle_now(staged, handled)?;
                self.announced(&begun)?;
                staged.held = self.held.clone();
                Ok(())
            }
            Message::Refused(refused) => Err(refusal(&refused, self.held.state.position())),
        }
    }

    /// One batch, or a part of one: verified against its seal when that comes.
    fn batch(&mut self, batch: proto::Batch, staged: &mut Staged, handled: &mut Handled) -> Result<(), FeedError> {
        let have = staged.held.state.position();
        // Who sends change sets is done with snapshots: what was begun would lead back behind them.
        self.builder = None;
        if batch.change_sets_encoded.is_empty() {
            return Err(Fault::Protocol("a batch without change sets").into());
        }
        let bytes: usize = self.unsealed.iter().chain(&batch.change_sets_encoded).map(|set| set.len() + SET_OVERHEAD).sum();
        if bytes > self.options.unsealed_bytes_max {
            let max = self.options.unsealed_bytes_max as u64;
            return Err(Fault::TooLarge { what: "change sets without a seal", got: bytes as u64, max }.into());
        }
        // Copied out of the message, so that one small record does not keep a large receive buffer in memory.
        self.unsealed.extend(batch.change_sets_encoded.iter().map(|set| Bytes::copy_from_slice(set)));
        if mutation::is_on(Mutation::SealUnchecked) {
            handled.fresh = true;
            return self.take_unsealed(&batch.seal_encoded, staged);
        }
        if batch.seal_encoded.is_empty() {
            return Ok(());
        }
        let encoded = std::mem::take(&mut self.unsealed);
        let sets = encoded.into_iter().map(verify::change_set).collect::<Result<Vec<_>, _>>()?;
        let verified = verify::batch(self.options.cluster, &staged.held.state, &staged.held.trust, &sets, &batch.seal_encoded)?;
        self.fits(&staged.held.state, &verified.state)?;
        for (place, set) in sets.iter().enumerate() {
            let seal = (place + 1 == sets.len()).then_some(&batch.seal_encoded[..]);
            staged.entries.push(record::encode(set.encoded(), seal));
        }
        staged.sets.extend(sets);
        staged.held = Held { state: verified.state, trust: verified.trust, seal: Some(verified.seal) };
        handled.fresh = true;
        self.parts.publish.verified(staged.held.state.position());
        tracing::trace!(from = %have, to = %staged.held.state.position(), "batch verified");
        Ok(())
    }

    /// Refuses a state of a feature level that this node does not go along with, and one that is larger than memory allows, unless it
    /// is smaller than the one before: a delete always passes.
    fn fits(&self, before: &Propagated, after: &Propagated) -> Result<(), Fault> {
        let (level, known) = (level_in_force(after), self.options.level_max);
        if level > known {
            let detail = format!("it is of feature level {level}, this node knows up to {known}: update this node");
            return Err(Fault::BadChangeSet { at: after.position(), detail });
        }
        // Without a table, large values stay in memory too.
        let large = if self.table.is_gone() { self.values.memory_bytes() } else { 0 };
        let (got, max) = (after.bytes() + large, self.options.index_bytes_max);
        metrics::gauge!("cinnabar_feed_index_bytes").set(got as f64);
        if got <= max || got < before.bytes() {
            return Ok(());
        }
        Err(Fault::IndexFull { at: after.position(), got, max })
    }

    fn checkpoint(&mut self, encoded: &Bytes, staged: &mut Staged, handled: &mut Handled) -> Result<(), FeedError> {
        // As with a batch: who vouches for what is held is not in the middle of a snapshot.
        self.builder = None;
        if staged.held.seal.is_none() {
            return Err(Fault::Protocol("a checkpoint before anything is held").into());
        }
        let newest = staged.checkpoint.as_ref().or(self.checkpoint.as_ref());
        let last = newest.map(|checkpoint| checkpoint.statement.time).unwrap_or_default();
        match verify::checkpoint(self.options.cluster, &staged.held.state, &staged.held.trust, last, encoded) {
            Ok(checkpoint) => {
                staged.checkpoint = Some(checkpoint);
                handled.fresh = true;
                Ok(())
            }
            // A node that is a tick behind the last one's is not wrong, only not news.
            Err(fault @ Fault::OldCheckpoint { .. }) => {
                metrics::counter!("cinnabar_feed_refused_total", "fault" => fault.name()).increment(1);
                handled.passed_over.push(fault);
                Ok(())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Makes what is staged durable and shows it, in the middle of a run of messages.
    fn settle_now(&mut self, staged: &mut Staged, handled: &mut Handled) -> Result<(), FeedError> {
        let held = staged.held.clone();
        let now = std::mem::replace(staged, Staged { held, sets: Vec::new(), entries: Vec::new(), checkpoint: None });
        let began = self.parts.clock.monotonic();
        self.settle(now, handled, began)
    }

    /// Append and fdatasync, mark, swap, table behind: the order of an edge.
    fn settle(&mut self, staged: Staged, handled: &mut Handled, began: Duration) -> Result<(), FeedError> {
        let moved = !staged.sets.is_empty();
        if moved && mutation::is_on(Mutation::PublishedBeforeDurable) {
            self.publish_unheld(&staged.held);
        }
        if moved && mutation::is_on(Mutation::HalfShown) {
            self.publish_half(&staged.sets);
        }
        if moved {
            let verified = self.parts.clock.monotonic();
            metrics::histogram!("cinnabar_feed_verify_seconds").record(verified.saturating_sub(began).as_secs_f64());
            self.append(staged.entries)?;
            let durable = self.parts.clock.monotonic();
            metrics::histogram!("cinnabar_feed_append_seconds").record(durable.saturating_sub(verified).as_secs_f64());
            self.held = staged.held;
            // Accepted sets are chained by hash up to the seal, so their times are what the control plane wrote.
            self.proven_time = staged.sets.last().map_or(self.proven_time, |set| set.header.time.max(self.proven_time));
            self.past.passed(&staged.sets, self.options.mark_every);
            self.keep_past()?;
        }
        let checkpointed = staged.checkpoint.is_some();
        if let Some(checkpoint) = staged.checkpoint {
            self.proven_time = self.proven_time.max(checkpoint.statement.time);
            // The signed time is as good as a clock: what age counts from here on starts at the later of the two.
            self.wall_floor = (self.parts.clock.wall().max(less_skew(checkpoint.statement.time)), self.parts.clock.monotonic());
            self.checkpoint = Some(checkpoint);
        }
        if !moved && !checkpointed {
            return Ok(());
        }
        let shown = self.show(checkpointed)?;
        if let Some(shown) = shown {
            handled.acknowledge = Some(shown);
        }
        if moved {
            self.table.push(&staged.sets, &self.held, &mut *self.parts.tables);
        } else {
            self.table.sweep();
        }
        metrics::gauge!("cinnabar_feed_values_waiting_bytes").set(self.values.memory_bytes() as f64);
        Ok(())
    }

    fn append(&mut self, entries: Vec<Bytes>) -> Result<(), FeedError> {
        if mutation::is_on(Mutation::AcknowledgedBeforeDurable) {
            return Ok(());
        }
        self.log_bytes += entries.iter().map(|entry| entry.len() as u64).sum::<u64>();
        let first = self.reader.next_index();
        let (done, durable) = store::completion();
        let failed = |source| FeedError::Log { operation: "appended change sets", source: Box::new(source) };
        block_on(self.log.append_here(first, entries, done)).map_err(failed)?;
        block_on(durable).map_err(failed)
    }

    /// Publishes what is held, unless damage before the start could have lost something that readers have seen.
    pub(super) fn show(&mut self, checkpointed: bool) -> Result<Option<Synced>, FeedError> {
        let Some(seal) = self.held.seal else {
            return Ok(None);
        };
        let released = match self.mark.hold {
            Some(until) if self.proven_time <= until || self.held.state.position() < self.mark.position => {
                tracing::warn!(position = %self.held.state.position(), "held back until it is certain that nothing shown before is missing");
                return Ok(None);
            }
            hold => hold.is_some(),
        };
        self.mark.hold = None;
        // The first checkpoint is kept at once: an edge that restarts alone without one knows no age, and may not serve.
        let first_checkpoint = checkpointed && self.mark.checkpoint.is_none();
        // The mark goes first: what is shown is never later than it plus the stride.
        if released || first_checkpoint || self.published.is_none() || self.newest_time() > self.mark.time.plus(STRIDE) {
            self.write_mark()?;
        }
        let position = self.held.state.position();
        if self.published < Some(position) {
            self.parts.publish.publish(Arc::new(Root { state: self.held.state.clone(), seal }));
            self.published = Some(position);
            metrics::gauge!("cinnabar_feed_revision").set(position.revision.get() as f64);
        }
        if checkpointed && let Some(checkpoint) = &self.checkpoint {
            let (position, time) = (checkpoint.statement.position, checkpoint.statement.time);
            self.parts.publish.checkpoint(CheckpointSeen { position, time, restored_wall: None });
        }
        Ok(self.synced())
    }

    /// The latest log time that is known of what is held.
    fn newest_time(&self) -> UnixMillis {
        self.held.state.head().time.max(self.proven_time)
    }

    pub(super) fn write_mark(&mut self) -> Result<(), FeedError> {
        let now = self.parts.clock.monotonic();
        let (floor, since) = self.wall_floor;
        let mut at = (self.held.state.position(), Some(self.held.state.chain_hash()));
        if self.mark.hold.is_some() && self.mark.position > at.0 {
            // What was held before the damage stays known until it is back.
            at = (self.mark.position, self.mark.chain_hash);
        }
        self.marked = now;
        self.mark = Mark {
            position: at.0,
            chain_hash: at.1,
            time: self.newest_time().max(self.mark.time),
            wall: self.parts.clock.wall().max(floor.plus(now.saturating_sub(since))),
            hold: self.mark.hold,
            checkpoint: self.checkpoint.as_ref().map(Signed::encode),
        };
        self.mark_file.write(&self.mark).map_err(|source| FeedError::Disk { operation: "writing the high-water mark", source })
    }

    fn snapshot_begin(&mut self, begin: &proto::SnapshotBegin) -> Result<(), FeedError> {
        // One that is smaller than what is held passes even where there is no room: see `fits`.
        let bytes_max = self.options.index_bytes_max.max(self.held.state.bytes());
        let builder = SnapshotBuilder::begin(self.options.cluster, begin, &self.held, bytes_max, self.builder.take())?;
        self.leads_on(builder.position())?;
        self.builder = Some(builder);
        Ok(())
    }

    /// Refuses a snapshot that is not newer than what is held.
    fn leads_on(&self, got: Position) -> Result<(), Fault> {
        let have = self.held.state.position();
        if self.held.seal.is_some() && got <= have { Err(Fault::SnapshotBack { got, have }) } else { Ok(()) }
    }

    /// The whole snapshot is proven: its file is made durable, the log begins anew behind it, then it is shown.
    fn snapshot_end(&mut self, handled: &mut Handled) -> Result<(), FeedError> {
        let builder = self.builder.take().ok_or(Fault::Protocol("a snapshot's end without its beginning"))?;
        // What is held may have moved on since the beginning was checked.
        self.leads_on(builder.position())?;
        let marks = builder.marks();
        let (state, seal) = builder.finish(self.newest_time())?;
        let verified = verify::sealed(self.options.cluster, state, &self.held.trust, &seal)?;
        let verified = mutated::laid_on_top(&self.held.state, verified);
        self.fits(&self.held.state, &verified.state)?;
        let begun = generation_of(&verified.state, verified.state.generation())?;
        let before = std::mem::replace(&mut self.held, Held { state: verified.state, trust: verified.trust, seal: Some(verified.seal) });
        let kept = self.write_snapshot().and_then(|()| self.restart_log());
        if let Err(error) = kept {
            self.held = before;
            return Err(error);
        }
        if let Some(begun) = begun {
            self.past.began(begun);
        }
        self.past.mark(marks);
        self.keep_past()?;
        handled.fresh = true;
        self.parts.publish.verified(self.held.state.position());
        // The mark, so that an empty log is not taken for one that was lost.
        self.write_mark()?;
        handled.acknowledge = self.show(false)?.or(handled.acknowledge);
        self.table.replace(&before.state, &self.held, &mut *self.parts.tables);
        tracing::info!(position = %self.held.state.position(), "snapshot installed");
        Ok(())
    }

    /// Empties the log and lets it go on behind what is held.
    pub(super) fn restart_log(&mut self) -> Result<(), FeedError> {
        // Past the end, so that one durable operation empties the log and lets it go on there: a crash leaves it as it was, or behind
        // what is held, and never empty at an index that connects to nothing.
        self.purge_before(self.held.state.position().revision.get() + 1)?;
        self.log_bytes = 0;
        Ok(())
    }

    pub(super) fn purge_before(&mut self, index: u64) -> Result<(), FeedError> {
        let failed = |source| FeedError::Log { operation: "was cut", source: Box::new(source) };
        let (done, durable) = store::completion();
        block_on(self.log.purge_before(index, Bytes::new(), done)).map_err(failed)?;
        block_on(durable).map_err(failed)
    }
}

/// A time of the control plane's, as a clock that is a little behind may show it.
pub(super) fn less_skew(time: UnixMillis) -> UnixMillis {
    UnixMillis::new(time.get().saturating_sub(SKEW.as_millis() as u64))
}

/// What may come before the rest of a batch and its seal. Anything else says that the sender is done with it, and left it unsigned.
const fn may_divide_a_batch(message: &Message) -> bool {
    matches!(message, Message::Batch(_) | Message::Envelopes(_) | Message::AckWanted(_) | Message::Refused(_))
}

/// What a refusal of the other side means here.
fn refusal(refused: &proto::Refused, at: Position) -> FeedError {
    let kind = refused.kind();
    let (detail, retry_after_ms) = (refused.message.chars().take(200).collect(), refused.retry_after_ms);
    match kind {
        RefusedKind::Fork => Fault::Fork { at, detail, retry_after_ms }.into(),
        RefusedKind::Generation => Fault::OtherGeneration { at, detail, retry_after_ms }.into(),
        _ => FeedError::Refused { peer: String::new(), kind: kind.as_str_name(), message: detail, retry_after_ms },
    }
}
