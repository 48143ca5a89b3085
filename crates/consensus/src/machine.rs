//! openraft's state machine on [`State`].
//!
//! A batch of committed entries is applied to a working copy, then, in this order: the audit log takes its entries, the new state
//! is shown ([`Core::local`]), the proposers get their replies, the listener hears of the change sets, and the writes go to the
//! table behind everybody's back, with the standing of the state in the same batch.
//!
//! **Invariants**
//! 1. A reply is sent after the state that it belongs to can be read: who was answered reads its own write.
//! 2. The shown state only ever moves forward in the log, or is replaced whole by a snapshot that is further.
//! 3. The table is never ahead of its own label: both are one batch. While a table is being refilled it has no label.
//! 4. A snapshot file is written only after the audit entries of what it holds are durable: replay could not make them again.
//!
//! **Failure**: a command that cannot be decoded or applied, and an audit sink that fails, stop the voter; what was applied
//! before it in the batch stays. A failing table is given up until the next start.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, storage::RaftStateMachine};
use seams::{
    TableBatch,
    mutation::{self, Mutation},
};
use state::{AuditEntry, ChangeSet, Command, CommandBody, Key, State};
use store::WriteBehind;
use types::{FeatureLevel, LogIndex, UnixMillis};

use crate::{
    Runtime,
    audit::AuditSink,
    error::{StopReason, chain},
    lock,
    offload::Offload,
    options::Applied,
    raft::{Answer, EntryResponder, Proposal, Snapshot, SnapshotMeta, StoredMembership, Types},
    snapshot::{Label, SnapshotFile, Snapshots, Standing},
    stop::Stop,
};

/// The key of the table's own record, above every keyspace of the state.
pub(crate) const LABEL_KEY: &[u8] = &[0xff];

/// Entries applied before what they changed is shown: bounds the wait of the first of them.
const BATCH_ENTRIES_MAX: usize = 512;
/// Bytes of writes after which a batch ends.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of records that go to a table that is refilled at a time.
const REFILL_BYTES: usize = 1 << 20;

/// What the handle and the state machine share.
pub(crate) struct Core {
    pub(crate) shown: Mutex<State>,
    pub(crate) applied: Arc<dyn Applied>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) level_max: FeatureLevel,
    pub(crate) stop: Stop,
}

impl Core {
    /// The state as applied here.
    pub(crate) fn local(&self) -> State {
        lock(&self.shown).clone()
    }

    /// Whether this voter may go on from a state that others made.
    pub(crate) fn may_hold(&self, state: &State) -> Result<(), StopReason> {
        let level = state.feature_level().map_err(|error| StopReason(chain(&error)))?;
        if level > self.level_max {
            let known = self.level_max;
            return Err(StopReason(format!("the state is of feature level {level}, this node knows up to {known}: update this node")));
        }
        Ok(())
    }
}

/// The state machine; owned by openraft's task.
pub(crate) struct Machine<R> {
    core: Arc<Core>,
    standing: Standing,
    state: State,
    behind: Option<WriteBehind>,
    snapshots: Arc<Snapshots>,
    offload: Offload<R>,
}

/// What a batch of entries brought.
struct Batch<R: Runtime> {
    entries: usize,
    commands: usize,
    bytes: usize,
    answers: Vec<(openraft::storage::ApplyResponder<Types<R>>, Answer)>,
    sets: Vec<Arc<ChangeSet>>,
    audit: Vec<AuditEntry>,
    /// The last write of each key: some change with every entry.
    writes: BTreeMap<Key, Option<Bytes>>,
    tick: Option<UnixMillis>,
}

impl<R: Runtime> Batch<R> {
    fn new() -> Self {
        Self {
            entries: 0,
            commands: 0,
            bytes: 0,
            answers: Vec::new(),
            sets: Vec::new(),
            audit: Vec::new(),
            writes: BTreeMap::new(),
            tick: None,
        }
    }
}

impl<R: Runtime> Machine<R> {
    pub(crate) fn new(
        core: Arc<Core>,
        standing: Standing,
        behind: Option<WriteBehind>,
        snapshots: Arc<Snapshots>,
        offload: Offload<R>,
    ) -> Self {
        let state = core.local();
        Self { core, standing, state, behind, snapshots, offload }
    }

    /// Applies one entry to the working copy.
    fn take(&mut self, (entry, responder): EntryResponder<R>, batch: &mut Batch<R>) -> Result<(), StopReason> {
        let answer = match entry.payload {
            EntryPayload::Blank => Answer(None),
            EntryPayload::Membership(membership) => {
                self.standing.membership = StoredMembership::new(Some(entry.log_id), membership);
                Answer(None)
            }
            EntryPayload::Normal(command) => {
                if mutation::is_on(Mutation::AppliedTwice) {
                    self.judge(entry.log_id.index, &command, batch)?;
                }
                self.judge(entry.log_id.index, &command, batch)?
            }
        };
        self.standing.applied = Some(entry.log_id);
        batch.entries += 1;
        if let Some(responder) = responder {
            batch.answers.push((responder, answer));
        }
        Ok(())
    }

    fn judge(&mut self, index: u64, Proposal(bytes): &Proposal, batch: &mut Batch<R>) -> Result<Answer, StopReason> {
        let stop = |error: &dyn std::error::Error| StopReason(format!("log entry {index} was not applied: {error}"));
        let command = Command::decode(bytes).map_err(|error| stop(&error))?;
        let index = LogIndex::new(index);
        self.state.may_follow(index, &command, self.core.level_max).map_err(|halt| stop(&halt))?;
        let outcome = self.state.apply_one(index, &command).map_err(|halt| stop(&halt))?;
        batch.commands += 1;
        for write in outcome.writes {
            batch.bytes += write.key.as_bytes().len() + write.value.as_ref().map_or(0, Bytes::len);
            batch.writes.insert(write.key, write.value);
        }
        batch.sets.extend(outcome.change_set);
        batch.audit.extend(outcome.audit);
        if matches!(command.body, CommandBody::Tick) && outcome.result.is_ok() {
            batch.tick = Some(self.state.last_time());
        }
        Ok(Answer(Some(outcome.result)))
    }

    /// Shows what a batch brought, in the order of the module's header.
    async fn publish(&mut self, mut batch: Batch<R>) -> Result<(), StopReason> {
        if batch.entries == 0 {
            return Ok(());
        }
        if batch.commands > 0 {
            // One for all: it is what makes the state root be hashed, before the state is shown to others.
            let head = self.state.head_write();
            batch.writes.insert(head.key, head.value);
        }
        let not_audited = |error: io::Error| StopReason(format!("audit entries were not stored: {}", chain(&error)));
        if self.core.audit.emit(batch.audit, self.state.last_time()).map_err(not_audited)? {
            let audit = self.core.audit.clone();
            self.offload.run(move || audit.sync()).await.map_err(not_audited)?;
        }
        *lock(&self.core.shown) = self.state.clone();
        for (responder, answer) in batch.answers {
            responder.send(answer);
        }
        self.core.applied.applied(&batch.sets, &self.state);
        if let Some(time) = batch.tick {
            self.core.applied.ticked(&self.state, time);
        }
        metrics::histogram!("cinnabar_consensus_apply_batch_entries").record(batch.entries as f64);
        if let Some(id) = self.standing.applied {
            metrics::gauge!("cinnabar_consensus_applied_index").set(id.index as f64);
        }
        self.write_behind(batch.writes).await;
        Ok(())
    }

    /// Hands the writes to the table, its label among them. Waits while the table is too far behind.
    async fn write_behind(&mut self, records: impl IntoIterator<Item = (Key, Option<Bytes>)>) {
        if self.behind.is_some() {
            let mut writes = TableBatch::default();
            records.into_iter().for_each(|(key, value)| put(&mut writes, &key, value.as_deref()));
            writes.put(LABEL_KEY, &Label::of(&self.standing, &self.state).encode()[..]);
            self.push(writes).await;
        }
    }

    async fn push(&mut self, writes: TableBatch) {
        let mark = self.standing.applied.map_or(0, |id| id.index + 1);
        if let Some(behind) = &self.behind
            && let Err(error) = behind.push(mark, writes).await
        {
            tracing::warn!(error = %chain(&error), "the table is given up until the next start; nothing is lost");
            metrics::counter!("cinnabar_consensus_table_failures_total").increment(1);
            self.behind = None;
        }
    }

    /// Makes the table hold the state and nothing else. `old` names what it holds now. A crash on the way leaves it without a
    /// label, which the next start takes for damage.
    pub(crate) async fn refill(&mut self, old: &State) {
        if self.behind.is_none() {
            return;
        }
        let mut writes = TableBatch::default();
        writes.delete(LABEL_KEY);
        let mut bytes = 0;
        let state = self.state.clone();
        let deletes = old.records().map(|(key, _)| (key, None));
        for (key, value) in deletes.chain(state.records().map(|(key, value)| (key, Some(value)))) {
            bytes += key.as_bytes().len() + value.as_ref().map_or(0, Bytes::len);
            put(&mut writes, &key, value.as_deref());
            if bytes >= REFILL_BYTES {
                self.push(std::mem::take(&mut writes)).await;
                bytes = 0;
            }
        }
        self.push(writes).await;
        self.write_behind([]).await;
    }

    fn stopped(&self, reason: StopReason) -> io::Error {
        tracing::error!(%reason, "the voter stops");
        self.core.stop.because(reason.clone());
        io::Error::other(reason)
    }
}

fn put(writes: &mut TableBatch, key: &Key, value: Option<&[u8]>) {
    match value {
        Some(value) => writes.put(key.as_bytes(), value),
        None => writes.delete(key.as_bytes()),
    }
}

impl<R: Runtime> RaftStateMachine<Types<R>> for Machine<R> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder<R>;

    async fn applied_state(&mut self) -> io::Result<(Option<crate::raft::LogId>, StoredMembership)> {
        Ok((self.standing.applied, self.standing.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<R>>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::new();
        while let Some(entry) = entries.try_next().await? {
            if let Err(reason) = self.take(entry, &mut batch) {
                // What came before is committed and applied: it is shown and answered before the voter stops.
                self.publish(batch).await.map_err(|reason| self.stopped(reason))?;
                return Err(self.stopped(reason));
            }
            if batch.entries >= BATCH_ENTRIES_MAX || batch.bytes >= BATCH_BYTES_MAX {
                let full = std::mem::replace(&mut batch, Batch::new());
                self.publish(full).await.map_err(|reason| self.stopped(reason))?;
            }
        }
        self.publish(batch).await.map_err(|reason| self.stopped(reason))
    }

    async fn get_snapshot_builder(&mut self) -> Builder<R> {
        Builder {
            core: self.core.clone(),
            standing: self.standing.clone(),
            state: self.state.clone(),
            snapshots: self.snapshots.clone(),
            offload: self.offload,
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        let (standing, state) = self.offload.run(move || snapshots.install(&file)).await?;
        if standing.applied != meta.last_log_id {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot file is of another entry than announced"));
        }
        self.core.may_hold(&state).map_err(|reason| self.stopped(reason))?;
        let state = if mutation::is_on(Mutation::SnapshotMerged) { on_top(&self.state, state) } else { state };
        let old = std::mem::replace(&mut self.state, state);
        self.standing = standing;
        *lock(&self.core.shown) = self.state.clone();
        self.core.applied.replaced(&self.state);
        self.refill(&old).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.newest().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A snapshot's state, with the records of control nodes alone that it lacks. For a mutation.
fn on_top(old: &State, snapshot: State) -> State {
    let mut records: BTreeMap<_, _> = old.records().filter(|(key, _)| !key.is_propagated()).collect();
    records.extend(snapshot.records());
    State::from_records(records).unwrap_or(snapshot)
}

/// Writes a snapshot file from an immutable copy of the state, while entries are applied.
pub(crate) struct Builder<R> {
    core: Arc<Core>,
    standing: Standing,
    state: State,
    snapshots: Arc<Snapshots>,
    offload: Offload<R>,
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for Builder<R> {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (snapshots, standing, state) = (self.snapshots.clone(), self.standing.clone(), self.state.clone());
        let audit = (!mutation::is_on(Mutation::AuditLeftBehind)).then(|| self.core.audit.clone());
        let written = self.offload.run(move || {
            audit.map_or(Ok(()), |audit| audit.sync())?;
            snapshots.write(&standing, &state)
        });
        let (meta, snapshot) = written.await?;
        Ok(Snapshot { meta, snapshot })
    }
}
