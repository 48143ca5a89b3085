//! One entry of the edge log: a change set, and behind the last one of a batch its seal. The entry's index is the revision.
//!
//! ```text
//! offset  bytes  content
//! 0       1      format: 1
//! 1       2      length s of the seal, little-endian; 0 when the batch goes on in the next entry
//! 3       s      an encoded signed seal
//! 3+s     n      an encoded change set
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::Fault;

const FORMAT: u8 = 1;
const HEADER: usize = 3;

/// The entry's bytes. A seal is far below 64 KiB: about 180 bytes.
pub(crate) fn encode(change_set: &[u8], seal: Option<&[u8]>) -> Bytes {
    let seal = seal.unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(HEADER + seal.len() + change_set.len());
    bytes.put_u8(FORMAT);
    bytes.put_u16_le(u16::try_from(seal.len()).unwrap_or(0));
    bytes.put_slice(seal);
    bytes.put_slice(change_set);
    bytes.freeze()
}

/// The change set's bytes, and the seal's if there is one.
pub(crate) fn decode(entry: &Bytes) -> Result<(Bytes, Option<Bytes>), Fault> {
    let malformed = |detail: String| Fault::Malformed { what: "edge log entry", detail };
    let Some((&[format, low, high], _)) = entry.split_first_chunk::<HEADER>() else {
        return Err(malformed(format!("{} bytes", entry.len())));
    };
    if format != FORMAT {
        return Err(malformed(format!("format {format}, newest known is {FORMAT}")));
    }
    let end = HEADER + usize::from(u16::from_le_bytes([low, high]));
    if end > entry.len() {
        return Err(malformed("its seal is cut off".into()));
    }
    let seal = (end > HEADER).then(|| entry.slice(HEADER..end));
    Ok((entry.slice(end..), seal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_entry_round_trips_with_and_without_a_seal() {
        for seal in [None, Some(&b"signed"[..])] {
            let (set, found) = decode(&encode(b"set", seal)).unwrap();
            assert_eq!((&set[..], found.as_deref()), (&b"set"[..], seal));
        }
    }

    #[test]
    fn log_entry_of_unknown_format_or_cut_off_is_refused() {
        for bytes in [&b""[..], b"\x01\x00", b"\x02\x00\x00set", b"\x01\x09\x00set"] {
            assert_eq!(decode(&Bytes::from_static(bytes)).unwrap_err().name(), "malformed");
        }
    }
}
