//! The head of the chain as stored bytes: in front of snapshots on the wire, in snapshot files and in the table.
//!
//! ```text
//! 0       1      format: 1
//! 1       4      chain; numbers are little-endian
//! 5       4      generation
//! 9       8      revision
//! 17      32     chain hash
//! 49      8      time of the last change set, ms; not proven by a seal
//! 57      n      what belongs to the head: bucket hashes on the wire, an encoded seal on disks
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use state::ChainHead;
use types::{ChainId, Generation, Hash, Position, Revision, UnixMillis};

use crate::Fault;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 57;

pub(crate) fn encode<'a>(head: &ChainHead, rest: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + 256);
    bytes.put_u8(FORMAT);
    bytes.put_u32_le(head.chain.get());
    bytes.put_u32_le(head.position.generation.get());
    bytes.put_u64_le(head.position.revision.get());
    bytes.put_slice(head.hash.as_bytes());
    bytes.put_u64_le(head.time.get());
    for part in rest {
        bytes.put_slice(part);
    }
    bytes.freeze()
}

/// The head and what follows it.
pub(crate) fn decode(what: &'static str, mut bytes: Bytes) -> Result<(ChainHead, Bytes), Fault> {
    if bytes.len() < HEAD_BYTES || bytes[0] != FORMAT {
        let format = bytes.first().copied();
        return Err(Fault::Malformed { what, detail: format!("a head of {} bytes, format {format:?}", bytes.len()) });
    }
    bytes.advance(1);
    let head = ChainHead {
        chain: ChainId::new(bytes.get_u32_le()),
        position: Position::new(Generation::new(bytes.get_u32_le()), Revision::new(bytes.get_u64_le())),
        hash: next_hash(&mut bytes),
        time: UnixMillis::new(bytes.get_u64_le()),
    };
    Ok((head, bytes))
}

/// The next 32 bytes, of which there must be as many.
pub(crate) fn next_hash(rest: &mut Bytes) -> Hash {
    let mut bytes = [0; 32];
    rest.copy_to_slice(&mut bytes);
    Hash::from_bytes(bytes)
}
