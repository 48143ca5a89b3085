//! What an edge does at start, with the control plane away: find the newest state that its own disk can prove.
//!
//! The table if its records have the state root of its seal, else the newest snapshot file that does; then the log is replayed on
//! top, every batch verified again like one from the network; what a disk holds is believed no more than what a stream
//! brings. Damage is set aside, never repaired in place; what it may have cost is known from the [`Mark`](super::Mark): when
//! something that readers have seen could be missing, nothing is shown until the control plane has proven that all of it is back.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use seams::{
    Disk, Table,
    mutation::{self, Mutation},
};
use state::{Key, Propagated};
use store::{LogError, LogOptions, LogReader, LogWriter, SnapshotFolder};
use types::{Position, UnixMillis};

use super::{
    CheckpointSeen,
    core::{Base, Core, Held, less_skew},
    mark::{Found, Mark, MarkFile, STRIDE},
    parts::{CoreOptions, CoreParts},
    past::PastFile,
    record,
    table::{self, Load, TableBehind},
    values::Values,
    verify,
};
use crate::{Fault, FeedError, block::block_on, sign::Trust};

/// How many snapshot files are kept: the newest, and one to fall back to.
const SNAPSHOTS_KEPT: usize = 2;
/// How many damaged logs are kept for a person to look at.
const ASIDE_KEPT: usize = 2;
/// Bytes read at once while replaying.
const REPLAY_BYTES: usize = 4 << 20;

impl Core {
    /// Opens the folder, recovers, and publishes what can be proven. Blocks for as long as it takes to read everything once.
    ///
    /// # Errors
    /// [`FeedError`] when the disk fails or a newer Cinnabar wrote the folder. Damage is no error: it is set aside, and what is lost
    /// comes again from the control plane.
    pub fn open(mut options: CoreOptions, mut parts: CoreParts) -> Result<Self, FeedError> {
        let folder = options.folder.clone();
        let folder = &folder;
        parts.disk.create_dir_all(folder).map_err(|source| FeedError::Disk { operation: "creating the folder", source })?;
        let marked = MarkFile::open(&parts.disk, folder);
        let (mark_file, found) = marked.map_err(|source| FeedError::Disk { operation: "opening the high-water mark", source })?;
        let past = PastFile::open(&parts.disk, folder);
        let (past_file, past) = past.map_err(|source| FeedError::Disk { operation: "opening what is remembered of the chain", source })?;
        options.anchor.recovery = options.anchor.recovery.or(past.recovery);
        let opened = open_log(&options, &parts.disk)?;
        let snapshots = SnapshotFolder::open(parts.disk.clone(), folder.join("snapshots"))
            .map_err(|source| FeedError::Snapshot { operation: "opening the folder", source: Box::new(source) })?;
        let values = Values::new(options.inline_bytes_max);
        let (table, in_table) = open_table(&options, &mut parts, &values);
        let mut core = Self {
            held: nothing(&options, &values),
            log: opened.log,
            reader: opened.reader,
            snapshots,
            mark_file,
            mark: match &found {
                Found::Mark(mark) => mark.clone(),
                Found::Nothing | Found::Damaged => Mark::default(),
            },
            past_file,
            past,
            table: TableBehind::new(table, values.clone(), options.drive),
            values,
            proven_time: UnixMillis::default(),
            published: None,
            checkpoint: None,
            unsealed: Vec::new(),
            builder: None,
            log_bytes: 0,
            base: Base::Nothing,
            wall_floor: (UnixMillis::default(), parts.clock.monotonic()),
            marked: parts.clock.monotonic(),
            options,
            parts,
        };
        let (base, in_table) = core.choose_base(in_table)?;
        let whole = core.recover(base, opened.whole, found == Found::Damaged)?;
        core.keep_past()?;
        core.remember(&found, whole)?;
        core.align(&in_table);
        core.wall_floor.0 = core.mark.wall.max(core.parts.clock.wall());
        core.restore_checkpoint();
        let wall_before = core.mark.wall;
        core.show(false)?;
        core.announce(wall_before);
        Ok(core)
    }

    /// What to go on from, and what the table holds then: the table's state, or nothing, when something else is gone on from.
    fn choose_base(&mut self, in_table: InTable) -> Result<(Option<Held>, Propagated), FeedError> {
        match in_table {
            // A table that lies before the log's beginning cannot be gone on from; a snapshot file may be newer.
            InTable::Proven(held) if self.connects(&held) => {
                self.base = Base::Table(held.state.position());
                let state = held.state.clone();
                return Ok((Some(*held), state));
            }
            InTable::Empty => {}
            of_no_use @ (InTable::Proven(_) | InTable::Unfinished) => {
                // Nothing may name its values any more when it goes; and it goes before anything else is read, since large values are put
                // into the table as they come.
                drop(of_no_use);
                self.table.reset(&mut *self.parts.tables);
            }
        }
        let held = self.newest_snapshot()?;
        self.base = held.as_ref().map_or(Base::Nothing, |held| Base::Snapshot(held.state.position()));
        Ok((held, self.held.state.emptied()))
    }

    /// Whether the log begins no later than behind this state, which is of no older generation than was followed already.
    fn connects(&self, held: &Held) -> bool {
        let generation = self.past.generation.map(|signed| signed.statement.generation()).unwrap_or_default();
        held.state.position().revision.get() + 1 >= self.reader.first_index() && held.state.generation() >= generation
    }

    /// From the base through the log. True when the log reaches from there to everything that was ever shown.
    fn recover(&mut self, base: Option<Held>, log_whole: bool, mark_lost: bool) -> Result<bool, FeedError> {
        self.held = base.unwrap_or_else(|| nothing(&self.options, &self.values));
        let base = self.held.state.position();
        let mut whole = log_whole;
        if !self.connects(&self.held) {
            tracing::error!(base = %base, log_begins = self.reader.first_index(), "no copy on this disk reaches to the beginning of the log");
            whole = false;
        } else if let Err(fault) = self.replay() {
            tracing::error!(error = &fault as &dyn std::error::Error, at = %self.held.state.position(), "the log holds what does not verify");
            metrics::counter!("cinnabar_feed_refused_total", "fault" => fault.name()).increment(1);
            whole = false;
        }
        // The log must end where the state does: what follows a base beyond its end, or beyond damage, begins behind it.
        let end = self.held.state.position().revision.get() + 1;
        if whole && self.reader.next_index() > end {
            self.truncate_from(end)?;
        } else if self.reader.next_index() != end || !whole {
            // Without a mark nobody knows whether this log ends early because it never held more.
            whole &= !mark_lost && self.reaches_mark(self.reader.next_index());
            if self.held.seal.is_some() {
                self.write_snapshot()?;
            }
            if !whole {
                self.set_log_aside()?;
            }
            self.restart_log()?;
        }
        Ok(whole && self.reaches_mark(end))
    }

    /// Whether what ends before `index` holds at least what was durable when the mark was written.
    fn reaches_mark(&self, index: u64) -> bool {
        self.mark.position == Position::default() || index > self.mark.position.revision.get()
    }

    /// Applies the log's entries behind what is held, batch by batch.
    fn replay(&mut self) -> Result<(), Fault> {
        let mut index = self.held.state.position().revision.get() + 1;
        let (mut sets, mut replayed) = (Vec::new(), 0_u64);
        while index < self.reader.next_index() {
            let entries = self.reader.read(index..self.reader.next_index(), REPLAY_BYTES);
            let entries = entries.map_err(|error| Fault::Malformed { what: "edge log", detail: error.to_string() })?;
            if entries.is_empty() {
                return Err(Fault::Malformed { what: "edge log", detail: format!("entry {index} is missing") });
            }
            for (at, entry) in entries {
                index = at + 1;
                replayed += entry.len() as u64;
                let (set, seal) = record::decode(&entry)?;
                // Copied out of the block that was read, which would stay in memory otherwise.
                sets.push(verify::change_set(Bytes::copy_from_slice(&set))?);
                let Some(seal) = seal else { continue };
                let verified = verify::batch(self.options.cluster, &self.held.state, &self.held.trust, &sets, &seal)?;
                self.proven_time = sets.last().map_or(self.proven_time, |set| set.header.time.max(self.proven_time));
                self.held = Held { state: verified.state, trust: verified.trust, seal: Some(verified.seal) };
                self.past.passed(&sets, self.options.mark_every);
                sets.clear();
                self.table.relieve();
            }
        }
        self.log_bytes = replayed;
        Ok(())
    }

    /// Decides whether readers may have seen more than what is held, and makes that known to the next start too.
    fn remember(&mut self, found: &Found, whole: bool) -> Result<(), FeedError> {
        let hold = match found {
            _ if mutation::is_on(Mutation::MarkForgotten) => None,
            Found::Nothing => None,
            Found::Mark(_) if whole => self.mark.hold,
            Found::Mark(mark) => Some(mark.hold.unwrap_or_default().max(mark.time.plus(STRIDE))),
            Found::Damaged if whole => None,
            // Nothing says what was shown: wait for what the control plane vouches for from now on.
            Found::Damaged => Some(self.parts.clock.wall()),
        };
        if hold != self.mark.hold || *found == Found::Damaged {
            self.mark.hold = hold;
            let written = self.mark_file.write(&self.mark);
            written.map_err(|source| FeedError::Disk { operation: "writing the high-water mark", source })?;
        }
        Ok(())
    }

    /// Brings the table from what is in it to what is held.
    fn align(&mut self, in_table: &Propagated) {
        if self.held.seal.is_some() && in_table.position() != self.held.state.position() {
            self.table.replace(in_table, &self.held, &mut *self.parts.tables);
        }
    }

    /// Takes up the last checkpoint of before, verified again.
    fn restore_checkpoint(&mut self) {
        let Some(encoded) = self.mark.checkpoint.clone().filter(|_| self.held.seal.is_some()) else { return };
        let none = UnixMillis::default();
        match verify::checkpoint(self.options.cluster, &self.held.state, &self.held.trust, none, &encoded) {
            Ok(checkpoint) => {
                self.proven_time = self.proven_time.max(checkpoint.statement.time);
                self.wall_floor.0 = self.wall_floor.0.max(less_skew(checkpoint.statement.time));
                self.checkpoint = Some(checkpoint);
            }
            Err(fault) => {
                tracing::warn!(fault = fault.name(), "the checkpoint of before the restart is of no use: age is unknown until the next")
            }
        }
    }

    fn announce(&self, wall_before: UnixMillis) {
        if let (Some(position), Some(checkpoint)) = (self.published, &self.checkpoint) {
            let seen = CheckpointSeen {
                position: checkpoint.statement.position.min(position),
                time: checkpoint.statement.time,
                restored_wall: Some(wall_before),
            };
            self.parts.publish.checkpoint(seen);
        }
        tracing::info!(
            position = %self.held.state.position(),
            base = ?self.base,
            records = self.held.state.len(),
            shown = self.published.is_some(),
            "the follower has recovered"
        );
    }

    /// The newest snapshot file whose records have the state root of its seal.
    fn newest_snapshot(&mut self) -> Result<Option<Held>, FeedError> {
        let orders = self.snapshots.orders();
        let orders = orders.map_err(|source| FeedError::Snapshot { operation: "listing", source: Box::new(source) })?;
        for order in orders {
            match self.load_snapshot(order) {
                Ok(held) => return Ok(Some(held)),
                Err(error) => {
                    metrics::counter!("cinnabar_feed_damaged_total", "what" => "snapshot").increment(1);
                    tracing::error!(error = &error as &dyn std::error::Error, order, "a snapshot file is damaged: falling back");
                }
            }
        }
        Ok(None)
    }

    fn load_snapshot(&mut self, order: u128) -> Result<Held, FeedError> {
        let failed = |source| FeedError::Snapshot { operation: "reading", source: Box::new(source) };
        let mut reader = self.snapshots.read(order).map_err(failed)?;
        let (head, seal) = table::decode_head(reader.meta())?;
        let mut loading = self.held.state.emptied().load();
        while let Some(chunk) = reader.next_chunk().map_err(failed)? {
            for (key, value) in chunk {
                // Copied out of the chunk, so that one record does not keep its neighbours in memory.
                loading.put(Key::from_bytes(&key[..]), Bytes::copy_from_slice(&value).into());
            }
            self.table.relieve();
        }
        Ok(proven(&self.options, loading.finish(head), &seal)?)
    }

    /// A snapshot file of what is held, if there is none yet; it takes the place of the oldest.
    pub(super) fn write_snapshot(&self) -> Result<(), FeedError> {
        let Some(job) = self.snapshot_job() else { return Ok(()) };
        let order = order_of(job.run()?);
        let failed = |source| FeedError::Snapshot { operation: "removing old files", source: Box::new(source) };
        // Files of later positions were of no use, or this one would not have been written: they must not push it out.
        let later = self.snapshots.orders().map_err(failed)?.iter().filter(|other| **other > order).count();
        self.snapshots.keep_newest(later + SNAPSHOTS_KEPT).map_err(failed)
    }

    /// Work that writes a snapshot file of what is held; it may run beside the core. None while nothing is held.
    pub fn snapshot_job(&self) -> Option<SnapshotJob> {
        let seal = self.held.seal.as_ref()?.encode();
        Some(SnapshotJob { disk: self.parts.disk.clone(), folder: self.snapshots.clone(), state: self.held.state.clone(), seal })
    }

    /// As [`Core::snapshot_job`], for the snapshot that is due: the log's growth counts from here on.
    pub fn begin_snapshot(&mut self) -> Option<SnapshotJob> {
        self.log_bytes = 0;
        self.snapshot_job()
    }

    /// A snapshot job has ended well: the log is cut below the older of the files that are kept, so that one may still be lost.
    ///
    /// # Errors
    /// [`FeedError`] of the log or of the folder.
    pub fn snapshot_written(&mut self) -> Result<(), FeedError> {
        let failed = |source| FeedError::Snapshot { operation: "listing", source: Box::new(source) };
        self.snapshots.keep_newest(SNAPSHOTS_KEPT).map_err(failed)?;
        let orders = self.snapshots.orders().map_err(failed)?;
        let generation = u128::from(self.held.state.generation().get());
        let kept: Vec<u128> = orders.into_iter().filter(|order| order >> 64 == generation).collect();
        match kept.last() {
            Some(oldest) if kept.len() == SNAPSHOTS_KEPT => self.purge_before(*oldest as u64 + 1),
            _ => Ok(()),
        }
    }

    fn truncate_from(&mut self, index: u64) -> Result<(), FeedError> {
        let failed = |source| FeedError::Log { operation: "dropped a batch that was cut off", source: Box::new(source) };
        let (done, durable) = store::completion();
        block_on(self.log.truncate_from(index, done)).map_err(failed)?;
        block_on(durable).map_err(failed)
    }

    fn set_log_aside(&mut self) -> Result<(), FeedError> {
        // An error while closing what is set aside changes nothing.
        let _ = self.log.close();
        set_aside(&self.parts.disk, &self.options.folder)?;
        let opened = open_log(&self.options, &self.parts.disk)?;
        self.log = opened.log;
        self.reader = opened.reader;
        Ok(())
    }
}

/// The order by which a snapshot file of a position is named.
fn order_of(position: Position) -> u128 {
    u128::from(position.generation.get()) << 64 | u128::from(position.revision.get())
}

/// Writes one snapshot file and reads it back.
pub struct SnapshotJob {
    disk: Arc<dyn Disk>,
    folder: SnapshotFolder,
    state: Propagated,
    seal: Bytes,
}

impl SnapshotJob {
    /// Blocks until the file is durable and verified, and returns its position.
    ///
    /// # Errors
    /// [`FeedError::Snapshot`].
    pub fn run(self) -> Result<Position, FeedError> {
        let failed = |operation| move |source| FeedError::Snapshot { operation, source: Box::new(source) };
        let position = self.state.position();
        let order = order_of(position);
        let present = self.folder.orders().map_err(failed("listing"))?.contains(&order);
        if present && self.verify(order).is_err() {
            // A damaged file of this very position: it is of no use, and in the way.
            self.disk
                .remove_file(&self.folder.path(order))
                .map_err(|source| FeedError::Disk { operation: "removing a damaged snapshot file", source })?;
        } else if present {
            return Ok(position);
        }
        let meta = table::encode_head(&self.state, &self.seal);
        let mut writer = self.folder.create(order, &meta).map_err(failed("creating"))?;
        for (key, content) in self.state.records() {
            let unread = |source| FeedError::Snapshot { operation: "reading a large value for one", source: Box::new(source) };
            writer.put(key.as_bytes(), &content.bytes(key).map_err(unread)?).map_err(failed("writing"))?;
        }
        writer.finish().map_err(failed("writing"))?;
        self.verify(order).map_err(failed("verifying"))?;
        Ok(position)
    }

    fn verify(&self, order: u128) -> Result<(), store::SnapshotError> {
        self.folder.read(order).and_then(store::SnapshotReader::verify).map(drop)
    }
}

fn nothing(options: &CoreOptions, values: &Arc<Values>) -> Held {
    Held { state: Propagated::empty_with(values.clone()), trust: Trust::new(options.cluster, options.anchor), seal: None }
}

/// A state from a disk, held against the seal that lies beside it.
fn proven(options: &CoreOptions, state: Propagated, seal: &Bytes) -> Result<Held, Fault> {
    let verified = verify::sealed(options.cluster, state, &Trust::new(options.cluster, options.anchor), seal)?;
    Ok(Held { state: verified.state, trust: verified.trust, seal: Some(verified.seal) })
}

/// What the table had to offer at start.
enum InTable {
    Empty,
    Unfinished,
    Proven(Box<Held>),
}

/// The table, and what it proves. All of it is read, once. A damaged one is set aside.
fn open_table(options: &CoreOptions, parts: &mut CoreParts, values: &Arc<Values>) -> (Option<Box<dyn Table>>, InTable) {
    let mut load = Load::new(values, &Propagated::empty_with(values.clone()));
    let opened = match parts.tables.open(&mut |key, value| load.visit(key, value)) {
        Ok(opened) => opened,
        Err(source) => {
            damaged(&FeedError::Table { operation: "was opened", source });
            return (None, InTable::Empty);
        }
    };
    if let Some(source) = opened.damage {
        damaged(&FeedError::Table { operation: "was read at start", source });
        drop(load);
        values.begin_anew(None);
        return (Some(opened.table), InTable::Empty);
    }
    let proven = match load.end() {
        Ok(table::Found::Empty) => return (Some(opened.table), InTable::Empty),
        Ok(table::Found::Unfinished) => return (Some(opened.table), InTable::Unfinished),
        Ok(table::Found::Copy { state, seal }) => proven(options, *state, &seal).map_err(FeedError::from),
        Err(source) => Err(FeedError::Table { operation: "was read at start", source }),
    };
    match proven {
        Ok(held) => (Some(opened.table), InTable::Proven(Box::new(held))),
        Err(why) => {
            if let FeedError::Fault(fault) = &why {
                metrics::counter!("cinnabar_feed_refused_total", "fault" => fault.name()).increment(1);
            }
            damaged(&why);
            // As for a table that is of no use.
            (Some(opened.table), InTable::Unfinished)
        }
    }
}

fn damaged(why: &FeedError) {
    metrics::counter!("cinnabar_feed_damaged_total", "what" => "table").increment(1);
    tracing::error!(
        error = why as &dyn std::error::Error,
        "the table is damaged: it is set aside, and filled anew from snapshot file and log"
    );
}

struct OpenedLog {
    log: LogWriter,
    reader: LogReader,
    /// False when a damaged log was set aside.
    whole: bool,
}

fn open_log(options: &CoreOptions, disk: &Arc<dyn Disk>) -> Result<OpenedLog, FeedError> {
    let failed = |source| FeedError::Log { operation: "was opened", source: Box::new(source) };
    let open = || {
        let mut log = LogOptions::new(log_folder(&options.folder));
        // It is read by a start only, which finds nothing in memory anyway.
        (log.name, log.segment_bytes, log.cache_bytes_max) = ("feed", options.segment_bytes, 0);
        LogWriter::open(disk.clone(), log, options.drive)
    };
    match open() {
        Ok((log, reader)) => Ok(OpenedLog { log, reader, whole: true }),
        Err(error @ LogError::Damaged { .. }) => {
            metrics::counter!("cinnabar_feed_damaged_total", "what" => "log").increment(1);
            tracing::error!(error = &error as &dyn std::error::Error, "the edge log is damaged: it is set aside");
            set_aside(disk, &options.folder)?;
            let (log, reader) = open().map_err(failed)?;
            Ok(OpenedLog { log, reader, whole: false })
        }
        Err(error) => Err(failed(error)),
    }
}

fn log_folder(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Moves the log's folder to the next free name; of what was moved before, only the newest stay.
fn set_aside(disk: &Arc<dyn Disk>, folder: &Path) -> Result<(), FeedError> {
    let failed = |source| FeedError::Disk { operation: "setting a damaged log aside", source };
    let number = |name: &String| name.strip_prefix("log.damaged-").and_then(|number| number.parse::<u64>().ok());
    let mut numbers: Vec<u64> = disk.list(folder).map_err(failed)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    let name = |number: u64| folder.join(format!("log.damaged-{number}"));
    let next = numbers.last().map_or(1, |last| last + 1);
    disk.rename(&log_folder(folder), &name(next)).map_err(failed)?;
    for old in numbers.iter().rev().skip(ASIDE_KEPT - 1) {
        // The folder itself stays, empty: it costs nothing, and folders cannot be removed here.
        for file in disk.list(&name(*old)).map_err(failed)? {
            disk.remove_file(&name(*old).join(file)).map_err(failed)?;
        }
    }
    disk.sync_dir(folder).map_err(failed)
}
