//! The high-water mark: what an edge must remember even when its log is lost.
//!
//! The edge log is durable before anything is published, so an intact log holds all that was ever shown. When the log is damaged or
//! gone, the table or a snapshot file may be older than what readers have seen. The mark tells how old is too old, in the control
//! plane's own time, which every change set carries and which never goes back along the chain:
//!
//! - the rule while running: before a root is published whose newest change set is more than [`STRIDE`] later than the mark, the
//!   mark is made durable first. So all that was ever shown is at most `mark.time + STRIDE` old in log time;
//! - the rule after damage: nothing is published until the chain, or a verified checkpoint of a position that is held, lies
//!   beyond `mark.time + STRIDE`. Then everything that was ever shown is contained (P3).
//!
//! It also keeps the last checkpoint, from which age goes on after a restart, and the latest wall time that has certainly come since,
//! without which a clock set back would make an old state look young. An edge that is alone writes it once a minute.
//!
//! A snapshot's own log time is signed by nobody and moves no mark; that what it brought is back, is known by the position of the mark.
//!
//! ```text
//! file `mark`: two blocks of 4096 bytes, written in turn, so that a torn write leaves the other
//! offset  bytes  content
//! 0       4      "CMK1"
//! 4       8      sequence, little-endian; the higher valid one counts
//! 12      4      generation
//! 16      8      revision
//! 24      32     chain hash
//! 56      8      log time, ms
//! 64      8      wall clock high-water mark, ms
//! 72      8      nothing may be shown before this log time is passed, ms; 0 = no such hold
//! 80      2      length c of the checkpoint (0 = none), at most 1024
//! 82      c      an encoded signed checkpoint
//! 82+c    4      CRC-32C of all before
//! ```

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use seams::{Disk, DiskFile, OpenMode};
use types::{Generation, Hash, Position, Revision, UnixMillis};

/// How far, in the control plane's time, what is shown may be beyond the durable mark: one small fdatasync per five seconds of log
/// time, and at most that much more to wait for after damage.
pub(crate) const STRIDE: Duration = Duration::from_secs(5);

const BLOCK: usize = 4096;
const MAGIC: &[u8; 4] = b"CMK1";
const CHECKPOINT_MAX: usize = 1024;
/// Bytes before the checkpoint.
const HEAD: usize = 82;
const NAME: &str = "mark";

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// A position that was durable when the mark was written.
    pub position: Position,
    /// The chain hash there.
    pub chain_hash: Option<Hash>,
    /// Log time: nothing was shown that is later than this plus the stride.
    pub time: UnixMillis,
    /// The latest wall time that has certainly come: as shown since the checkpoint, or counted from it on the monotonic clock.
    pub wall: UnixMillis,
    /// After damage: nothing may be shown before the chain, or a checkpoint, lies beyond this log time.
    pub hold: Option<UnixMillis>,
    /// The last verified checkpoint, encoded.
    pub checkpoint: Option<Bytes>,
}

/// What was found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file: nothing was ever shown from this folder.
    Nothing,
    /// The newest valid mark.
    Mark(Mark),
    /// A file without a valid block.
    Damaged,
}

/// The file.
pub(crate) struct MarkFile {
    file: Box<dyn DiskFile>,
    sequence: u64,
}

impl MarkFile {
    /// Opens or creates the file in `folder`.
    ///
    /// # Errors
    /// As of the disk.
    pub(crate) fn open(disk: &Arc<dyn Disk>, folder: &std::path::Path) -> io::Result<(Self, Found)> {
        let path: PathBuf = folder.join(NAME);
        let file = match disk.open(&path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = disk.open(&path, OpenMode::CreateNew)?;
                file.set_len(2 * BLOCK as u64)?;
                file.sync_data()?;
                disk.sync_dir(folder)?;
                return Ok((Self { file, sequence: 0 }, Found::Nothing));
            }
            Err(error) => return Err(error),
        };
        // A process may have died before it synced what is read here, and what is shown from now on leans on it.
        file.sync_data()?;
        disk.sync_dir(folder)?;
        let blocks = [read_block(&*file, 0)?, read_block(&*file, 1)?];
        // A file of zeros was created and never written: a crash before the first mark.
        let untouched = blocks.iter().all(|block| block.iter().all(|byte| *byte == 0));
        let newest = blocks.iter().filter_map(|block| decode(block)).max_by_key(|(sequence, _)| *sequence);
        let (sequence, found) = match newest {
            Some((sequence, mark)) => (sequence, Found::Mark(mark)),
            None if untouched => (0, Found::Nothing),
            None => (0, Found::Damaged),
        };
        Ok((Self { file, sequence }, found))
    }

    /// Makes `mark` durable.
    ///
    /// # Errors
    /// As of the disk.
    pub(crate) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        self.sequence += 1;
        let block = encode(self.sequence, mark);
        self.file.write_all_at(&block, (self.sequence % 2) * BLOCK as u64)?;
        self.file.sync_data()
    }
}

fn read_block(file: &dyn DiskFile, number: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    let start = number * BLOCK as u64;
    let mut block = vec![0; BLOCK];
    let there = len.saturating_sub(start).min(BLOCK as u64) as usize;
    file.read_exact_at(&mut block[..there], start)?;
    Ok(block)
}

pub(super) fn encode(sequence: u64, mark: &Mark) -> Vec<u8> {
    let checkpoint = mark.checkpoint.as_deref().filter(|bytes| bytes.len() <= CHECKPOINT_MAX).unwrap_or_default();
    let mut block = Vec::with_capacity(BLOCK);
    block.extend_from_slice(MAGIC);
    block.extend_from_slice(&sequence.to_le_bytes());
    block.extend_from_slice(&mark.position.generation.get().to_le_bytes());
    block.extend_from_slice(&mark.position.revision.get().to_le_bytes());
    block.extend_from_slice(mark.chain_hash.unwrap_or(Hash::ZERO).as_bytes());
    block.extend_from_slice(&mark.time.get().to_le_bytes());
    block.extend_from_slice(&mark.wall.get().to_le_bytes());
    block.extend_from_slice(&mark.hold.unwrap_or_default().get().to_le_bytes());
    block.extend_from_slice(&(checkpoint.len() as u16).to_le_bytes());
    block.extend_from_slice(checkpoint);
    let crc = crc32c::crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block.resize(BLOCK, 0);
    block
}

pub(super) fn decode(block: &[u8]) -> Option<(u64, Mark)> {
    let length = usize::from(u16::from_le_bytes(*block.get(HEAD - 2..)?.first_chunk()?));
    let (body, rest) = block.split_at_checked(HEAD + length)?;
    let crc = u32::from_le_bytes(*rest.first_chunk()?);
    if !body.starts_with(MAGIC) || crc != crc32c::crc32c(body) {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(*body.get(at..)?.first_chunk()?));
    let generation = Generation::new(u32::from_le_bytes(*body.get(12..)?.first_chunk()?));
    let chain_hash = Hash::from_bytes(*body.get(24..)?.first_chunk()?);
    let checkpoint = &body[HEAD..];
    let mark = Mark {
        position: Position::new(generation, Revision::new(number(16)?)),
        chain_hash: (chain_hash != Hash::ZERO).then_some(chain_hash),
        time: UnixMillis::new(number(56)?),
        wall: UnixMillis::new(number(64)?),
        hold: Some(UnixMillis::new(number(72)?)).filter(|hold| *hold != UnixMillis::default()),
        checkpoint: (!checkpoint.is_empty()).then(|| Bytes::copy_from_slice(checkpoint)),
    };
    Some((number(4)?, mark))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use seams::sim::{Loss, SimDisk, SimEntropy};

    use super::*;

    fn mark(revision: u64) -> Mark {
        Mark {
            position: Position::new(Generation::new(1), Revision::new(revision)),
            chain_hash: Some(Hash::from_bytes([7; 32])),
            time: UnixMillis::new(revision * 10),
            wall: UnixMillis::new(revision * 11),
            hold: (revision % 2 == 1).then(|| UnixMillis::new(revision * 12)),
            checkpoint: revision.is_multiple_of(2).then(|| Bytes::from(vec![revision as u8; 180])),
        }
    }

    fn open(disk: &SimDisk) -> (MarkFile, Found) {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        MarkFile::open(&disk, Path::new("edge")).unwrap()
    }

    #[test]
    fn mark_of_a_new_folder_is_nothing_and_then_the_last_written() {
        let disk = SimDisk::new();
        assert_eq!(open(&disk).1, Found::Nothing);
        assert_eq!(open(&disk).1, Found::Nothing);
        for revision in 1..5 {
            open(&disk).0.write(&mark(revision)).unwrap();
            assert_eq!(open(&disk).1, Found::Mark(mark(revision)));
        }
    }

    #[test]
    fn mark_torn_write_leaves_the_one_before() {
        for seed in 0..200 {
            let disk = SimDisk::new();
            let (mut file, _) = open(&disk);
            file.write(&mark(1)).unwrap();
            file.write(&mark(2)).unwrap();
            // A write that was not synced: anything of it may be there.
            file.file.write_all_at(&encode(3, &mark(3)), BLOCK as u64).unwrap();
            disk.crash(&SimEntropy::new(seed));
            let found = open(&disk).1;
            assert!(found == Found::Mark(mark(2)) || found == Found::Mark(mark(3)), "{found:?}");
        }
    }

    /// A process dies between the write of a mark and its sync; the next one leans on what it reads.
    #[test]
    fn mark_that_is_found_is_durable() {
        let disk = SimDisk::new();
        let (mut file, _) = open(&disk);
        file.write(&mark(1)).unwrap();
        file.write(&mark(2)).unwrap();
        file.file.write_all_at(&encode(3, &mark(3)), BLOCK as u64).unwrap();
        assert_eq!(open(&disk).1, Found::Mark(mark(3)));
        for seed in 0..20 {
            disk.crash_losing(&SimEntropy::new(seed), Loss::Suffix);
            assert_eq!(open(&disk).1, Found::Mark(mark(3)));
        }
    }

    #[test]
    fn mark_damaged_in_both_blocks_is_told_from_none() {
        let disk = SimDisk::new();
        let (mut file, _) = open(&disk);
        file.write(&mark(1)).unwrap();
        file.write(&mark(2)).unwrap();
        disk.damage(Path::new("edge/mark"), 20, 1).unwrap();
        assert_eq!(open(&disk).1, Found::Mark(mark(1)));
        disk.damage(Path::new("edge/mark"), BLOCK as u64 + 20, 1).unwrap();
        assert_eq!(open(&disk).1, Found::Damaged);
    }
}
