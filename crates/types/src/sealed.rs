//! The container of a sealed value: what lies in the state, on every disk and on every stream in place of a plaintext.

use serde::{Deserialize, Serialize};

/// The longest plaintext that any limit can allow: 64 KiB, as in Cloudflare's published limit.
pub const VALUE_BYTES_MAX: usize = 65_536;

/// The bytes of one sealed value, opaque to all but `seal`.
///
/// ```text
/// offset  bytes  content
/// 0       1      format: 1 = AES-256-GCM under HKDF-SHA256(DEK, associated data)
/// 1       12     nonce, random
/// 13      n      ciphertext, as long as the plaintext (0 to 65,536)
/// 13+n    16     authentication tag
/// ```
///
/// Key domain, DEK id and value id stand in the record around it and are part of the associated data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct SealedValue(Vec<u8>);

/// Bytes that are no sealed value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedFormatError {
    /// Shorter or longer than any value of its format.
    #[error("a sealed value of {got} bytes; format 1 has 29 to 65,565")]
    Length {
        /// The length found.
        got: usize,
    },
    /// Written by a version that this one does not know.
    #[error("sealed value of format {got}, newest known is 1; a newer Cinnabar wrote it")]
    Format {
        /// The format byte found.
        got: u8,
    },
}

impl SealedValue {
    /// Bytes before the ciphertext.
    pub const HEADER_BYTES: usize = 13;
    /// Bytes after it.
    pub const TAG_BYTES: usize = 16;
    /// The one format of today.
    pub const FORMAT: u8 = 1;

    /// Checks format and length; whether it opens is known only to who holds the key.
    ///
    /// # Errors
    /// [`SealedFormatError`] for another format or an impossible length.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SealedFormatError> {
        let shortest = Self::HEADER_BYTES + Self::TAG_BYTES;
        if bytes.len() < shortest || bytes.len() > shortest + VALUE_BYTES_MAX {
            return Err(SealedFormatError::Length { got: bytes.len() });
        }
        if bytes[0] != Self::FORMAT {
            return Err(SealedFormatError::Format { got: bytes[0] });
        }
        Ok(Self(bytes))
    }

    /// The bytes as laid out above.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The nonce.
    pub fn nonce(&self) -> &[u8] {
        &self.0[1..Self::HEADER_BYTES]
    }

    /// Ciphertext and tag.
    pub fn ciphertext_and_tag(&self) -> &[u8] {
        &self.0[Self::HEADER_BYTES..]
    }

    /// The length of the plaintext in bytes; not a secret, since limits and quotas show it.
    pub fn plaintext_len(&self) -> usize {
        self.0.len() - Self::HEADER_BYTES - Self::TAG_BYTES
    }
}

impl std::fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedValue({} bytes)", self.0.len())
    }
}

impl TryFrom<Vec<u8>> for SealedValue {
    type Error = SealedFormatError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, SealedFormatError> {
        Self::from_bytes(bytes)
    }
}

impl From<SealedValue> for Vec<u8> {
    fn from(value: SealedValue) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_value_bounds_and_format_are_checked() {
        assert!(SealedValue::from_bytes(vec![1; 28]).is_err());
        assert!(SealedValue::from_bytes(vec![1; 29]).is_ok());
        assert!(SealedValue::from_bytes(vec![1; 29 + VALUE_BYTES_MAX]).is_ok());
        assert!(SealedValue::from_bytes(vec![1; 30 + VALUE_BYTES_MAX]).is_err());
        assert!(SealedValue::from_bytes(vec![2; 40]).unwrap_err().to_string().contains("format 2"));
    }
}
