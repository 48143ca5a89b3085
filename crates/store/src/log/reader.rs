//! Reading a log.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    LogError, Slot,
    format::{Cursor, entry_crc},
    segments::Located,
    view::{Place, ReadFile},
    writer::Shared,
};

/// How much one read of the disk fetches at most, unless a single entry is larger.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The reading handle; clones share the log. It shows what was appended, durable or not.
#[derive(Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    /// The index of the first entry held; that of the next one if there is none.
    pub fn first_index(&self) -> u64 {
        self.shared.lock().view.first()
    }

    /// The index that the next entry gets; 0 in a new log.
    pub fn next_index(&self) -> u64 {
        self.shared.lock().view.next()
    }

    /// Entries below this index are durable.
    pub fn durable_index(&self) -> u64 {
        self.shared.lock().view.durable()
    }

    /// The note of the last purge; empty when none was made.
    pub fn purge_note(&self) -> Bytes {
        self.shared.lock().view.note()
    }

    /// First index, next index and purge note, of one moment.
    pub fn bounds(&self) -> (Range<u64>, Bytes) {
        let inner = self.shared.lock();
        (inner.view.first()..inner.view.next(), inner.view.note())
    }

    /// A slot's newest value.
    pub fn slot(&self, slot: Slot) -> Option<Bytes> {
        self.shared.lock().view.slot(slot)
    }

    /// The entries of `range` that the log holds, in order and without gaps, until `bytes_max` is reached; at least one if there
    /// is one. What was purged is missing at the front, what is not there yet at the end. Reads the disk for what is not cached:
    /// callers keep it off the async threads, or try [`LogReader::cached`] first.
    ///
    /// # Errors
    /// [`LogError::Stopped`] after a failure of the log; [`LogError::Damaged`] and [`LogError::Io`] of the disk.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, Arc<LogError>> {
        let (start, places) = self.places(range, bytes_max)?;
        fetch(start, places).map_err(Arc::new)
    }

    /// As [`LogReader::read`], but none when the disk would have to be read. Never blocks.
    ///
    /// # Errors
    /// [`LogError::Stopped`] after a failure of the log.
    pub fn cached(&self, range: Range<u64>, bytes_max: usize) -> Result<Option<Vec<(u64, Bytes)>>, Arc<LogError>> {
        let (start, places) = self.places(range, bytes_max)?;
        let memory = places.into_iter().map(|place| match place {
            Place::Memory(entry) => Some(entry),
            Place::Disk(..) => None,
        });
        Ok((start..).zip(memory).map(|(index, entry)| Some((index, entry?))).collect())
    }

    fn places(&self, range: Range<u64>, bytes_max: usize) -> Result<(u64, Vec<Place>), Arc<LogError>> {
        let inner = self.shared.lock();
        inner.running()?;
        Ok(inner.view.places(range, bytes_max))
    }
}

/// Brings entries together; those that lie close to each other in a file come in one read.
fn fetch(start: u64, places: Vec<Place>) -> Result<Vec<(u64, Bytes)>, LogError> {
    let mut entries = Vec::with_capacity(places.len());
    let mut run: Vec<(u64, Located)> = Vec::new();
    let mut run_file: Option<ReadFile> = None;
    for (index, place) in (start..).zip(places) {
        let joins = match (&place, run.first()) {
            (Place::Disk(_, located), Some((_, first))) => {
                located.segment == first.segment
                    && u64::from(located.offset) + u64::from(located.len) <= u64::from(first.offset) + READ_BYTES_MAX
            }
            _ => false,
        };
        if !joins && let Some(file) = run_file.take() {
            read_run(&file, &run, &mut entries)?;
            run.clear();
        }
        match place {
            Place::Memory(entry) => entries.push((index, entry)),
            Place::Disk(file, located) => {
                run.push((index, located));
                run_file.get_or_insert(file);
            }
        }
    }
    if let Some(file) = run_file {
        read_run(&file, &run, &mut entries)?;
    }
    Ok(entries)
}

/// The record's checksum stands in the four bytes before the entry.
const CRC_BYTES: u32 = 4;

fn read_run(file: &ReadFile, run: &[(u64, Located)], entries: &mut Vec<(u64, Bytes)>) -> Result<(), LogError> {
    let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else { return Ok(()) };
    let base = first.offset - CRC_BYTES;
    let mut bytes = vec![0; (last.offset - base) as usize + last.len as usize];
    file.file.read_exact_at(&mut bytes, u64::from(base)).map_err(LogError::io("read", &file.path))?;
    let bytes = Bytes::from(bytes);
    for (index, located) in run {
        let at = (located.offset - base) as usize;
        let entry = bytes.slice(at..at + located.len as usize);
        let stored = Cursor::new(&bytes[at - CRC_BYTES as usize..]).u32();
        if stored != Some(entry_crc(*index, &entry)) {
            let detail = format!("entry {index} fails its checksum");
            return Err(LogError::Damaged { file: file.path.clone(), offset: u64::from(located.offset), detail });
        }
        entries.push((*index, entry));
    }
    Ok(())
}
