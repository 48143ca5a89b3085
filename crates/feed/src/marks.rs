//! The sparse marks of a chain as a file's bytes: what [`Publisher::marks`](crate::Publisher::marks) gives and
//! [`Publisher::restore_marks`](crate::Publisher::restore_marks) takes back, so that a fork is seen also after a restart.
//!
//! ```text
//! offset    bytes  content; numbers are little-endian
//! 0         8      "CINMARK1"
//! 8         4      number n of marks, at most 1,048,576
//! 12        44n    marks, positions rising: generation 4, revision 8, chain hash 32
//! 12+44n    4      CRC-32C of all before
//! ```
//!
//! Marks are a means to see forks earlier, and nothing is proven by them: a file that does not decode is to be logged and left out.

use bytes::{BufMut, Bytes, BytesMut};
use types::{Generation, Hash, Position, Revision};

const MAGIC: &[u8; 8] = b"CINMARK1";
const HEAD_BYTES: usize = 12;
const MARK_BYTES: usize = 44;
const CRC_BYTES: usize = 4;
const MARKS_MAX: usize = 1 << 20;

/// Bytes that are no file of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarksError {
    /// Another file, or one of a newer Cinnabar.
    #[error("not a file of chain marks: it does not begin with CINMARK1")]
    Format,
    /// Cut off or too long.
    #[error("a file of chain marks of {got} bytes, expected {want}: remove it, it is written anew")]
    Length {
        /// The length found.
        got: usize,
        /// The length that its head announces.
        want: usize,
    },
    /// The checksum or the order is wrong.
    #[error("the file of chain marks is damaged: remove it, it is written anew")]
    Damaged,
}

/// The bytes for a file of these marks, whose positions rise; of too many, the newest.
pub fn encode_marks(marks: &[(Position, Hash)]) -> Bytes {
    let marks = &marks[marks.len().saturating_sub(MARKS_MAX)..];
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + MARK_BYTES * marks.len() + CRC_BYTES);
    bytes.put_slice(MAGIC);
    bytes.put_u32_le(marks.len() as u32);
    for (position, hash) in marks {
        bytes.put_u32_le(position.generation.get());
        bytes.put_u64_le(position.revision.get());
        bytes.put_slice(hash.as_bytes());
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32_le(crc);
    bytes.freeze()
}

/// The marks of a file's bytes.
///
/// # Errors
/// [`MarksError`].
pub fn decode_marks(bytes: &[u8]) -> Result<Vec<(Position, Hash)>, MarksError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(MarksError::Format)?;
    let got = bytes.len();
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(MarksError::Length { got, want: HEAD_BYTES + CRC_BYTES })?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > MARKS_MAX {
        return Err(MarksError::Damaged);
    }
    let want = HEAD_BYTES + MARK_BYTES * count + CRC_BYTES;
    let (marks, crc) = rest.split_last_chunk::<CRC_BYTES>().filter(|_| got == want).ok_or(MarksError::Length { got, want })?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(&bytes[..want - CRC_BYTES]) {
        return Err(MarksError::Damaged);
    }
    let marks: Vec<_> = marks.chunks_exact(MARK_BYTES).filter_map(mark).collect();
    if marks.is_sorted_by(|(one, _), (next, _)| one < next) { Ok(marks) } else { Err(MarksError::Damaged) }
}

fn mark(bytes: &[u8]) -> Option<(Position, Hash)> {
    let (generation, rest) = bytes.split_first_chunk::<4>()?;
    let (revision, hash) = rest.split_first_chunk::<8>()?;
    let position = Position::new(Generation::new(u32::from_le_bytes(*generation)), Revision::new(u64::from_le_bytes(*revision)));
    Some((position, Hash::from_bytes(hash.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<(Position, Hash)> {
        let mark = |n: u8| (Position::new(Generation::new(3), Revision::new(u64::from(n) * 1024)), Hash::from_bytes([n; 32]));
        (1..4).map(mark).collect()
    }

    #[test]
    fn marks_round_trip() {
        for marks in [Vec::new(), marks()] {
            assert_eq!(decode_marks(&encode_marks(&marks)), Ok(marks));
        }
    }

    #[test]
    fn marks_damaged_anywhere_are_refused() {
        let good = encode_marks(&marks());
        for place in 0..good.len() {
            let mut bad = good.to_vec();
            bad[place] ^= 1;
            assert!(decode_marks(&bad).is_err(), "byte {place}");
            assert!(decode_marks(&good[..place]).is_err(), "cut off at {place}");
        }
        let turned: Vec<_> = marks().into_iter().rev().collect();
        assert_eq!(decode_marks(&encode_marks(&turned)), Err(MarksError::Damaged));
    }
}
