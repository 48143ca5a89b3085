//! What an edge remembers of the chain beyond the reach of its log, for as long as its folder lives.
//!
//! - **Marks**: the hashes of the newest multiples of 1,024 revisions that it has passed, and of the beginning of its generation. They
//!   are presented with every subscription, so a control node that knows the chain there sees a fork at any age, wherever the edge stands.
//!   Who was brought up by a snapshot has them from the control node that sent it.
//! - **The recovery key**, as the first verified state that named one did. By it alone a new generation is known; a state that names
//!   another one later changes nothing here.
//! - **The statement** that began the generation it follows: nothing of an earlier one is taken any more.
//!
//! There are two copies of it, so that damage to one file costs nothing. Without both, marks are learned anew from what is verified
//! next; in the first generation the recovery key is too, and in a later one the node has to be enrolled anew.
//!
//! ```text
//! files `past` and `past.copy`, each replaced as a whole; numbers are little-endian
//! offset  bytes  content
//! 0       8      "CINPAST1"
//! 8       1      1 if there is a recovery key
//! 9       32     its Ed25519 public key, or zeros
//! 41      2      length s of an encoded signed generation, or 0
//! 43      s      the signed generation
//! 43+s    1      number n of marks, at most 8
//! 44+s    44n    marks, positions rising: generation 4, revision 8, chain hash 32
//! ..      4      CRC-32C of all before
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use seams::{Disk, OpenMode};
use state::{ChangeSet, Propagated, SignedGeneration};
use types::{Generation, Hash, Position, Revision};
use wire::internal as proto;

use super::Core;
use crate::{Fault, FeedError};

/// A position and the chain hash there.
pub(crate) type ChainMark = (Position, Hash);

/// How many marks are kept: the newest tells; one before it serves where the other side has not come to the newest yet.
pub(crate) const MARKS_KEPT: usize = 4;

const MAGIC: &[u8; 8] = b"CINPAST1";
const NAMES: [&str; 2] = ["past", "past.copy"];
const NEW_NAME: &str = "past.new";
/// More than any file is long.
const BYTES_MAX: u64 = 4096;

impl Core {
    /// The hashes of the chain at some positions that were passed, newest last: to be presented on subscribing.
    pub fn marks(&self) -> &[(Position, Hash)] {
        &self.past.marks
    }

    /// A statement of a new generation: verified before anything of that generation is taken. Who holds nothing needs none: what it
    /// has pinned decides.
    pub(super) fn announced(&mut self, begun: &proto::GenerationBegun) -> Result<(), FeedError> {
        let malformed = |error: state::StatementError| Fault::Malformed { what: "generation", detail: error.to_string() };
        let signed = state::SignedGeneration::decode(&begun.signed_encoded).map_err(malformed)?;
        if self.held.seal.is_some() {
            self.held.trust.announce(self.held.state.position(), signed)?;
            tracing::warn!(begins = %signed.statement.begins, restored = %signed.statement.restored,
                "the recovery key says that the chain goes on in a new generation");
        }
        Ok(())
    }

    /// Makes durable what is remembered of what is held, where that has changed.
    pub(super) fn keep_past(&mut self) -> Result<(), FeedError> {
        self.past.verified(&self.held.state);
        let followed = self.past.generation.map(|signed| signed.statement.generation()).unwrap_or_default();
        self.held.trust.pin(self.past.recovery, followed);
        self.past_file.keep(&self.past).map_err(|source| FeedError::Disk { operation: "writing what is remembered of the chain", source })
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) recovery: Option<[u8; 32]>,
    pub(crate) generation: Option<SignedGeneration>,
    /// Newest last, all of one generation.
    pub(crate) marks: Vec<ChainMark>,
}

impl Past {
    /// Takes up the marks among change sets that were verified.
    pub(crate) fn passed(&mut self, sets: &[Arc<ChangeSet>], every: u64) {
        let marks = sets.iter().map(|set| (set.position(), set.hash));
        self.mark(marks.filter(|(position, _)| is_mark(*position, every)));
    }

    /// Takes up marks of the generation that the newest of them, or of those here, is of.
    pub(crate) fn mark(&mut self, marks: impl IntoIterator<Item = ChainMark>) {
        self.marks.extend(marks);
        self.marks.sort_by_key(|(position, _)| *position);
        self.marks.dedup_by_key(|(position, _)| *position);
        let newest = self.marks.last().map(|(position, _)| position.generation);
        self.marks.retain(|(position, _)| Some(position.generation) == newest);
        let extra = self.marks.len().saturating_sub(MARKS_KEPT);
        self.marks.drain(..extra);
    }

    /// Takes up the recovery key that a verified state names, where none is known yet.
    pub(crate) fn verified(&mut self, state: &Propagated) {
        let Ok(Some(named)) = state.recovery() else { return };
        match self.recovery {
            None => self.recovery = Some(named.signing_key),
            Some(known) if known == named.signing_key => {}
            Some(_) => tracing::error!("the state names another recovery key than the one this edge has pinned; the pinned one stays"),
        }
    }

    /// Takes up the statement that began the generation now held.
    pub(crate) fn began(&mut self, signed: SignedGeneration) {
        self.generation = Some(signed);
        self.mark([(signed.statement.begins, signed.statement.chain_hash)]);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let generation = self.generation.as_ref().map(SignedGeneration::encode).unwrap_or_default();
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(MAGIC);
        bytes.push(u8::from(self.recovery.is_some()));
        bytes.extend_from_slice(&self.recovery.unwrap_or_default());
        bytes.extend_from_slice(&(generation.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&generation);
        bytes.push(self.marks.len() as u8);
        for (position, hash) in &self.marks {
            bytes.extend_from_slice(&position.generation.get().to_le_bytes());
            bytes.extend_from_slice(&position.revision.get().to_le_bytes());
            bytes.extend_from_slice(hash.as_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return None;
        }
        let (known, rest) = body.strip_prefix(MAGIC)?.split_first()?;
        let (recovery, rest) = rest.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (generation, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (count, rest) = rest.split_first()?;
        if rest.len() != 44 * usize::from(*count) {
            return None;
        }
        let generation = match generation {
            [] => None,
            bytes => Some(SignedGeneration::decode(bytes).ok()?),
        };
        let marks = rest.chunks_exact(44).map(mark).collect::<Option<_>>()?;
        Some(Self { recovery: (*known == 1).then_some(*recovery), generation, marks })
    }
}

/// Whether a mark is kept at a position.
pub(crate) const fn is_mark(position: Position, every: u64) -> bool {
    let revision = position.revision.get();
    revision > 0 && every > 0 && revision.is_multiple_of(every)
}

fn mark(bytes: &[u8]) -> Option<ChainMark> {
    let (generation, rest) = bytes.split_first_chunk::<4>()?;
    let (revision, hash) = rest.split_first_chunk::<8>()?;
    let position = Position::new(Generation::new(u32::from_le_bytes(*generation)), Revision::new(u64::from_le_bytes(*revision)));
    Some((position, Hash::from_bytes(hash.try_into().ok()?)))
}

/// The file, and what it holds.
pub(crate) struct PastFile {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    written: Past,
}

impl PastFile {
    /// Opens the files of a folder. A damaged one counts as none, and is told of.
    ///
    /// # Errors
    /// As of the disk.
    pub(crate) fn open(disk: &Arc<dyn Disk>, folder: &Path) -> io::Result<(Self, Past)> {
        let mut found = None;
        let mut whole = true;
        for name in NAMES {
            let past = read(disk, &folder.join(name))?.map(|bytes| Past::decode(&bytes));
            if past == Some(None) {
                metrics::counter!("cinnabar_feed_damaged_total", "what" => "past").increment(1);
                tracing::error!(name, "a file of what is remembered of the chain is damaged: its copy is used, or it is learned anew");
            }
            whole &= past.as_ref().is_some_and(Option::is_some);
            found = found.or(past.flatten());
        }
        let past = found.unwrap_or_default();
        // What is not there twice is written again with the next change, which the end of recovery brings about.
        let written = if whole { past.clone() } else { Past::default() };
        Ok((Self { disk: disk.clone(), folder: folder.to_owned(), written }, past))
    }

    /// Makes `past` durable where it differs from what is.
    ///
    /// # Errors
    /// As of the disk; each file is then as it was, or new.
    pub(crate) fn keep(&mut self, past: &Past) -> io::Result<()> {
        if self.written == *past {
            return Ok(());
        }
        let bytes = past.encode();
        NAMES.into_iter().try_for_each(|name| self.replace(name, &bytes))?;
        self.written = past.clone();
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join(NEW_NAME);
        match self.disk.remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.open(&new, OpenMode::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.disk.rename(&new, &self.folder.join(name))?;
        self.disk.sync_dir(&self.folder)
    }
}

fn read(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use seams::sim::{SimDisk, SimEntropy};

    use super::*;

    fn at(generation: u32, revision: u64) -> Position {
        Position::new(Generation::new(generation), Revision::new(revision))
    }

    fn signed() -> SignedGeneration {
        let statement = state::GenerationStatement {
            cluster: types::ClusterId::from_bytes([1; 16]),
            chain: types::ChainId::new(0),
            begins: at(2, 5000),
            restored: at(1, 70),
            restored_hash: Hash::from_bytes([2; 32]),
            chain_hash: Hash::from_bytes([3; 32]),
            state_root: Hash::from_bytes([4; 32]),
            signer_set: 2,
            signer_set_hash: Hash::from_bytes([5; 32]),
        };
        SignedGeneration { statement, signature: [9; 64] }
    }

    #[test]
    fn past_round_trips_over_a_restart_and_a_crash_keeps_one_or_the_other() {
        let mut full = Past { recovery: Some([7; 32]), ..Past::default() };
        full.mark((1..4).map(|n| (at(1, n * 1024), Hash::from_bytes([n as u8; 32]))));
        let mut later = full.clone();
        later.began(signed());
        for seed in 0..50 {
            let sim = SimDisk::new();
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let folder = Path::new("edge");
            disk.create_dir_all(folder).unwrap();
            let (mut file, none) = PastFile::open(&disk, folder).unwrap();
            assert_eq!(none, Past::default());
            file.keep(&full).unwrap();
            assert_eq!(PastFile::open(&disk, folder).unwrap().1, full);
            file.keep(&later).unwrap();
            sim.crash(&SimEntropy::new(seed));
            assert_eq!(PastFile::open(&disk, folder).unwrap().1, later);
        }
    }

    #[test]
    fn past_damaged_in_one_file_is_read_from_the_other_and_written_anew() {
        let mut past = Past { recovery: Some([7; 32]), ..Past::default() };
        past.began(signed());
        for name in NAMES {
            let sim = SimDisk::new();
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let folder = Path::new("edge");
            disk.create_dir_all(folder).unwrap();
            PastFile::open(&disk, folder).unwrap().0.keep(&past).unwrap();
            sim.damage(&folder.join(name), 20, 1).unwrap();
            let (mut file, found) = PastFile::open(&disk, folder).unwrap();
            assert_eq!(found, past, "{name}");
            file.keep(&found).unwrap();
            for other in NAMES {
                assert_eq!(Past::decode(&sim.read(&folder.join(other)).unwrap()), Some(past.clone()), "{name} was damaged");
            }
        }
    }

    #[test]
    fn past_damaged_anywhere_counts_as_none() {
        let mut past = Past { recovery: Some([7; 32]), ..Past::default() };
        past.began(signed());
        let good = past.encode();
        assert_eq!(Past::decode(&good), Some(past));
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(Past::decode(&bad), None, "byte {place}");
            assert_eq!(Past::decode(&good[..place]), None, "cut off at {place}");
        }
    }

    #[test]
    fn past_keeps_the_newest_marks_of_the_newest_generation() {
        let mut past = Past::default();
        past.mark((1..9).map(|n| (at(1, n * 4), Hash::ZERO)));
        assert_eq!(past.marks.iter().map(|(position, _)| position.revision.get()).collect::<Vec<_>>(), [20, 24, 28, 32]);
        past.began(signed());
        assert_eq!(past.marks, [(at(2, 5000), Hash::from_bytes([3; 32]))]);
    }
}
