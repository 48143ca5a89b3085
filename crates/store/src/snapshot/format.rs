//! The bytes of a snapshot file: see the format in the header of [`crate::snapshot`]. Pure.

use bytes::Bytes;

/// The longest meta.
pub const META_BYTES_MAX: usize = 1 << 20;
/// The longest key of a record.
pub const KEY_BYTES_MAX: usize = 4096;
/// The longest value of a record.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

pub(super) const FORMAT: u32 = 1;
pub(super) const HEADER_BYTES: usize = 36;
pub(super) const CHUNK_HEADER_BYTES: usize = 20;
pub(super) const FOOTER_BYTES: usize = 60;
/// A chunk is closed when its payload has reached this: large enough to read fast, small enough to hold in memory and to check alone.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// So no length in a damaged file asks for more memory than this.
pub(super) const PAYLOAD_BYTES_MAX: usize = CHUNK_BYTES + 8 + KEY_BYTES_MAX + VALUE_BYTES_MAX;
const MAGIC: &[u8; 8] = b"CNBSNAP\0";
const CHUNK_MAGIC: &[u8; 4] = b"CNBC";
const FOOTER_MAGIC: &[u8; 4] = b"CNBF";

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// What the fixed part of the header says, before meta and checksum are read.
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) meta_len: usize,
    pub(super) order: u128,
    crc: u32,
}

impl Header {
    pub(super) fn encode(order: u128, meta: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + meta.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&order.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), meta);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(meta);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let meta_len = u32_at(bytes, 12)? as usize;
        let order = u128::from_le_bytes(bytes.get(16..32)?.try_into().ok()?);
        let header = Self { format: u32_at(bytes, 8)?, meta_len, order, crc: u32_at(bytes, 32)? };
        (bytes.starts_with(MAGIC) && meta_len <= META_BYTES_MAX).then_some(header)
    }

    pub(super) fn checks(&self, bytes: &[u8], meta: &[u8]) -> bool {
        bytes.get(..32).is_some_and(|fixed| crc32c::crc32c_append(crc32c::crc32c(fixed), meta) == self.crc)
    }
}

/// A chunk while it is filled. Its bytes begin with room for the header.
pub(super) struct ChunkBuilder {
    bytes: Vec<u8>,
    records: u32,
}

impl ChunkBuilder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; CHUNK_HEADER_BYTES], records: 0 }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records += 1;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_HEADER_BYTES + CHUNK_BYTES
    }

    pub(super) fn seal(&mut self, number: u32) -> &[u8] {
        let payload = (self.bytes.len() - CHUNK_HEADER_BYTES) as u32;
        self.bytes[..4].copy_from_slice(CHUNK_MAGIC);
        self.bytes[4..8].copy_from_slice(&number.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&payload.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&self.records.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.bytes[..16]), &self.bytes[CHUNK_HEADER_BYTES..]);
        self.bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.truncate(CHUNK_HEADER_BYTES);
        self.records = 0;
    }
}

/// The header of a chunk.
pub(super) struct ChunkHeader {
    pub(super) number: u32,
    pub(super) payload_len: usize,
    records: u32,
    crc: u32,
}

impl ChunkHeader {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = Self {
            number: u32_at(bytes, 4)?,
            payload_len: u32_at(bytes, 8)? as usize,
            records: u32_at(bytes, 12)?,
            crc: u32_at(bytes, 16)?,
        };
        (bytes.starts_with(CHUNK_MAGIC) && header.payload_len <= PAYLOAD_BYTES_MAX).then_some(header)
    }

    /// The records of a payload; none when it does not check.
    pub(super) fn records(&self, bytes: &[u8], payload: &Bytes) -> Option<Vec<(Bytes, Bytes)>> {
        if crc32c::crc32c_append(crc32c::crc32c(bytes.get(..16)?), payload) != self.crc {
            return None;
        }
        let (mut records, mut at) = (Vec::new(), 0);
        while at < payload.len() {
            let key_end = (at + 8).checked_add(u32_at(payload, at)? as usize)?;
            let value_end = key_end.checked_add(u32_at(payload, at + 4)? as usize)?;
            if value_end > payload.len() {
                return None;
            }
            records.push((payload.slice(at + 8..key_end), payload.slice(key_end..value_end)));
            at = value_end;
        }
        (records.len() == self.records as usize).then_some(records)
    }
}

/// The end of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) chunks: u32,
    pub(super) records: u64,
    pub(super) len: u64,
    pub(super) hash: [u8; 32],
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(FOOTER_MAGIC);
        bytes.extend_from_slice(&self.chunks.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.hash);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let footer = Self {
            chunks: u32_at(bytes, 4)?,
            records: u64_at(bytes, 8)?,
            len: u64_at(bytes, 16)?,
            hash: bytes.get(24..56)?.try_into().ok()?,
        };
        (bytes.starts_with(FOOTER_MAGIC) && crc32c::crc32c(&bytes[..56]) == u32_at(bytes, 56)?).then_some(footer)
    }
}
