//! Change sets: what one command changed of the propagated state, chained by hashes.
//!
//! ```text
//! offset  bytes  content of an encoded change set; numbers are big-endian
//! 0       1      format: 1
//! 1       4      chain
//! 5       4      generation
//! 9       8      revision, one more than the set before
//! 17      8      log time of the command, milliseconds
//! 25      32     hash of the set before; zeros before the first
//! 57      32     Merkle root of the changes
//! 89      4      number of changes
//! 93      32     own hash: SHA-256 over a label and bytes 0 to 92
//! 125     n      changes, by rising key: key length (2), key, 0 = deleted or 1 = put, and after 1: value length (4), value
//! ```
//!
//! The hash covers the changes only through their Merkle root, so that a subset can be sent later with the leaf hashes of what is
//! withheld. A set is encoded once, and log, stream and relays share the bytes.

use std::fmt;

use bytes::Bytes;
use types::{ChainId, Generation, Hash, Position, Revision, UnixMillis};

use crate::{
    Key,
    digest::{Digest, merkle},
    limits::{CHANGE_SET_BYTES_MAX, CHANGES_MAX, RECORD_BYTES_MAX},
};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 93;
const PREFIX_BYTES: usize = HEADER_BYTES + 32;

/// What stands in front of the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeSetHeader {
    /// Which chain of several; 0 today.
    pub chain: ChainId,
    /// Generation and revision that the state has with this set.
    pub position: Position,
    /// Log time of the command.
    pub time: UnixMillis,
    /// The hash of the set before, [`Hash::ZERO`] before the first.
    pub previous: Hash,
    /// The Merkle root of the changes.
    pub changes_root: Hash,
    /// How many changes follow.
    pub count: u32,
}

impl ChangeSetHeader {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            let (place, after) = std::mem::take(&mut rest).split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        };
        put(&[FORMAT]);
        put(&self.chain.get().to_be_bytes());
        put(&self.position.generation.get().to_be_bytes());
        put(&self.position.revision.get().to_be_bytes());
        put(&self.time.get().to_be_bytes());
        put(self.previous.as_bytes());
        put(self.changes_root.as_bytes());
        put(&self.count.to_be_bytes());
        bytes
    }

    /// The hash that the set must have: over a label and the stored bytes of this header.
    pub fn hash(&self) -> Hash {
        Digest::new("cinnabar change set v1").part(&self.encode()).end()
    }
}

/// One change: a record put in whole, or deleted.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The record's key.
    pub key: Key,
    /// The stored bytes, or none if the record is gone.
    pub value: Option<Bytes>,
}

impl Change {
    /// The leaf of this change in the Merkle tree of its set.
    pub fn leaf(&self) -> Hash {
        let leaf = Digest::new("cinnabar change v1").part(self.key.as_bytes());
        match &self.value {
            Some(value) => leaf.part(&[1]).part(value),
            None => leaf.part(&[0]),
        }
        .end()
    }

    fn encoded_len(&self) -> usize {
        2 + self.key.as_bytes().len() + 1 + self.value.as_ref().map_or(0, |value| 4 + value.len())
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "put {:?} ({} bytes)", self.key, value.len()),
            None => write!(f, "delete {:?}", self.key),
        }
    }
}

/// A change set as claimed by its bytes; [`Propagated::accept`](crate::Propagated::accept) checks the claims.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// What stands in front.
    pub header: ChangeSetHeader,
    /// The changes, by rising key.
    pub changes: Vec<Change>,
    /// The set's own hash, as its bytes say.
    pub hash: Hash,
    encoded: Bytes,
}

/// Bytes that are no change set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeSetError {
    /// Written by a newer Cinnabar.
    #[error("change set of format {got}, newest known is {FORMAT}; a newer Cinnabar wrote it")]
    Newer {
        /// The format byte.
        got: u8,
    },
    /// More bytes, changes or bytes in one record than allowed.
    #[error("change set has {what} of {got}, at most {max} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Cut off, or with bytes left over.
    #[error("change set of {bytes} bytes is damaged at byte {at}: {what}")]
    Damaged {
        /// Its length.
        bytes: usize,
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

impl ChangeSet {
    /// Chains `changes`, which must be sorted by key, behind `previous`.
    pub fn new(chain: ChainId, position: Position, time: UnixMillis, previous: Hash, changes: Vec<Change>) -> Self {
        let leaves: Vec<Hash> = changes.iter().map(Change::leaf).collect();
        let header = ChangeSetHeader { chain, position, time, previous, changes_root: merkle(&leaves), count: changes.len() as u32 };
        Self::from_claims(header, changes, header.hash())
    }

    /// A set that claims what it is given, true or not: what a forger could send. For tests of those who must refuse it.
    pub fn from_claims(header: ChangeSetHeader, changes: Vec<Change>, hash: Hash) -> Self {
        let length = PREFIX_BYTES + changes.iter().map(Change::encoded_len).sum::<usize>();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(hash.as_bytes());
        for change in &changes {
            bytes.extend_from_slice(&(change.key.as_bytes().len() as u16).to_be_bytes());
            bytes.extend_from_slice(change.key.as_bytes());
            bytes.push(u8::from(change.value.is_some()));
            if let Some(value) = &change.value {
                bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
                bytes.extend_from_slice(value);
            }
        }
        Self { header, changes, hash, encoded: bytes.into() }
    }

    /// The stored bytes, made once.
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Generation and revision that the state has with this set.
    pub const fn position(&self) -> Position {
        self.header.position
    }

    /// Reads stored bytes. Keys and values share them. What the header claims is checked when the set is accepted.
    ///
    /// # Errors
    /// [`ChangeSetError`] for a newer format, a broken bound, or damage.
    pub fn decode(bytes: Bytes) -> Result<Self, ChangeSetError> {
        bounded("a size in bytes", bytes.len(), CHANGE_SET_BYTES_MAX)?;
        let mut reader = Reader { bytes: &bytes, at: 0 };
        let [format] = reader.array("format")?;
        if format != FORMAT {
            return Err(ChangeSetError::Newer { got: format });
        }
        let chain = ChainId::new(u32::from_be_bytes(reader.array("chain")?));
        let generation = Generation::new(u32::from_be_bytes(reader.array("generation")?));
        let revision = Revision::new(u64::from_be_bytes(reader.array("revision")?));
        let time = UnixMillis::new(u64::from_be_bytes(reader.array("time")?));
        let previous = Hash::from_bytes(reader.array("previous hash")?);
        let changes_root = Hash::from_bytes(reader.array("Merkle root")?);
        let count = u32::from_be_bytes(reader.array("number of changes")?);
        bounded("a number of changes", count as usize, CHANGES_MAX)?;
        let hash = Hash::from_bytes(reader.array("own hash")?);
        let changes = (0..count).map(|_| reader.change()).collect::<Result<Vec<_>, _>>()?;
        if reader.at != bytes.len() {
            return Err(reader.damaged("bytes left over"));
        }
        let header = ChangeSetHeader { chain, position: Position::new(generation, revision), time, previous, changes_root, count };
        Ok(Self { header, changes, hash, encoded: bytes })
    }
}

impl fmt::Debug for ChangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeSet({}, {} changes, {} bytes)", self.header.position, self.changes.len(), self.encoded.len())
    }
}

fn bounded(what: &'static str, got: usize, max: usize) -> Result<(), ChangeSetError> {
    if got <= max { Ok(()) } else { Err(ChangeSetError::TooLarge { what, got, max }) }
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn damaged(&self, what: &'static str) -> ChangeSetError {
        ChangeSetError::Damaged { bytes: self.bytes.len(), at: self.at, what }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ChangeSetError> {
        let array = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or_else(|| self.damaged(what))?;
        self.at += N;
        Ok(*array)
    }

    fn slice(&mut self, length: usize, what: &'static str) -> Result<Bytes, ChangeSetError> {
        if self.bytes.len() - self.at < length {
            return Err(self.damaged(what));
        }
        let slice = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    fn change(&mut self) -> Result<Change, ChangeSetError> {
        let length = u16::from_be_bytes(self.array("key length")?);
        let key = Key::from_bytes(self.slice(usize::from(length), "key")?);
        let value = match self.array("kind of change")? {
            [0] => None,
            [1] => {
                let length = u32::from_be_bytes(self.array("value length")?) as usize;
                bounded("a record in bytes", key.as_bytes().len() + length, RECORD_BYTES_MAX)?;
                Some(self.slice(length, "value")?)
            }
            _ => return Err(self.damaged("kind of change")),
        };
        Ok(Change { key, value })
    }
}
