//! The audit log on disk: a row of parts, each a segment log in a folder of its own, of which only the newest is open.
//!
//! A part is called `from-SEQUENCE-TIME`: the sequence of its first entry, 20 digits, which stands at index 0 of its log, and the log
//! time when it was begun, 16 hex digits, which no entry of a part before it exceeds. So names alone tell what to cut. A part that is
//! full or old is closed and another begun; so is one whose next sequence is not the one that comes, which is a gap.
//!
//! `cut` is a text of lines `name value` (format, sequence, hash, index, time, node, signature, end): the last entry that was removed,
//! and who says so; the two lines before the end are missing where nobody signs. It is replaced
//! whole, and durable, before the part goes; what is left of a part that was being removed goes at the next start.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::FutureExt;
use seams::{Disk, OpenMode};
use state::AuditEntry;
use store::{Drive, LogError, LogOptions, LogReader, LogWriter, completion};
use types::{Hash, LogIndex, NodeId, UnixMillis};

use super::{AuditCut, AuditOptions, CutSignature, CutSigner};

/// How many parts the bounds are made of: what is cut at a time.
const PARTS: u32 = 16;
/// The smallest and the largest part: a file of a few hundred entries; what a start reads, a tenth of a second.
const PART_BYTES: (u64, u64) = (32 << 10, 16 << 20);
/// Bytes of entries that go into one append.
const APPEND_BYTES_MAX: usize = 4 << 20;
/// The name of the record at the cut, and of the next one in the making.
const CUT: &str = "cut";
const CUT_NEW: &str = "cut.new";

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let file = path.to_owned();
    move |source| LogError::Io { operation, file, source }
}

/// A part that is closed.
#[derive(Clone, Debug)]
struct Closed {
    name: String,
    from: u64,
    /// Log time when the part after it was begun: none of its entries is younger.
    end: UnixMillis,
    bytes: u64,
}

/// The part that is written.
struct Open {
    name: String,
    from: u64,
    begun: UnixMillis,
    /// Log time of its last entry.
    last: UnixMillis,
    writer: LogWriter,
    reader: LogReader,
    /// Bytes of its entries, as a segment log stores them, about.
    bytes: u64,
}

impl Open {
    fn next(&self) -> u64 {
        self.from + self.reader.next_index()
    }

    /// Writes and syncs. With nobody else at the queue there is room in it, and the call itself does the disk's work.
    fn append(&self, sequence: u64, records: Vec<Bytes>) -> Result<(), LogError> {
        let (done, durable) = completion();
        let at_once = |done: Option<Result<(), Arc<LogError>>>| done.unwrap_or_else(|| Err(Arc::new(LogError::Closed))).map_err(unshared);
        at_once(self.writer.append(sequence - self.from, records, done).now_or_never())?;
        at_once(durable.now_or_never())
    }
}

pub(super) struct Parts {
    disk: Arc<dyn Disk>,
    options: AuditOptions,
    signer: Option<Arc<dyn CutSigner>>,
    closed: VecDeque<Closed>,
    open: Option<Open>,
    cut: Option<AuditCut>,
    /// The sequence after the last that is stored; 0 when nothing ever was.
    next: u64,
    /// Readers of closed parts, by where these begin, the one used last at the end: to open one is to read all of it.
    lent: VecDeque<(u64, LogReader)>,
}

/// A part that is read, be it removed meanwhile.
pub(super) struct Lent {
    /// The sequence of its first entry.
    pub(super) from: u64,
    /// No entry of it has this sequence or a later one.
    pub(super) end: u64,
    pub(super) reader: LogReader,
}

/// Readers of closed parts that are kept: some 2 MiB each.
const LENT_MAX: usize = 4;

/// What a segment log adds to each entry.
const RECORD_OVERHEAD: u64 = 17;

fn part_bytes(options: &AuditOptions) -> u64 {
    (options.bytes_max / u64::from(PARTS)).clamp(PART_BYTES.0, PART_BYTES.1)
}

/// A part in segments of an eighth, so that what is preallocated ahead is little; and no cache, for nobody reads it while it is written.
fn log_options(options: &AuditOptions, folder: PathBuf) -> LogOptions {
    let segment_bytes = (part_bytes(options) / 8).max(4 << 10);
    LogOptions { name: "audit", segment_bytes, cache_bytes_max: 0, queue_bytes_max: 4 * APPEND_BYTES_MAX, ..LogOptions::new(folder) }
}

fn name_of(from: u64, begun: UnixMillis) -> String {
    format!("from-{from:020}-{:016x}", begun.get())
}

fn parse_name(name: &str) -> Option<(u64, UnixMillis)> {
    let (from, begun) = name.strip_prefix("from-")?.split_once('-')?;
    Some((from.parse().ok()?, UnixMillis::new(u64::from_str_radix(begun, 16).ok()?)))
}

impl Parts {
    pub(super) fn open(disk: Arc<dyn Disk>, options: AuditOptions, signer: Option<Arc<dyn CutSigner>>) -> Result<Self, LogError> {
        let folder = options.folder.clone();
        disk.create_dir_all(&folder).map_err(failed("create", &folder))?;
        let names = disk.list(&folder).map_err(failed("list", &folder))?;
        let cut = match names.iter().any(|name| name == CUT) {
            true => {
                // A process may have died before it synced the record's name, and parts go for it below.
                disk.sync_dir(&folder).map_err(failed("sync", &folder))?;
                Some(read_cut(&*disk, &folder.join(CUT))?)
            }
            false => None,
        };
        let mut parts = Self {
            disk,
            options,
            signer,
            closed: VecDeque::new(),
            open: None,
            cut,
            next: cut.map_or(0, |cut| cut.sequence + 1),
            lent: VecDeque::new(),
        };
        let mut found: VecDeque<(String, u64, UnixMillis)> =
            names.into_iter().filter_map(|name| parse_name(&name).map(|(from, begun)| (name, from, begun))).collect();
        while let Some((name, ..)) = found.pop_front_if(|(_, from, _)| cut.is_some_and(|cut| *from <= cut.sequence)) {
            parts.remove(&name)?;
        }
        while let Some((name, from, begun)) = found.pop_front() {
            match found.front() {
                Some((_, _, end)) => {
                    let bytes = parts.bytes_of(&name)?;
                    parts.closed.push_back(Closed { name, from, end: *end, bytes });
                }
                None => parts.open = Some(parts.open_part(name, from, begun)?),
            }
        }
        parts.next = parts.open.as_ref().map_or(parts.next, Open::next);
        parts.report();
        Ok(parts)
    }

    fn open_part(&self, name: String, from: u64, begun: UnixMillis) -> Result<Open, LogError> {
        let options = log_options(&self.options, self.options.folder.join(&name));
        let (writer, reader) = LogWriter::open(self.disk.clone(), options, Drive::Inline)?;
        if let Some(cut) = writer.cut() {
            tracing::warn!(file = %cut.file.display(), bytes = cut.bytes, "cut a torn write off the end of the audit log; replay makes its entries again");
        }
        let bytes = self.bytes_of(&name)?;
        let newest = reader.next_index().checked_sub(1).map(|at| reader.read(at..at + 1, 1)).transpose().map_err(unshared)?;
        let newest = newest.unwrap_or_default().pop().map(|(_, stored)| self.decode(&name, &stored)).transpose()?;
        let last = newest.map_or(begun, |entry| entry.time);
        Ok(Open { name, from, begun, last, writer, reader, bytes })
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) const fn cut(&self) -> Option<AuditCut> {
        self.cut
    }

    pub(super) fn bytes(&self) -> u64 {
        self.closed.iter().map(|part| part.bytes).sum::<u64>() + self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// Log time when something becomes too old: the oldest closed part, or the open one, which is closed then.
    pub(super) fn too_old_at(&self) -> Option<UnixMillis> {
        let oldest = self.closed.front().map(|part| part.end).or(self.open.as_ref().map(|open| open.last));
        Some(oldest?.plus(self.options.age_max?))
    }

    /// Stores entries durably, each run without gaps in one write, in the part that it belongs to.
    pub(super) fn store(&mut self, mut entries: VecDeque<AuditEntry>) -> Result<(), LogError> {
        while let Some(first) = entries.front() {
            let (sequence, time) = (first.sequence, first.time);
            let (mut records, mut bytes) = (Vec::new(), 0);
            let (mut expected, mut last) = (sequence, time);
            while bytes < APPEND_BYTES_MAX
                && let Some(entry) = entries.pop_front_if(|entry| entry.sequence == expected)
            {
                let record = entry.encode();
                bytes += record.len() + RECORD_OVERHEAD as usize;
                records.push(record);
                (expected, last) = (expected + 1, entry.time);
            }
            self.append(sequence, time, records, bytes as u64)?;
            if let Some(open) = &mut self.open {
                open.last = last;
            }
        }
        Ok(())
    }

    fn append(&mut self, sequence: u64, time: UnixMillis, records: Vec<Bytes>, bytes: u64) -> Result<(), LogError> {
        let (full, options) = (part_bytes(&self.options), &self.options);
        let fits = |open: &Open| open.next() == sequence && open.bytes < full && !options.is_old(open.begun, time);
        if !self.open.as_ref().is_some_and(fits) {
            self.close_part(time)?;
            self.open = Some(self.open_part(name_of(sequence, time), sequence, time)?);
        }
        if let Some(open) = &mut self.open {
            self.next = sequence + records.len() as u64;
            open.append(sequence, records)?;
            open.bytes += bytes.next_multiple_of(512);
        }
        Ok(())
    }

    /// Closes the part that is written, if there is one: `end` is the time of what comes after it.
    fn close_part(&mut self, end: UnixMillis) -> Result<(), LogError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        open.writer.close().map_err(unshared)?;
        let folder = self.options.folder.join(&open.name);
        for name in self.disk.list(&folder).map_err(failed("list", &folder))? {
            if name.ends_with(".new") {
                let spare = folder.join(name);
                self.disk.remove_file(&spare).map_err(failed("remove", &spare))?;
            }
        }
        let bytes = self.bytes_of(&open.name)?;
        self.closed.push_back(Closed { name: open.name, from: open.from, end, bytes });
        Ok(())
    }

    /// Removes the oldest parts until size and age are within bounds. The part that is written stays.
    pub(super) fn keep_bounds(&mut self, now: UnixMillis) -> Result<(), LogError> {
        let age_max = self.options.age_max;
        let idle = self.open.as_ref().map(|open| open.last).filter(|last| age_max.is_some_and(|age| last.plus(age) <= now));
        if let Some(last) = idle {
            // Nothing has come for long, so nothing has closed it.
            self.close_part(last)?;
        }
        let over = |parts: &Self, oldest: &Closed| {
            parts.bytes() > parts.options.bytes_max || age_max.is_some_and(|age| oldest.end.plus(age) <= now)
        };
        while let Some(oldest) = self.closed.front().cloned().filter(|oldest| over(self, oldest)) {
            let cut = self.last_of(&oldest);
            let cut = self.signer.as_deref().map_or(cut, |signer| cut.signed(signer));
            write_cut(&*self.disk, &self.options.folder, &cut)?;
            self.cut = Some(cut);
            self.closed.pop_front();
            self.lent.retain(|(from, _)| *from != oldest.from);
            self.remove(&oldest.name)?;
            metrics::counter!("cinnabar_audit_parts_cut_total").increment(1);
            tracing::info!(sequence = cut.sequence, hash = %cut.hash, bytes = oldest.bytes, "cut the oldest part of the audit log");
        }
        self.report();
        Ok(())
    }

    fn report(&self) {
        metrics::gauge!("cinnabar_audit_bytes").set(self.bytes() as f64);
    }

    /// The last entry of a part that goes.
    fn last_of(&self, part: &Closed) -> AuditCut {
        match self.read_last(part) {
            Ok(Some(entry)) => entry,
            found => {
                let cause = found.err().map_or_else(|| "it holds no entry".to_owned(), |error| crate::error::chain(&error));
                tracing::error!(
                    part = part.name,
                    cause,
                    "a part of the audit log is damaged, and is cut for its age or size without a proof of its end"
                );
                // The entries after it, or the head in the state, still name the hash of the last one.
                let next = self.closed.get(1).map(|next| next.from).or(self.open.as_ref().map(|open| open.from)).unwrap_or(self.next);
                AuditCut { sequence: next - 1, hash: Hash::ZERO, index: LogIndex::default(), time: part.end, signature: None }
            }
        }
    }

    fn read_last(&self, part: &Closed) -> Result<Option<AuditCut>, LogError> {
        let reader = self.reader_of(part)?;
        let next = reader.next_index();
        let last = reader.read(next.saturating_sub(1)..next, 1).map_err(unshared)?.pop();
        let Some((at, stored)) = last else { return Ok(None) };
        let entry = self.decode(&part.name, &stored)?;
        let (hash, index, time) = (AuditEntry::hash_of(&stored), entry.index, entry.time);
        Ok(Some(AuditCut { sequence: part.from + at, hash, index, time, signature: None }))
    }

    pub(super) fn decode(&self, part: &str, stored: &[u8]) -> Result<AuditEntry, LogError> {
        AuditEntry::decode(stored).map_err(|error| LogError::Damaged {
            file: self.options.folder.join(part),
            offset: 0,
            detail: error.to_string(),
        })
    }

    fn reader_of(&self, part: &Closed) -> Result<LogReader, LogError> {
        let options = log_options(&self.options, self.options.folder.join(&part.name));
        LogWriter::open(self.disk.clone(), options, Drive::Inline).map(|(_, reader)| reader)
    }

    /// The sequence of the first entry that is stored; that of the next one if there is none.
    pub(super) fn first(&self) -> u64 {
        self.closed.front().map(|part| part.from).or(self.open.as_ref().map(|open| open.from)).unwrap_or(self.next)
    }

    /// The first part with an entry of this sequence or a later one.
    pub(super) fn holding(&mut self, sequence: u64) -> Result<Option<Lent>, LogError> {
        let open = self.open.as_ref().map(|open| open.from).unwrap_or(self.next);
        let ends: Vec<u64> = self.closed.iter().skip(1).map(|part| part.from).chain([open]).take(self.closed.len()).collect();
        match ends.iter().position(|end| *end > sequence) {
            Some(place) => self.lend(place, ends[place]),
            None => Ok(self.lend_open().filter(|lent| lent.end > sequence)),
        }
    }

    /// The last part that begins before this sequence.
    pub(super) fn before(&mut self, sequence: u64) -> Result<Option<Lent>, LogError> {
        if self.open.as_ref().is_some_and(|open| open.from < sequence) {
            return Ok(self.lend_open());
        }
        match self.closed.iter().rposition(|part| part.from < sequence) {
            Some(place) => self.lend(place, u64::MAX),
            None => Ok(None),
        }
    }

    /// The last part that was begun before `time`.
    pub(super) fn begun_before(&mut self, time: UnixMillis) -> Result<Option<Lent>, LogError> {
        if self.open.as_ref().is_some_and(|open| open.begun < time) {
            return Ok(self.lend_open());
        }
        let begun = |part: &Closed| parse_name(&part.name).is_some_and(|(_, begun)| begun < time);
        match self.closed.iter().rposition(begun) {
            Some(place) => self.lend(place, u64::MAX),
            None => Ok(None),
        }
    }

    fn lend_open(&self) -> Option<Lent> {
        self.open.as_ref().map(|open| Lent { from: open.from, end: open.next(), reader: open.reader.clone() })
    }

    fn lend(&mut self, place: usize, end: u64) -> Result<Option<Lent>, LogError> {
        let Some(part) = self.closed.get(place) else { return Ok(None) };
        let from = part.from;
        let reader = match self.lent.iter().position(|(lent, _)| *lent == from).and_then(|at| self.lent.remove(at)) {
            Some((_, reader)) => reader,
            None => self.reader_of(part)?,
        };
        self.lent.push_back((from, reader.clone()));
        if self.lent.len() > LENT_MAX {
            self.lent.pop_front();
        }
        Ok(Some(Lent { from, end, reader }))
    }

    fn bytes_of(&self, name: &str) -> Result<u64, LogError> {
        let folder = self.options.folder.join(name);
        let names = self.disk.list(&folder).map_err(failed("list", &folder))?;
        let len = |name: String| {
            let file = folder.join(name);
            self.disk.open(&file, OpenMode::Read).and_then(|opened| opened.len()).map_err(failed("measure", &file))
        };
        names.into_iter().map(len).sum()
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        let folder = self.options.folder.join(name);
        for file in self.disk.list(&folder).map_err(failed("list", &folder))? {
            let file = folder.join(file);
            self.disk.remove_file(&file).map_err(failed("remove", &file))?;
        }
        self.disk.remove_dir(&folder).map_err(failed("remove", &folder))?;
        self.disk.sync_dir(&self.options.folder).map_err(failed("sync", &self.options.folder))
    }

    pub(super) fn close(&mut self) -> Result<(), Arc<LogError>> {
        self.open.as_ref().map_or(Ok(()), |open| open.writer.close())
    }
}

impl AuditOptions {
    /// Whether a part that was begun then holds as long a time as one part should.
    fn is_old(&self, begun: UnixMillis, now: UnixMillis) -> bool {
        self.age_max.is_some_and(|age| now.since(begun) >= age / PARTS)
    }
}

/// The error itself, or what it says: the log keeps a copy of what stopped it.
fn unshared(error: Arc<LogError>) -> LogError {
    Arc::try_unwrap(error).unwrap_or_else(LogError::Stopped)
}

fn read_cut(disk: &dyn Disk, path: &Path) -> Result<AuditCut, LogError> {
    const BYTES_MAX: u64 = 4096;
    let file = disk.open(path, OpenMode::Read).map_err(failed("open", path))?;
    let length = file.len().map_err(failed("measure", path))?.min(BYTES_MAX);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed("read", path))?;
    let text = String::from_utf8_lossy(&bytes);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let number = |name: &str| field(name).and_then(|text| text.parse().ok());
    let whole = || {
        (number("format")? == 1_u64 && text.ends_with("end\n")).then_some(())?;
        Some(AuditCut {
            sequence: number("sequence")?,
            hash: field("hash")?.parse().ok()?,
            index: LogIndex::new(number("index")?),
            time: UnixMillis::new(number("time")?),
            signature: match field("signature") {
                None => None,
                Some(text) => Some(CutSignature { node: NodeId::new(number("node")?), signature: bytes_of(text)? }),
            },
        })
    };
    whole().ok_or_else(|| LogError::Damaged {
        file: path.to_owned(),
        offset: 0,
        detail: "it is no record of a cut that this build reads".into(),
    })
}

/// 64 bytes in hex.
fn bytes_of(text: &str) -> Option<[u8; 64]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes?.try_into().ok()
}

fn write_cut(disk: &dyn Disk, folder: &Path, cut: &AuditCut) -> Result<(), LogError> {
    let (path, new) = (folder.join(CUT), folder.join(CUT_NEW));
    let AuditCut { sequence, hash, index, time, signature } = cut;
    let signed = signature.map_or_else(String::new, |CutSignature { node, signature }| {
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("node {node}\nsignature {hex}\n")
    });
    let text = format!("format 1\nsequence {sequence}\nhash {hash}\nindex {index}\ntime {}\n{signed}end\n", time.get());
    match disk.remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &new)(error)),
        _ => {}
    }
    let file = disk.open(&new, OpenMode::CreateNew).map_err(failed("create", &new))?;
    file.write_all_at(text.as_bytes(), 0).and_then(|()| file.sync_data()).map_err(failed("write", &new))?;
    disk.rename(&new, &path).map_err(failed("rename", &new))?;
    disk.sync_dir(folder).map_err(failed("sync", folder))
}
