//! The bytes of an archive but for its chunks' content. Pure.

use std::fmt;

use sha2::{Digest, Sha256};
use state::statement::ArchiveStatement;
use types::{ChainId, ClusterId, FeatureLevel, Generation, Hash, LogIndex, NodeId, Position, Revision, UnixMillis};

pub(super) const MAGIC: &[u8; 8] = b"CBARCHIV";
pub(super) const FORMAT: u32 = 1;
/// Magic, format, length of the header, CRC.
pub(super) const PREFIX_BYTES: usize = 20;
/// Signer set, signature, CRC.
pub(super) const SIGNED_BYTES: usize = 4 + 64 + 4;
pub(super) const HEADER_BYTES_MAX: usize = 1 << 20;
/// Kind and length of a chunk.
pub(super) const CHUNK_HEADER_BYTES: usize = 5;
pub(super) const CRC_BYTES: usize = 4;
/// A chunk ends with the record that takes it to this: a damaged one is named within a quarter of a MiB.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Above the largest record by far, so that no length in a damaged file asks for more memory than this.
pub(super) const SEALED_BYTES_MAX: usize = 2 << 20;
/// What stands in front of each record.
pub(super) const RECORD_HEADER_BYTES: usize = 8;

pub(super) const CHUNK: u8 = 1;
pub(super) const LAST_CHUNK: u8 = 2;
pub(super) const FOOTER: u8 = 3;
/// The footer without its hash.
pub(super) const TOTALS_BYTES: usize = 21;
pub(super) const FOOTER_BYTES: usize = TOTALS_BYTES + 32;

/// Who can open an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A control node, with its envelope key.
    Node(NodeId),
    /// The offline recovery key.
    Recovery,
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Recovery => f.write_str("recovery key"),
        }
    }
}

impl From<Recipient> for seal::Recipient {
    fn from(recipient: Recipient) -> Self {
        match recipient {
            Recipient::Node(node) => Self::Node(node),
            Recipient::Recovery => Self::Recovery,
        }
    }
}

/// What an archive says of itself in the clear: no name of a secret, no count of anything but records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its random id.
    pub id: [u8; 16],
    /// The cluster.
    pub cluster: ClusterId,
    /// When it was saved, by the clock of the node that saved it.
    pub created: UnixMillis,
    /// The chain.
    pub chain: ChainId,
    /// The position of the state.
    pub position: Position,
    /// The hash of the chain there.
    pub chain_hash: Hash,
    /// The root of the propagated records.
    pub state_root: Hash,
    /// The last entry of the log that the state has applied.
    pub applied: LogIndex,
    /// Log time there.
    pub time: UnixMillis,
    /// The feature level in force.
    pub level: FeatureLevel,
    /// How many records there are.
    pub records: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
    /// SHA-256 over all records.
    pub records_hash: Hash,
    /// The node that saved it.
    pub saved_by: NodeId,
    /// What it was saved with, such as `cinnabar 0.1.0`; at most 255 bytes.
    pub software: String,
    /// The archive's key in one envelope for each who may open it.
    pub envelopes: Vec<(Recipient, Vec<u8>)>,
}

impl Header {
    /// The fields in the order above, numbers big-endian; the software after its length of one byte; the count of envelopes in two
    /// bytes, and each as kind (0 node, 1 recovery), node (8, or 0), length (2), bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512 + self.envelopes.len() * (seal::ARCHIVE_ENVELOPE_BYTES + 11));
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(self.cluster.as_bytes());
        bytes.extend_from_slice(&self.created.get().to_be_bytes());
        bytes.extend_from_slice(&self.chain.get().to_be_bytes());
        bytes.extend_from_slice(&self.position.generation.get().to_be_bytes());
        bytes.extend_from_slice(&self.position.revision.get().to_be_bytes());
        bytes.extend_from_slice(self.chain_hash.as_bytes());
        bytes.extend_from_slice(self.state_root.as_bytes());
        bytes.extend_from_slice(&self.applied.get().to_be_bytes());
        bytes.extend_from_slice(&self.time.get().to_be_bytes());
        bytes.extend_from_slice(&self.level.get().to_be_bytes());
        bytes.extend_from_slice(&self.records.to_be_bytes());
        bytes.extend_from_slice(&self.bytes.to_be_bytes());
        bytes.extend_from_slice(self.records_hash.as_bytes());
        bytes.extend_from_slice(&self.saved_by.get().to_be_bytes());
        let software = self.software.as_bytes().get(..255).unwrap_or(self.software.as_bytes());
        bytes.push(software.len() as u8);
        bytes.extend_from_slice(software);
        bytes.extend_from_slice(&(self.envelopes.len() as u16).to_be_bytes());
        for (recipient, envelope) in &self.envelopes {
            let (kind, node) = match recipient {
                Recipient::Node(node) => (0, node.get()),
                Recipient::Recovery => (1, 0),
            };
            bytes.push(kind);
            bytes.extend_from_slice(&node.to_be_bytes());
            bytes.extend_from_slice(&(envelope.len() as u16).to_be_bytes());
            bytes.extend_from_slice(envelope);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let header = Self {
            id: fields.array()?,
            cluster: ClusterId::from_bytes(fields.array()?),
            created: UnixMillis::new(fields.u64()?),
            chain: ChainId::new(fields.u32()?),
            position: Position::new(Generation::new(fields.u32()?), Revision::new(fields.u64()?)),
            chain_hash: Hash::from_bytes(fields.array()?),
            state_root: Hash::from_bytes(fields.array()?),
            applied: LogIndex::new(fields.u64()?),
            time: UnixMillis::new(fields.u64()?),
            level: FeatureLevel::new(fields.u32()?),
            records: fields.u64()?,
            bytes: fields.u64()?,
            records_hash: Hash::from_bytes(fields.array()?),
            saved_by: NodeId::new(fields.u64()?),
            software: {
                let [length] = fields.array()?;
                // It is printed for people: no control characters out of a file.
                std::str::from_utf8(fields.take(length.into())?).ok().filter(|text| !text.chars().any(char::is_control))?.to_owned()
            },
            envelopes: {
                let count = u16::from_be_bytes(fields.array()?);
                (0..count).map(|_| fields.envelope()).collect::<Option<_>>()?
            },
        };
        fields.0.is_empty().then_some(header)
    }

    /// What the node that saves signs. `hash` is the SHA-256 of the file up to the end of the header.
    pub(super) fn statement(&self, hash: [u8; 32]) -> ArchiveStatement {
        ArchiveStatement {
            cluster: self.cluster,
            chain: self.chain,
            position: self.position,
            chain_hash: self.chain_hash,
            state_root: self.state_root,
            header: Hash::from_bytes(hash),
        }
    }

    /// For whom there are envelopes.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.envelopes.iter().map(|(recipient, _)| *recipient).collect()
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn envelope(&mut self) -> Option<(Recipient, Vec<u8>)> {
        let recipient = match (self.array()?, self.u64()?) {
            ([0], node) => Recipient::Node(NodeId::new(node)),
            ([1], 0) => Recipient::Recovery,
            _ => return None,
        };
        let length = u16::from_be_bytes(self.array()?);
        Some((recipient, self.take(length.into())?.to_vec()))
    }
}

/// Magic, format, length, and their CRC.
pub(super) fn prefix(header_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + header_bytes + SIGNED_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_be_bytes());
    bytes.extend_from_slice(&(header_bytes as u32).to_be_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The footer's totals, before its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) chunks: u32,
    pub(super) records: u64,
    pub(super) length: u64,
}

impl Totals {
    pub(super) fn encode(self) -> [u8; TOTALS_BYTES] {
        let mut bytes = [FOOTER; TOTALS_BYTES];
        bytes[1..5].copy_from_slice(&self.chunks.to_be_bytes());
        bytes[5..13].copy_from_slice(&self.records.to_be_bytes());
        bytes[13..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.strip_prefix(&[FOOTER])?);
        let totals = Self { chunks: fields.u32()?, records: fields.u64()?, length: fields.u64()? };
        fields.0.is_empty().then_some(totals)
    }
}

/// What stands in front of a record.
pub(super) fn record_header(key: &[u8], value: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[..4].copy_from_slice(&(key.len() as u32).to_be_bytes());
    bytes[4..].copy_from_slice(&(value.len() as u32).to_be_bytes());
    bytes
}

/// The records of an opened chunk, or nothing if its lengths do not fit.
pub(super) fn records(mut chunk: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !chunk.is_empty() {
        let mut fields = Fields(chunk);
        let (key, value) = (fields.u32()? as usize, fields.u32()? as usize);
        records.push((fields.take(key)?, fields.take(value)?));
        chunk = fields.0;
    }
    Some(records)
}

/// The hash of records, fed one by one.
#[derive(Default)]
pub(super) struct RecordsHash {
    hasher: Sha256,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl RecordsHash {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.hasher.update(record_header(key, value));
        self.hasher.update(key);
        self.hasher.update(value);
        self.records += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }

    pub(super) fn end(self) -> Hash {
        Hash::from_bytes(self.hasher.finalize().into())
    }
}
