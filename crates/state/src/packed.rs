//! Byte strings read in one piece: what serde would otherwise visit byte by byte, on the path of every lookup.
//!
//! A byte string is stored as its length and its bytes, which is also how postcard stores a list of bytes.

use std::fmt;

use serde::{Deserializer, Serializer, de};

struct Visit<T>(fn(&[u8]) -> Result<T, String>);

impl<'de, T> de::Visitor<'de> for Visit<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        (self.0)(bytes).map_err(E::custom)
    }
}

/// For fields of type `Vec<u8>`.
pub(crate) mod vec {
    use super::{Deserializer, Serializer, Visit};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(Visit(|bytes| Ok(bytes.to_vec())))
    }
}

/// For fields of type [`SealedValue`](types::SealedValue).
pub(crate) mod sealed {
    use types::SealedValue;

    use super::{Deserializer, Serializer, Visit};

    pub(crate) fn serialize<S: Serializer>(sealed: &SealedValue, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(sealed.as_bytes())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SealedValue, D::Error> {
        deserializer.deserialize_bytes(Visit(|bytes| SealedValue::from_bytes(bytes.to_vec()).map_err(|error| error.to_string())))
    }
}

/// For a secret's versions: 32 bytes each, `version 8 | value id 16 | created 8`, numbers big-endian.
pub(crate) mod versions {
    use types::{UnixMillis, ValueId, Version};

    use super::{Deserializer, Serializer, Visit};
    use crate::record::VersionEntry;

    const ENTRY_BYTES: usize = 32;

    pub(crate) fn serialize<S: Serializer>(entries: &[VersionEntry], serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
        for entry in entries {
            bytes.extend_from_slice(&entry.version.get().to_be_bytes());
            bytes.extend_from_slice(entry.value_id.as_bytes());
            bytes.extend_from_slice(&entry.created.get().to_be_bytes());
        }
        serializer.serialize_bytes(&bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<VersionEntry>, D::Error> {
        deserializer.deserialize_bytes(Visit(|bytes| {
            let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
            if !rest.is_empty() {
                return Err("a version is cut off".to_owned());
            }
            // Most often they are read so that one more is added.
            let mut versions = Vec::with_capacity(entries.len() + 1);
            versions.extend(entries.iter().map(entry));
            Ok(versions)
        }))
    }

    #[inline]
    fn entry(bytes: &[u8; ENTRY_BYTES]) -> VersionEntry {
        let ([version, created], value_id) = ([0, 24].map(|at| number(bytes, at)), &bytes[8..24]);
        let mut id = [0; 16];
        id.copy_from_slice(value_id);
        VersionEntry { version: Version::new(version), value_id: ValueId::from_bytes(id), created: UnixMillis::new(created) }
    }

    #[inline]
    fn number(bytes: &[u8; ENTRY_BYTES], at: usize) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(number)
    }
}
