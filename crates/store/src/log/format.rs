//! The bytes of segments: see the format in the header of [`crate::log`]. Pure.

use bytes::Bytes;

use super::Slot;

pub(super) const FORMAT: u32 = 1;
/// Blocks start at multiples of this, so that a header never spans two sectors and no write touches the sectors of another block.
pub(super) const ALIGN: u64 = 512;
pub(super) const SEGMENT_HEADER_BYTES: u64 = 512;
pub(super) const BLOCK_HEADER_BYTES: usize = 24;
/// Bytes of an entry's record before the entry itself.
pub(super) const ENTRY_HEADER_BYTES: usize = 17;
const SEGMENT_MAGIC: &[u8; 8] = b"CNBRSEG\0";
const BLOCK_MAGIC: &[u8; 4] = b"CNBB";

const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const PURGE: u8 = 3;
const SLOT: u8 = 4;
const CARRY: u8 = 5;

/// Reads numbers off the front of bytes; none when they end first.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) chain: u32,
    pub(super) number: u64,
    pub(super) len: u64,
}

/// Why bytes are no segment header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Newer(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    /// The bytes, and the CRC with which the chain of blocks starts.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.chain.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES as usize - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Checks everything but the chain.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderFault> {
        let end = SEGMENT_HEADER_BYTES as usize - 4;
        let stored =
            bytes.get(end..).and_then(|rest| Cursor::new(rest).u32()).ok_or(HeaderFault::Damaged("the segment header is cut short"))?;
        if !bytes.starts_with(SEGMENT_MAGIC) {
            return Err(HeaderFault::Damaged("not a segment file"));
        }
        if crc32c::crc32c(&bytes[..end]) != stored {
            return Err(HeaderFault::Damaged("the segment header fails its checksum"));
        }
        let mut fields = Cursor::new(&bytes[8..end]);
        let read = (fields.u32(), fields.u32(), fields.u64(), fields.u64());
        match read {
            (Some(FORMAT), Some(chain), Some(number), Some(len)) => Ok((Self { chain, number, len }, stored)),
            (Some(format), ..) if format > FORMAT => Err(HeaderFault::Newer(format)),
            _ => Err(HeaderFault::Damaged("the segment header names an unknown format")),
        }
    }
}

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) payload_len: u32,
    pub(super) records: u32,
    pub(super) chain: u32,
    pub(super) payload_crc: u32,
    /// CRC of this header: the chain of the next one.
    pub(super) crc: u32,
}

/// The bytes on disk of a block with so much payload.
pub(super) const fn block_len(payload: u64) -> u64 {
    (BLOCK_HEADER_BYTES as u64 + payload).next_multiple_of(ALIGN)
}

impl BlockHeader {
    fn header_crc(segment: u64, offset: u64, bytes: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&segment.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &offset.to_le_bytes()), bytes)
    }

    /// Decodes a header that was written at this place; whether its payload and its chain are right is for the caller to check.
    pub(super) fn decode(bytes: &[u8], segment: u64, offset: u64) -> Option<Self> {
        if !bytes.starts_with(BLOCK_MAGIC) {
            return None;
        }
        let mut fields = Cursor::new(bytes.get(4..BLOCK_HEADER_BYTES)?);
        let header = Self {
            payload_len: fields.u32()?,
            records: fields.u32()?,
            chain: fields.u32()?,
            payload_crc: fields.u32()?,
            crc: fields.u32()?,
        };
        (Self::header_crc(segment, offset, &bytes[..BLOCK_HEADER_BYTES - 4]) == header.crc).then_some(header)
    }
}

/// Builds a block: records are pushed, then it is sealed with its place.
#[derive(Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    records: u32,
}

impl BlockBuilder {
    pub(super) fn clear(&mut self) {
        // A rare huge group must not pin its memory for ever.
        if self.bytes.capacity() > 8 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.resize(BLOCK_HEADER_BYTES, 0);
        self.records = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.records == 0
    }

    fn start(&mut self, kind: u8) {
        self.records += 1;
        self.bytes.push(kind);
    }

    fn u64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn small(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds an entry; returns the offset of its bytes in the block.
    pub(super) fn entry(&mut self, index: u64, entry: &[u8]) -> u64 {
        self.start(ENTRY);
        self.u64(index);
        self.bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&entry_crc(index, entry).to_le_bytes());
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(entry);
        at
    }

    pub(super) fn truncate(&mut self, from: u64) {
        self.start(TRUNCATE);
        self.u64(from);
    }

    pub(super) fn purge(&mut self, before: u64, note: &[u8]) {
        self.start(PURGE);
        self.u64(before);
        self.small(note);
    }

    pub(super) fn slot(&mut self, slot: Slot, sequence: u64, bytes: &[u8]) {
        self.start(SLOT);
        self.bytes.push(slot.number() as u8);
        self.u64(sequence);
        self.small(bytes);
    }

    pub(super) fn carry(&mut self, next: u64, first: u64, note: &[u8]) {
        self.start(CARRY);
        self.u64(next);
        self.u64(first);
        self.small(note);
    }

    /// Fills in padding and header; returns the bytes to write and the chain for the next block.
    pub(super) fn seal(&mut self, segment: u64, offset: u64, chain: u32) -> (&[u8], u32) {
        let payload = self.bytes.len() - BLOCK_HEADER_BYTES;
        self.bytes.resize(block_len(payload as u64) as usize, 0);
        let payload_crc = crc32c::crc32c(&self.bytes[BLOCK_HEADER_BYTES..]);
        self.bytes[..4].copy_from_slice(BLOCK_MAGIC);
        self.bytes[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
        self.bytes[8..12].copy_from_slice(&self.records.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&chain.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&payload_crc.to_le_bytes());
        let crc = BlockHeader::header_crc(segment, offset, &self.bytes[..20]);
        self.bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        (&self.bytes, crc)
    }
}

/// The checksum in an entry's record, for reads of single entries.
pub(super) fn entry_crc(index: u64, entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_le_bytes()), entry)
}

/// A record of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Index, and where in the payload its bytes are.
    Entry {
        index: u64,
        at: usize,
        len: u32,
    },
    Truncate {
        from: u64,
    },
    Purge {
        before: u64,
        note: Bytes,
    },
    Slot {
        slot: Slot,
        sequence: u64,
        bytes: Bytes,
    },
    Carry {
        next: u64,
        first: u64,
        note: Bytes,
    },
}

fn small(fields: &mut Cursor<'_>) -> Option<Bytes> {
    let len = fields.u16()?;
    fields.take(usize::from(len)).map(Bytes::copy_from_slice)
}

impl Record {
    /// The next record of a payload, or none when it is of no known kind or does not fit.
    pub(super) fn decode(fields: &mut Cursor<'_>) -> Option<Self> {
        Some(match fields.u8()? {
            ENTRY => {
                let index = fields.u64()?;
                let len = fields.u32()?;
                let crc = fields.u32()?;
                let at = fields.position();
                let entry = fields.take(len as usize)?;
                (entry_crc(index, entry) == crc).then_some(Self::Entry { index, at, len })?
            }
            TRUNCATE => Self::Truncate { from: fields.u64()? },
            PURGE => Self::Purge { before: fields.u64()?, note: small(fields)? },
            SLOT => {
                let slot = *Slot::ALL.get(usize::from(fields.u8()?))?;
                Self::Slot { slot, sequence: fields.u64()?, bytes: small(fields)? }
            }
            CARRY => Self::Carry { next: fields.u64()?, first: fields.u64()?, note: small(fields)? },
            _ => return None,
        })
    }
}
