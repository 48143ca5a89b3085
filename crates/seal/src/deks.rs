//! DEKs, wrapped under a KEK epoch.

use std::fmt;

use seams::Entropy;
use types::{DekId, KekEpoch};

use crate::{
    Dek, DekName, KEY_BYTES, KekName, SealError, Subject,
    cipher::{self, NONCE_BYTES, Prk, TAG_BYTES},
};

/// The length of every wrapped DEK of format 1.
pub const WRAPPED_DEK_BYTES: usize = SEALED_AT + KEY_BYTES + TAG_BYTES;

const FORMAT: u8 = 1;
const SEALED_AT: usize = 1 + NONCE_BYTES;

/// A wrapped DEK as `state` keeps it.
///
/// ```text
/// offset  bytes  content
/// 0       1      format: 1 = AES-256-GCM under HKDF-SHA256(KEK, associated data)
/// 1       12     nonce, random
/// 13      32     ciphertext of the DEK
/// 45      16     authentication tag
/// ```
///
/// Associated data: format, cluster, key domain, KEK epoch, account, DEK id; all stand in the record around it.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedDek([u8; WRAPPED_DEK_BYTES]);

impl WrappedDek {
    /// Checks format and length; `dek` is for the error.
    ///
    /// # Errors
    /// [`SealError::NewerFormat`], [`SealError::Damaged`].
    pub fn decode(dek: DekId, bytes: &[u8]) -> Result<Self, SealError> {
        let subject = || Subject::Dek(dek);
        match bytes.first() {
            None => Err(SealError::Damaged { subject: subject(), detail: "it is empty" }),
            Some(&FORMAT) => bytes
                .try_into()
                .map(Self)
                .map_err(|_| SealError::Damaged { subject: subject(), detail: "it has not the length of its format" }),
            Some(&got) => Err(SealError::NewerFormat { subject: subject(), got, newest: FORMAT }),
        }
    }

    /// The bytes as laid out above.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WrappedDek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedDek({} bytes)", self.0.len())
    }
}

/// A wrapped DEK as a caller hands it in from a record: one of the DEK's wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DekWrap<'a> {
    /// The epoch that wraps it, in the key domain of the value's context.
    pub epoch: KekEpoch,
    /// The bytes, laid out as [`WrappedDek`].
    pub bytes: &'a [u8],
}

pub(crate) fn wrap(entropy: &dyn Entropy, wrapping: &Prk, kek: &KekName<'_>, name: DekName, dek: &Dek) -> Result<WrappedDek, SealError> {
    let associated = kek.dek_wrap(FORMAT, name);
    let associated = associated.bytes()?;
    let nonce = cipher::nonce(entropy);
    let mut wrapped = [0; WRAPPED_DEK_BYTES];
    wrapped[0] = FORMAT;
    wrapped[1..SEALED_AT].copy_from_slice(&nonce);
    cipher::seal_into(&wrapping.cipher(associated)?, &nonce, associated, dek.expose(), &mut wrapped[SEALED_AT..])?;
    Ok(WrappedDek(wrapped))
}

pub(crate) fn unwrap(wrapping: &Prk, kek: &KekName<'_>, name: DekName, wrapped: &WrappedDek) -> Result<Dek, SealError> {
    let associated = kek.dek_wrap(FORMAT, name);
    let associated = associated.bytes()?;
    let (nonce, sealed) = wrapped.0[1..].split_at(NONCE_BYTES);
    let mut dek = Dek::zeroed();
    cipher::open_into(&wrapping.cipher(associated)?, nonce, associated, sealed, dek.expose_mut())
        .ok_or(SealError::NotAuthentic { subject: Subject::Dek(name.dek) })?;
    Ok(dek)
}
