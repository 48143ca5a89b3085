//! Values: sealed under a key derived for each from the account's DEK. The layout stands at [`SealedValue`].
//!
//! ```text
//! key   HKDF-SHA256(salt "cinnabar value", DEK, info = associated data)
//! text  AES-256-GCM(key, random 96-bit nonce, associated data, plaintext)
//! ```
//!
//! One key serves one value id, so the number of values under a DEK is not bound by GCM's limit on nonces; `state` still counts
//! uses. GCM does not commit to its key by itself; here the key is derived from the DEK and all of the context, and whoever can
//! write a record cannot choose DEKs.

use seams::Entropy;
use types::{SealedValue, VALUE_BYTES_MAX};

use crate::{
    Dek, Plaintext, SealError, Subject, ValueContext,
    cipher::{self, NONCE_BYTES, Prk, TAG_BYTES},
};

pub(crate) fn prk(dek: &Dek) -> Prk {
    Prk::extract(b"cinnabar value", dek.expose())
}

/// Seals a value under a DEK that the caller holds. [`crate::KeyRing::seal_value`] does so under a wrapped one.
///
/// # Errors
/// [`SealError::TooLong`] above 65,536 bytes.
pub fn seal_value(entropy: &dyn Entropy, dek: &Dek, context: &ValueContext<'_>, plaintext: &[u8]) -> Result<SealedValue, SealError> {
    seal_with(entropy, &prk(dek), context, plaintext)
}

/// Opens a value with a DEK that the caller holds. [`crate::KeyRing::open_value`] does so with a wrapped one.
///
/// # Errors
/// [`SealError::NotAuthentic`] when the context, the bytes or the DEK are not those of the sealing.
pub fn open_value(dek: &Dek, context: &ValueContext<'_>, sealed: &SealedValue) -> Result<Plaintext, SealError> {
    open_with(&prk(dek), context, sealed)
}

pub(crate) fn seal_with(entropy: &dyn Entropy, prk: &Prk, context: &ValueContext<'_>, plaintext: &[u8]) -> Result<SealedValue, SealError> {
    if plaintext.len() > VALUE_BYTES_MAX {
        return Err(SealError::TooLong { got: plaintext.len(), max: VALUE_BYTES_MAX });
    }
    let associated = context.associated_data(SealedValue::FORMAT);
    let associated = associated.bytes()?;
    let nonce = cipher::nonce(entropy);
    let mut bytes = vec![0; SealedValue::HEADER_BYTES + plaintext.len() + TAG_BYTES];
    bytes[0] = SealedValue::FORMAT;
    bytes[1..1 + NONCE_BYTES].copy_from_slice(&nonce);
    cipher::seal_into(&prk.cipher(associated)?, &nonce, associated, plaintext, &mut bytes[SealedValue::HEADER_BYTES..])?;
    SealedValue::from_bytes(bytes).map_err(|_| SealError::Defect { operation: "lay out a sealed value" })
}

pub(crate) fn open_with(prk: &Prk, context: &ValueContext<'_>, sealed: &SealedValue) -> Result<Plaintext, SealError> {
    let associated = context.associated_data(SealedValue::FORMAT);
    let associated = associated.bytes()?;
    let mut plaintext = Plaintext::zeroed(sealed.plaintext_len());
    cipher::open_into(&prk.cipher(associated)?, sealed.nonce(), associated, sealed.ciphertext_and_tag(), plaintext.expose_mut())
        .ok_or(SealError::NotAuthentic { subject: Subject::Value(context.value_id) })?;
    Ok(plaintext)
}
