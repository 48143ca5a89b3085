//! What known principals read, and what the door refused them: no command speaks of it, so this node counts such calls together and has
//! the audit log keep them, in notes.
//!
//! A call costs an entry in a bounded table in memory. Once a second while something was refused, and once a minute while there was
//! nothing but reads, the table becomes a note ([`CallNotes`]) in the chain of this node's own: it is first appended to the spool, a log in the
//! node's data folder, then proposed as one command ([`CommandBody::NoteCalls`]), then dropped from the spool.
//!
//! **Invariants**
//! 1. Whoever is not known costs nothing here: no row, no note, no entry of the Raft log.
//! 2. One command a second at the most, however many calls there were.
//! 3. The table, the spool and a note are bounded. What there is no room for is counted, and the next note says how much it was.
//! 4. A note that was taken twice, since its answer was lost, is known by its request id.
//!
//! **Failure**: a spool that cannot be written ends the keeping of notes, loudly, and not the node: mutations do not depend on it.
//!
//! **Left out**: what came within the last minute before a crash.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use seams::{
    Disk,
    mutation::{self, Mutation},
};
use state::{
    CallNotes, CallRow, Command, CommandBody, CommandKind, GrantScope, NOTE_ROWS_MAX, NOTE_TEXT_BYTES_MAX, NotedPrincipal, Principal,
    RefusalKind, RequestKey,
};
use store::{Drive, LogError, LogOptions, LogReader, LogWriter, completion};
use tokio::sync::Notify;
use types::{AccountId, Hash, RequestId, StoreId, UnixMillis};
use wire::{ErrorKind, PublicError};

use crate::{
    call::{Call, Credential},
    core::Core,
};

/// The folder of the spool, in the data folder.
const FOLDER: &str = "notes";
/// Notes that wait; with more, the oldest goes. A few hundred bytes each, and 128 KiB at the very most.
const SPOOL_MAX: u64 = 512;
/// Segments of the spool: small, so that what was dropped frees its space.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Between two notes while something was refused, and between two commands.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Between two notes of reads alone, in notes that could be: a minute.
const READS_WAIT: u32 = 60;
/// Calls by which programs wait or watch, again and again, and that say nothing of what an account holds.
const NOT_NOTED: [&str; 4] = ["status.show", "receipts.wait_live", "levels.show", "status.who_am_i"];

/// What a call turned out to be about, as far as it was found out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Traced>>);

#[derive(Debug, Default)]
struct Traced {
    reach: Option<GrantScope>,
    /// Whether a command was made, which has an entry of its own.
    commanded: bool,
}

impl Trace {
    /// The call is about this, or about something in it.
    pub(crate) fn about(&self, reach: GrantScope) {
        let mut traced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        traced.reach = Some(reach);
    }

    /// A command was made of it.
    pub(crate) fn commanded(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).commanded = true;
    }
}

/// What makes calls alike.
type Alike = (NotedPrincipal, &'static str, Option<AccountId>, Option<StoreId>, Option<RefusalKind>);

struct Count {
    count: u64,
    times: (UnixMillis, UnixMillis),
    peer: String,
    request: String,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<Alike, Count>,
    left_out: u64,
    refused: bool,
}

/// Calls that wait to be noted.
#[derive(Default)]
pub(crate) struct Notes {
    table: Mutex<Table>,
    some: Notify,
}

/// Which refusals are noted: of what somebody may not, or may not know of.
const fn noted_refusal(kind: ErrorKind) -> Option<RefusalKind> {
    match kind {
        ErrorKind::Denied => Some(RefusalKind::Denied),
        ErrorKind::NotFound => Some(RefusalKind::NotFound),
        ErrorKind::Unauthenticated => Some(RefusalKind::Unauthenticated),
        _ => None,
    }
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(NOTE_TEXT_BYTES_MAX)].to_owned()
}

/// Who calls, if it is somebody: also the holder of a token that has expired, and nobody whose token is unknown.
fn principal(core: &Core, call: &Call) -> Option<NotedPrincipal> {
    match &call.credential {
        Credential::Token(hash) => {
            let record = core.consensus.local().operator_by_token(*hash).ok().flatten()?;
            Some(NotedPrincipal::Operator { token: record.token_id, name: record.name })
        }
        Credential::Node { node, public_key } => {
            let record = core.consensus.local().node(*node).ok().flatten()?;
            (record.public_key == *public_key).then_some(NotedPrincipal::Node { node: *node })
        }
        Credential::None | Credential::Malformed | Credential::Expired => None,
    }
}

impl Notes {
    /// Notes what came of a read.
    pub(crate) fn read<R>(core: &Core, call: &Call, operation: &'static str, result: &Result<R, PublicError>) {
        match result {
            Ok(_) if NOT_NOTED.contains(&operation) => {}
            Ok(_) => core.audit.notes.add(core, call, operation, None),
            Err(error) => Self::refused(core, call, operation, error),
        }
    }

    /// Notes a refusal, unless a command was made that has an entry of its own.
    pub(crate) fn refused(core: &Core, call: &Call, operation: &'static str, error: &PublicError) {
        if let Some(kind) = noted_refusal(error.kind)
            && !mutation::is_on(Mutation::RefusalUnnoted)
        {
            core.audit.notes.add(core, call, operation, Some(kind));
        }
    }

    fn add(&self, core: &Core, call: &Call, operation: &'static str, refused: Option<RefusalKind>) {
        let (reach, commanded) = {
            let traced = call.trace.0.lock().unwrap_or_else(PoisonError::into_inner);
            (traced.reach, traced.commanded)
        };
        if commanded || call.handed_over {
            return;
        }
        let Some(principal) = principal(core, call) else { return };
        let (account, store) = match reach {
            None | Some(GrantScope::Cluster) => (None, None),
            Some(GrantScope::Account(account)) => (Some(account), None),
            Some(GrantScope::Store(account, store)) => (Some(account), Some(store)),
        };
        let now = core.clock.wall();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.refused |= refused.is_some();
        let alike = (principal, operation, account, store, refused);
        let full = table.rows.len() >= NOTE_ROWS_MAX;
        match table.rows.get_mut(&alike) {
            Some(row) => {
                row.count += 1;
                row.times.1 = now;
                (row.peer, row.request) = (short(&call.origin.peer), short(&call.origin.request));
            }
            None if full => table.left_out += 1,
            None => {
                let count = Count { count: 1, times: (now, now), peer: short(&call.origin.peer), request: short(&call.origin.request) };
                table.rows.insert(alike, count);
            }
        }
        drop(table);
        self.some.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).rows.is_empty()
    }

    /// Takes the table, when it is time: at once when something was refused, or when `reads`.
    fn take(&self, reads: bool) -> Option<(Vec<CallRow>, u64)> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.rows.is_empty() || !(reads || table.refused) {
            return None;
        }
        let Table { rows, left_out, .. } = std::mem::take(&mut *table);
        let row = |((principal, call, account, store, refused), count): (Alike, Count)| CallRow {
            principal,
            call: call.to_owned(),
            account,
            store,
            refused,
            count: count.count,
            times: count.times,
            peer: count.peer,
            request: count.request,
        };
        Some((rows.into_iter().map(row).collect(), left_out))
    }
}

/// Notes on this node's disk that the audit log has not taken yet. Note `n` stands at index `n - 1`.
pub(crate) struct Spool {
    writer: LogWriter,
    reader: LogReader,
    /// The hash of the newest note.
    newest: Hash,
    /// Calls of notes for which there was no room.
    dropped: u64,
}

impl Spool {
    /// Opens the spool in the node's data folder, or creates it. Blocks.
    ///
    /// # Errors
    /// [`LogError`]: the disk, or damage.
    pub(crate) fn open(disk: Arc<dyn Disk>, data: &Path) -> Result<Self, LogError> {
        let options = LogOptions { name: "notes", segment_bytes: SEGMENT_BYTES, cache_bytes_max: 0, ..LogOptions::new(data.join(FOLDER)) };
        let (writer, reader) = LogWriter::open(disk, options, Drive::Thread)?;
        let (held, note) = reader.bounds();
        let last = held.end.checked_sub(1).filter(|last| held.contains(last));
        let stored = last.map(|last| reader.read(last..last + 1, 1)).transpose().map_err(LogError::Stopped)?;
        let newest = match stored.and_then(|mut stored| stored.pop()) {
            Some((_, stored)) => CallNotes::hash_of(&stored),
            // All were taken: the mark of that names the last.
            None => note.as_ref().try_into().map_or(Hash::ZERO, Hash::from_bytes),
        };
        Ok(Self { writer, reader, newest, dropped: 0 })
    }

    /// Adds a note, durably; drops the oldest where there is no room.
    async fn add(&mut self, rows: Vec<CallRow>, left_out: u64) -> Result<(), Arc<LogError>> {
        let (held, _) = self.reader.bounds();
        if held.end - held.start >= SPOOL_MAX
            && let Some((_, oldest)) = self.oldest()?
        {
            let lost = CallNotes::decode(&oldest).map_or(0, |notes| notes.rows.iter().map(|row| row.count).sum::<u64>() + notes.left_out);
            self.dropped += lost;
            metrics::counter!("cinnabar_audit_notes_dropped_total").increment(1);
            self.drop_before(held.start + 1, CallNotes::hash_of(&oldest)).await?;
        }
        let left_out = left_out + std::mem::take(&mut self.dropped);
        let stored = CallNotes { number: held.end + 1, previous: self.newest, rows, left_out }.encode();
        self.newest = CallNotes::hash_of(&stored);
        let (done, durable) = completion();
        self.writer.append(held.end, vec![stored], done).await?;
        durable.await
    }

    fn oldest(&self) -> Result<Option<(u64, Bytes)>, Arc<LogError>> {
        let (held, _) = self.reader.bounds();
        Ok(self.reader.read(held.start..held.end.min(held.start + 1), 1)?.pop())
    }

    async fn drop_before(&self, index: u64, hash: Hash) -> Result<(), Arc<LogError>> {
        let (done, durable) = completion();
        self.writer.purge_before(index, Bytes::copy_from_slice(hash.as_bytes()), done).await?;
        durable.await
    }
}

/// Keeps notes until the node stops.
pub(crate) async fn keep(core: Arc<Core>, mut spool: Spool) {
    let cancelled = core.tasks.token().clone();
    let mut since_note = 0;
    while !cancelled.is_cancelled() {
        if core.audit.notes.is_empty() && matches!(spool.oldest(), Ok(None)) {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                () = core.audit.notes.some.notified() => {}
            }
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => break,
            () = core.clock.sleep(NOTE_EVERY) => since_note += 1,
        }
        let turn = async {
            if let Some((rows, left_out)) = core.audit.notes.take(since_note >= READS_WAIT) {
                since_note = 0;
                spool.add(rows, left_out).await?;
            }
            hand_in(&core, &spool).await
        };
        if let Err(error) = turn.await {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "the spool of the audit log has failed: reads and refusals at the door are not noted until the node is started again"
            );
            return;
        }
    }
    // What was counted is kept for the next start.
    if let Some((rows, left_out)) = core.audit.notes.take(true)
        && let Err(error) = spool.add(rows, left_out).await
    {
        tracing::error!(error = &*error as &dyn std::error::Error, "the last calls before the end were not noted");
    }
}

/// Has the audit log take the oldest note; it stays where that cannot be now.
async fn hand_in(core: &Core, spool: &Spool) -> Result<(), Arc<LogError>> {
    let Some((index, stored)) = spool.oldest()? else { return Ok(()) };
    let level = core.consensus.local().feature_level().ok().filter(|level| *level >= CommandKind::NoteCalls.level());
    let Some(level) = level else { return Ok(()) };
    let hash = CallNotes::hash_of(&stored);
    let Ok(notes) = CallNotes::decode(&stored) else {
        tracing::error!(index, "a note in the spool of the audit log cannot be read, and is left out");
        return spool.drop_before(index + 1, hash).await;
    };
    let (id, _) = hash.as_bytes().split_first_chunk::<16>().map_or(([0; 16], &[][..]), |(id, rest)| (*id, rest));
    let command = Command {
        level,
        principal: Principal::Node { node: core.node },
        stamp: core.clock.wall(),
        request: Some(RequestKey { id: RequestId::from_bytes(id), fingerprint: *hash.as_bytes() }),
        origin: crate::bootstrap::own_call(core).origin,
        body: CommandBody::NoteCalls(Box::new(notes)),
    };
    match core.consensus.propose_within(command, core.request_timeout).await.map_err(crate::error::not_proposed) {
        Ok(_) => {
            metrics::counter!("cinnabar_audit_notes_total").increment(1);
            spool.drop_before(index + 1, hash).await
        }
        Err(error) if matches!(error.kind, ErrorKind::InvalidArgument | ErrorKind::TooLarge) => {
            tracing::error!(reason = error.message, "a note was refused, and is left out");
            spool.drop_before(index + 1, hash).await
        }
        Err(error) => {
            tracing::debug!(reason = error.message, "a note was not handed in; it is tried again");
            Ok(())
        }
    }
}
