//! By what a request that comes again is known.

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use types::RequestId;
use wire::{PublicError, parse::FieldError};

/// The longest key.
const KEY_BYTES_MAX: usize = 255;

/// What a request says of its being sent before.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Under which id it is remembered.
    pub(super) id: Option<RequestId>,
    /// How often its sender has sent it before, where that is counted.
    pub(super) count: Option<u32>,
}

impl Told {
    /// Reads the headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, PublicError> {
        let key = headers.get("idempotency-key");
        let id = key.map(|key| {
            let bytes = key.as_bytes();
            if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
                return Err(FieldError::new("Idempotency-Key", format_args!("must have 1 to {KEY_BYTES_MAX} bytes")));
            }
            Ok(key.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| id_of(&[b"key", bytes])))
        });
        let count = headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok()?.parse().ok());
        Ok(Self { id: id.transpose()?, count })
    }
}

/// An id that follows from `parts`, each with its length.
fn id_of(parts: &[&[u8]]) -> RequestId {
    let mut hash = Sha256::new_with_prefix(b"cinnabar rest request id\0");
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    RequestId::from_bytes(id)
}
