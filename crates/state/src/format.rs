//! One format byte, then a postcard body: how records, commands' bodies, replies and audit entries are stored.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};

/// Stored bytes that do not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Nothing there, not even a format byte.
    #[error("{what}: no bytes")]
    Empty {
        /// The kind of record.
        what: &'static str,
    },
    /// A newer Cinnabar wrote it.
    #[error("{what} of format {got}, newest known is {known}; a newer Cinnabar wrote it")]
    Newer {
        /// The kind of record.
        what: &'static str,
        /// The format byte found.
        got: u8,
        /// The newest format known here.
        known: u8,
    },
    /// The body is cut off, too long or out of bounds.
    #[error("{what} of {bytes} bytes is damaged: {detail}")]
    Damaged {
        /// The kind of record.
        what: &'static str,
        /// How many bytes there are.
        bytes: usize,
        /// What the decoder found; never content.
        detail: String,
    },
}

/// Room that most encodings have enough of: to grow is to copy, and to wipe what was copied.
const ROOM: usize = 512;

/// Where postcard writes to. Its own vectors begin empty and look for room at each byte, of which ids have many.
struct Room(Vec<u8>);

impl Flavor for Room {
    type Output = Vec<u8>;

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Format byte and postcard body, in no more memory than they take: most are kept for long.
pub(crate) fn encode<T: Serialize>(format: u8, value: &T) -> Bytes {
    encode_behind(&[format], value).into_boxed_slice().into()
}

/// A head, and a postcard body behind it.
pub(crate) fn encode_behind<T: Serialize>(head: &[u8], value: &T) -> Vec<u8> {
    let mut room = Vec::with_capacity(ROOM);
    room.extend_from_slice(head);
    // Serialization into a growing vector fails only for sequences of unknown length, which none of our types has.
    postcard::serialize_with_flavor(value, Room(room)).unwrap_or_default()
}

/// Checks the format byte, decodes the body and refuses bytes after it.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, known: u8, bytes: &[u8]) -> Result<T, FormatError> {
    match bytes.split_first() {
        None => Err(FormatError::Empty { what }),
        Some((&format, body)) if format == known => body_only(what, bytes.len(), body),
        Some((&got, _)) if got > known => Err(FormatError::Newer { what, got, known }),
        Some((&got, _)) => Err(FormatError::Damaged { what, bytes: bytes.len(), detail: format!("format {got} does not exist") }),
    }
}

fn body_only<T: DeserializeOwned>(what: &'static str, bytes: usize, body: &[u8]) -> Result<T, FormatError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(FormatError::Damaged { what, bytes, detail: format!("{} bytes too many", rest.len()) }),
        Err(error) => Err(FormatError::Damaged { what, bytes, detail: error.to_string() }),
    }
}

/// A type stored as one format byte and a postcard body.
pub(crate) trait Stored: Serialize + DeserializeOwned {
    /// Its name in errors.
    const WHAT: &'static str;
    /// The format that this build writes, and the newest that it reads.
    const FORMAT: u8;
}

macro_rules! plain {
    ($($type:ty, $what:literal;)*) => {
        $(impl Stored for $type {
            const WHAT: &'static str = $what;
            const FORMAT: u8 = 1;
        })*
    };
}

plain! {
    (), "a mark";
    u64, "a count";
    [u8; 32], "a token hash";
    types::StoreId, "a store's id";
    types::SecretId, "a secret's id";
    crate::limits::Quota, "a quota";
}

/// Makes a type [`Stored`] and gives it `encode` and `decode`.
macro_rules! stored {
    ($type:ty, $what:literal) => {
        impl $crate::format::Stored for $type {
            const WHAT: &'static str = $what;
            const FORMAT: u8 = 1;
        }

        impl $type {
            /// The stored bytes: one format byte (1), then the fields in order as postcard.
            pub fn encode(&self) -> bytes::Bytes {
                $crate::format::encode(<Self as $crate::format::Stored>::FORMAT, self)
            }

            /// Reads stored bytes.
            ///
            /// # Errors
            /// [`FormatError`](crate::FormatError) for a newer format, damage, or bytes left over.
            pub fn decode(bytes: &[u8]) -> Result<Self, $crate::FormatError> {
                $crate::format::decode(<Self as $crate::format::Stored>::WHAT, <Self as $crate::format::Stored>::FORMAT, bytes)
            }
        }
    };
}
pub(crate) use stored;
