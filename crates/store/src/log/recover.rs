//! Opening a log: replays its blocks, tells a torn end from damage, cuts the one and refuses the other.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use seams::{
    Disk, OpenMode,
    mutation::{self, Mutation},
};

use super::{
    LogError, LogOptions, Slot,
    format::{ALIGN, BLOCK_HEADER_BYTES, BlockHeader, Cursor, FORMAT, HeaderFault, Record, SEGMENT_HEADER_BYTES, SegmentHeader, block_len},
    marks::{Mark, Marks},
    segments::{Located, Segment, SegmentLog, Summary, segment_name},
};

/// What was cut off a log's end when it was opened: a write that a crash had interrupted before it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: PathBuf,
    /// Where the torn block began.
    pub offset: u64,
    /// How many bytes were overwritten with zeros.
    pub bytes: u64,
}

/// What a log held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The index of the first entry.
    pub first: u64,
    /// The index that the next entry gets.
    pub next: u64,
    /// Where the entries lie, from `first` on.
    pub entries: VecDeque<Located>,
    /// The note of the last purge; empty before the first.
    pub note: Bytes,
    /// The slots: vote, committed.
    pub slots: [Option<Bytes>; 2],
    /// What was cut.
    pub cut: Option<Cut>,
}

/// Opens or creates the log that `options` describe.
pub(super) fn open(disk: Arc<dyn Disk>, options: &LogOptions) -> Result<(SegmentLog, Recovered), LogError> {
    let folder = options.folder.as_path();
    let found = Found::list(&*disk, folder)?;
    if !found.marks && !found.segments.is_empty() {
        return Err(LogError::Damaged {
            file: folder.join("marks"),
            offset: 0,
            detail: "the file is missing, but there are segments".into(),
        });
    }
    if !found.marks
        && let Some(parent) = folder.parent()
    {
        disk.sync_dir(parent).map_err(LogError::io("sync", parent))?;
    }
    let (marks, mark) = Marks::open(&*disk, folder, found.marks)?;
    // A process may have died before it synced the name of a segment, on which the next one builds.
    disk.sync_dir(folder).map_err(LogError::io("sync", folder))?;
    let (leftover, numbers) = found.suffix();
    if mark.segment > numbers.last().copied().unwrap_or(0) {
        let file = folder.join(segment_name(mark.segment));
        return Err(LogError::Damaged { file, offset: 0, detail: "the file is missing, but the marks name it".into() });
    }
    let mut replay = Replay::new(&*disk, folder, mark);
    for (at, number) in numbers.iter().enumerate() {
        replay.segment(*number, at + 1 == numbers.len())?;
    }
    let mut recovered = replay.finish()?;
    let mut log = SegmentLog {
        disk: disk.clone(),
        folder: folder.to_owned(),
        name: options.name,
        segment_bytes: options.segment_bytes,
        segments: replay.segments,
        offset: replay.offset,
        chain: replay.chain,
        marks,
        summary: replay.summary,
        hint_pending: false,
        spare: None,
        spare_failed: 0,
        block: Default::default(),
        stopped: None,
    };
    log.adopt_hint(replay.mark, &mut recovered)?;
    for number in leftover {
        let path = folder.join(segment_name(number));
        disk.remove_file(&path).map_err(LogError::io("remove", &path))?;
    }
    // What was read may sit in the page cache alone. From here on all of it counts as durable.
    if let Some(active) = log.segments.back() {
        active.file.sync_data().map_err(LogError::io("sync", &active.path))?;
    }
    log.finish()?;
    log.unlink_purged()?;
    Ok((log, recovered))
}

impl SegmentLog {
    /// The committed hint may be newer in the marks than in the last block. The vote may not: it goes to the block first.
    fn adopt_hint(&mut self, mark: Mark, recovered: &mut Recovered) -> Result<(), LogError> {
        let [vote, hint] = mark.slots;
        if vote.sequence > self.summary.slots[Slot::Vote.number()].sequence {
            let (file, offset) = (self.folder.join(segment_name(mark.segment)), self.offset);
            return Err(LogError::Damaged { file, offset, detail: "the last vote is missing".into() });
        }
        let slot = &mut self.summary.slots[Slot::Committed.number()];
        if hint.sequence > slot.sequence {
            *slot = hint;
            self.hint_pending = true;
        }
        for (value, slot) in recovered.slots.iter_mut().zip(&self.summary.slots) {
            *value = (slot.sequence > 0).then(|| slot.bytes.clone());
        }
        Ok(())
    }
}

/// What lies in the folder.
struct Found {
    marks: bool,
    segments: Vec<u64>,
}

impl Found {
    /// Lists the folder; creates it if missing; removes files in the making.
    fn list(disk: &dyn Disk, folder: &Path) -> Result<Self, LogError> {
        disk.create_dir_all(folder).map_err(LogError::io("create", folder))?;
        let mut found = Self { marks: false, segments: Vec::new() };
        for name in disk.list(folder).map_err(LogError::io("list", folder))? {
            if name == "marks" {
                found.marks = true;
            } else if name.ends_with(".new") {
                let path = folder.join(&name);
                disk.remove_file(&path).map_err(LogError::io("remove", &path))?;
            } else if let Some(digits) = name.strip_suffix(".seg") {
                let number = u64::from_str_radix(digits, 16).ok().filter(|number| *number > 0 && segment_name(*number) == name);
                found.segments.push(number.ok_or_else(|| LogError::Damaged {
                    file: folder.join(&name),
                    offset: 0,
                    detail: "the file's name is not that of a segment".into(),
                })?);
            }
        }
        found.segments.sort_unstable();
        Ok(found)
    }

    /// Splits the numbers before the last gap from those after it. The former were purged, and a crash brought the name back.
    fn suffix(self) -> (Vec<u64>, Vec<u64>) {
        let start = self.segments.windows(2).rposition(|pair| pair[0] + 1 != pair[1]).map_or(0, |at| at + 1);
        let mut older = self.segments;
        let newer = older.split_off(start);
        (older, newer)
    }
}

/// The state of a replay.
struct Replay<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    mark: Mark,
    mark_seen: bool,
    /// Whether a carry has said what came before.
    begun: bool,
    segments: VecDeque<Segment>,
    offset: u64,
    chain: u32,
    summary: Summary,
    /// The index of the first entry of `entries`.
    start: u64,
    entries: VecDeque<Located>,
    cut: Option<Cut>,
}

impl<'a> Replay<'a> {
    fn new(disk: &'a dyn Disk, folder: &'a Path, mark: Mark) -> Self {
        Self {
            disk,
            folder,
            mark,
            mark_seen: false,
            begun: false,
            segments: VecDeque::new(),
            offset: 0,
            chain: 0,
            summary: Summary::default(),
            start: 0,
            entries: VecDeque::new(),
            cut: None,
        }
    }

    fn damaged(&self, offset: u64, detail: impl Into<String>) -> LogError {
        let file = self.segments.back().map_or_else(|| self.folder.to_owned(), |segment| segment.path.clone());
        LogError::Damaged { file, offset, detail: detail.into() }
    }

    fn segment(&mut self, number: u64, last: bool) -> Result<(), LogError> {
        let path = self.folder.join(segment_name(number));
        let file = self.disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?;
        let len = file.len().map_err(LogError::io("measure", &path))?;
        let previous = self.segments.back().map(|_| self.chain);
        self.segments.push_back(Segment { number, path: path.clone(), file: Arc::from(file), len, last: None });
        let Some(segment) = self.segments.back() else { return Ok(()) };
        let mut bytes = vec![0; len as usize];
        segment.file.read_exact_at(&mut bytes, 0).map_err(LogError::io("read", &path))?;
        let (header, chain) = match SegmentHeader::decode(bytes.get(..SEGMENT_HEADER_BYTES as usize).unwrap_or(&[])) {
            Ok(decoded) => decoded,
            Err(HeaderFault::Newer(found)) => return Err(LogError::Newer { file: path, found, known: FORMAT }),
            Err(HeaderFault::Damaged(detail)) => return Err(self.damaged(0, detail)),
        };
        if header.number != number || header.len != len {
            let detail = format!("the header is that of segment {} with {} bytes, the file has {len}", header.number, header.len);
            return Err(self.damaged(0, detail));
        }
        if previous.is_some_and(|chain| chain != header.chain) {
            return Err(self.damaged(0, "it does not continue the segment before, whose end is missing"));
        }
        self.offset = SEGMENT_HEADER_BYTES;
        self.chain = chain;
        self.blocks(&bytes, last)?;
        if self.mark.segment == number && !self.mark_seen {
            return Err(self.damaged(self.offset, format!("the log was durable up to offset {}, but ends here", self.mark.offset)));
        }
        if !last && !self.begun {
            return Err(self.damaged(self.offset, "the segment holds no block"));
        }
        Ok(())
    }

    /// Replays the blocks of one segment and settles what stands behind the last good one.
    fn blocks(&mut self, bytes: &[u8], last: bool) -> Result<(), LogError> {
        let number = self.segments.back().map_or(0, |segment| segment.number);
        loop {
            if number == self.mark.segment && self.offset == self.mark.offset {
                if self.chain != self.mark.chain {
                    return Err(self.damaged(self.offset, "the chain of checksums up to here is not the one that was marked as durable"));
                }
                self.mark_seen = true;
            }
            let rest = &bytes[self.offset as usize..];
            let header = BlockHeader::decode(rest, number, self.offset);
            let good = header.filter(|header| header.chain == self.chain).and_then(|header| {
                let block = rest.get(..block_len(u64::from(header.payload_len)) as usize)?;
                let whole = crc32c::crc32c(&block[BLOCK_HEADER_BYTES..]) == header.payload_crc;
                let ends = || block.get(BLOCK_HEADER_BYTES + header.payload_len as usize - 1).is_some_and(|byte| *byte != 0);
                (whole || mutation::is_on(Mutation::EndBelieved) && ends()).then_some((header, block.len()))
            });
            match good {
                Some((header, len)) => {
                    self.records(&rest[BLOCK_HEADER_BYTES..][..header.payload_len as usize], &header)?;
                    self.offset += len as u64;
                    self.chain = header.crc;
                }
                None if rest.iter().all(|byte| *byte == 0) => return Ok(()),
                None => return self.bad_block(rest, number, header, last),
            }
        }
    }

    /// Cuts a torn end, or says why it is damage instead. See the header of [`crate::log`].
    fn bad_block(&mut self, rest: &[u8], number: u64, header: Option<BlockHeader>, last: bool) -> Result<(), LogError> {
        if !last {
            return Err(self.damaged(self.offset, "a block fails its checksum, and a later segment shows that it was durable"));
        }
        if number == self.mark.segment && self.offset < self.mark.offset {
            return Err(self.damaged(self.offset, "a block fails its checksum, and the marks show that it was durable"));
        }
        let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
        match header {
            Some(header) if header.chain != self.chain => {
                return Err(self.damaged(self.offset, "a block does not continue the one before it"));
            }
            Some(header) if used > block_len(u64::from(header.payload_len)) => {
                return Err(self.damaged(self.offset, "a block fails its checksum, and what follows it shows that it was durable"));
            }
            Some(_) => {}
            None => {
                let later = (ALIGN..used).step_by(ALIGN as usize).find(|at| {
                    let bytes = rest.get(*at as usize..).unwrap_or(&[]);
                    BlockHeader::decode(bytes, number, self.offset + at).is_some()
                });
                if let Some(at) = later {
                    let detail =
                        format!("a block's header is unreadable, and a block at offset {} shows that it was durable", self.offset + at);
                    return Err(self.damaged(self.offset, detail));
                }
            }
        }
        let Some(segment) = self.segments.back() else { return Ok(()) };
        segment.file.write_all_at(&vec![0; used as usize], self.offset).map_err(LogError::io("clear the torn end of", &segment.path))?;
        segment.file.sync_data().map_err(LogError::io("sync", &segment.path))?;
        let cut = Cut { file: segment.path.clone(), offset: self.offset, bytes: used };
        tracing::warn!(file = %cut.file.display(), offset = cut.offset, bytes = cut.bytes, "cut a torn block off the log's end");
        self.cut = Some(cut);
        Ok(())
    }

    fn records(&mut self, payload: &[u8], header: &BlockHeader) -> Result<(), LogError> {
        let mut fields = Cursor::new(payload);
        for nth in 0..header.records {
            let record =
                Record::decode(&mut fields).ok_or_else(|| self.damaged(self.offset, format!("record {nth} of the block is malformed")))?;
            let first_of_segment = self.offset == SEGMENT_HEADER_BYTES && nth == 0;
            if matches!(record, Record::Carry { .. }) != first_of_segment {
                return Err(self.damaged(self.offset, "a segment must begin with a carry record, and have no other"));
            }
            self.record(record).map_err(|detail| self.damaged(self.offset, detail))?;
        }
        if fields.position() != payload.len() {
            return Err(self.damaged(self.offset, "the block is longer than its records"));
        }
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        let next = self.summary.next;
        match record {
            Record::Carry { next, first, note } if !self.begun => {
                self.begun = true;
                self.start = next;
                self.summary = Summary { first, next, note, slots: Default::default() };
            }
            Record::Carry { next: said, first, .. } if (said, first) != (next, self.summary.first) => {
                return Err(format!("the segment carries on at index {said}, the one before ended at {next}"));
            }
            Record::Carry { .. } => {}
            Record::Entry { index, at, len } => {
                if index != next {
                    return Err(format!("entry {index} where {next} should follow"));
                }
                let offset = (self.offset + BLOCK_HEADER_BYTES as u64 + at as u64) as u32;
                if let Some(segment) = self.segments.back_mut() {
                    self.entries.push_back(Located { segment: segment.number, offset, len });
                    segment.last = Some(index);
                }
                self.summary.next = index + 1;
            }
            Record::Truncate { from } => {
                if from > next {
                    return Err(format!("truncated from {from}, behind the end {next}"));
                }
                self.entries.truncate(from.saturating_sub(self.start) as usize);
                self.start = self.start.min(from);
                self.summary.next = from;
                self.segments.iter_mut().for_each(|segment| segment.truncate(from));
            }
            Record::Purge { before, note } => {
                let gone = (before.saturating_sub(self.start) as usize).min(self.entries.len());
                self.entries.drain(..gone);
                self.start = self.start.max(before);
                self.summary.first = before;
                self.summary.next = next.max(before);
                self.summary.note = note;
            }
            Record::Slot { slot, sequence, bytes } => {
                let value = &mut self.summary.slots[slot.number()];
                if sequence < value.sequence {
                    return Err(format!("slot {slot:?} goes back from write {} to {sequence}", value.sequence));
                }
                value.sequence = sequence;
                value.bytes = bytes;
            }
        }
        Ok(())
    }

    /// Checks that what is left is whole.
    fn finish(&mut self) -> Result<Recovered, LogError> {
        if !self.begun && self.segments.back().is_some_and(|segment| segment.number > 1) {
            return Err(self.damaged(self.offset, "the segments before it are missing"));
        }
        if self.start > self.summary.first {
            let detail = format!("entries {} to {} are missing: older segment files are gone", self.summary.first, self.start - 1);
            return Err(self.damaged(0, detail));
        }
        Ok(Recovered {
            first: self.summary.first,
            next: self.summary.next,
            entries: std::mem::take(&mut self.entries),
            note: self.summary.note.clone(),
            slots: Default::default(),
            cut: self.cut.take(),
        })
    }
}
