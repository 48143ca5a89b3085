//! The marks file: how far the log is known to be durable, and its slots, in two alternating places.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use seams::{Disk, DiskFile, OpenMode};

use super::{LogError, format::Cursor};

const MAGIC: &[u8; 4] = b"CNBM";
const FORMAT: u32 = 1;
const PLACE_BYTES: usize = 4096;
const NAME: &str = "marks";

/// A slot's value with the number of its write; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotValue {
    pub(super) sequence: u64,
    pub(super) bytes: Bytes,
}

/// What a place holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) chain: u32,
    pub(super) slots: [SlotValue; 2],
}

impl Mark {
    pub(super) fn encode(&self, sequence: u64, place: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PLACE_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.chain.to_le_bytes());
        for slot in &self.slots {
            bytes.extend_from_slice(&slot.sequence.to_le_bytes());
            bytes.extend_from_slice(&(slot.bytes.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&slot.bytes);
        }
        bytes.resize(PLACE_BYTES - 4, 0);
        let crc = place_crc(place, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Sequence and mark of a valid place; `Ok(None)` for any other bytes; the format found when it is a newer one.
    pub(super) fn decode(bytes: &[u8], place: u64) -> Result<Option<(u64, Self)>, u32> {
        let Some((body, crc)) = bytes.split_at_checked(PLACE_BYTES - 4) else { return Ok(None) };
        if Cursor::new(crc).u32() != Some(place_crc(place, body)) || !body.starts_with(MAGIC) {
            return Ok(None);
        }
        let mut fields = Cursor::new(&body[4..]);
        match fields.u32() {
            Some(FORMAT) => Ok(Self::fields(&mut fields)),
            Some(newer) if newer > FORMAT => Err(newer),
            _ => Ok(None),
        }
    }

    fn fields(fields: &mut Cursor<'_>) -> Option<(u64, Self)> {
        let sequence = fields.u64()?;
        let mut mark = Self { segment: fields.u64()?, offset: fields.u64()?, chain: fields.u32()?, slots: Default::default() };
        for slot in &mut mark.slots {
            slot.sequence = fields.u64()?;
            let len = fields.u16()?;
            slot.bytes = Bytes::copy_from_slice(fields.take(usize::from(len))?);
        }
        Some((sequence, mark))
    }
}

fn place_crc(place: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&place.to_le_bytes()), body)
}

/// The file. One of its places was synced and is left alone until the other one is: so at any moment at least one is whole.
pub(super) struct Marks {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    sequence: u64,
    /// The place that the next write takes; the other one is durable.
    place: u64,
    /// Whether a write to that place has not been synced.
    pub(super) pending: bool,
}

impl Marks {
    /// Creates the file in an empty folder, or opens it and returns its newest mark.
    pub(super) fn open(disk: &dyn Disk, folder: &Path, exists: bool) -> Result<(Self, Mark), LogError> {
        let path = folder.join(NAME);
        if !exists {
            Self::create(disk, folder, &path)?;
        }
        let file: Arc<dyn DiskFile> = Arc::from(disk.open(&path, OpenMode::Write).map_err(LogError::io("open", &path))?);
        let damaged = |detail: &str| LogError::Damaged { file: path.clone(), offset: 0, detail: detail.into() };
        if file.len().map_err(LogError::io("measure", &path))? != 2 * PLACE_BYTES as u64 {
            return Err(damaged("not 8,192 bytes long"));
        }
        let mut newest: Option<(u64, u64, Mark)> = None;
        for place in 0..2 {
            let mut bytes = vec![0; PLACE_BYTES];
            file.read_exact_at(&mut bytes, place * PLACE_BYTES as u64).map_err(LogError::io("read", &path))?;
            let decoded = Mark::decode(&bytes, place).map_err(|found| LogError::Newer { file: path.clone(), found, known: FORMAT })?;
            if let Some((sequence, mark)) = decoded
                && newest.as_ref().is_none_or(|(best, ..)| sequence > *best)
            {
                newest = Some((sequence, place, mark));
            }
        }
        let (sequence, place, mark) = newest.ok_or_else(|| damaged("neither of the two marks is whole"))?;
        // What was read may sit in the page cache alone: it must be durable before the other place is written.
        file.sync_data().map_err(LogError::io("sync", &path))?;
        Ok((Self { path, file, sequence, place: 1 - place, pending: false }, mark))
    }

    fn create(disk: &dyn Disk, folder: &Path, path: &Path) -> Result<(), LogError> {
        let new = folder.join("marks.new");
        let file = disk.open(&new, OpenMode::CreateNew).map_err(LogError::io("create", &new))?;
        for place in 0..2 {
            let bytes = Mark::default().encode(place + 1, place);
            file.write_all_at(&bytes, place * PLACE_BYTES as u64).map_err(LogError::io("write", &new))?;
        }
        file.sync_data().map_err(LogError::io("sync", &new))?;
        disk.rename(&new, path).map_err(LogError::io("rename", &new))?;
        disk.sync_dir(folder).map_err(LogError::io("sync", folder))
    }

    /// Writes a mark without syncing it: it survives the end of the process at once, and a power loss by chance.
    pub(super) fn write(&mut self, mark: &Mark) -> Result<(), LogError> {
        self.sequence += 1;
        let bytes = mark.encode(self.sequence, self.place);
        self.file.write_all_at(&bytes, self.place * PLACE_BYTES as u64).map_err(LogError::io("write", &self.path))?;
        self.pending = true;
        Ok(())
    }

    /// Makes the last mark durable.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.file.sync_data().map_err(LogError::io("sync", &self.path))?;
        if self.pending {
            self.place = 1 - self.place;
            self.pending = false;
        }
        Ok(())
    }
}
