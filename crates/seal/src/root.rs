//! Root keys: what wraps KEK epochs, and the one thing that the cluster cannot recover from a backup of itself.

use std::fmt;

use seams::Entropy;
use types::RootKeyId;

use crate::{
    KEY_BYTES, Kek, KekName, RootKey, SealError, Subject,
    cipher::{self, NONCE_BYTES, TAG_BYTES},
};

/// Holds a root key and wraps KEK epochs with it. A device keeps the key inside; a file gives it to memory during unlock.
///
/// Calls block, for milliseconds with a device: callers keep them off the async threads.
pub trait RootProvider: Send + Sync {
    /// Which root key this is. Every wrap names it.
    fn root_key_id(&self) -> RootKeyId;

    /// Wraps a KEK epoch, bound to its name and to the root key's id.
    ///
    /// # Errors
    /// [`SealError::RootDevice`] when a device fails.
    fn wrap_kek(&self, entropy: &dyn Entropy, name: &KekName<'_>, kek: &Kek) -> Result<WrappedKek, SealError>;

    /// Unwraps a KEK epoch. What comes out is proved against the commitment when it is installed.
    ///
    /// # Errors
    /// [`SealError::OtherRoot`] for a wrap of another root key; [`SealError::NotAuthentic`] when it was changed or belongs to
    /// another name; [`SealError::RootDevice`] when a device fails.
    fn unwrap_kek(&self, name: &KekName<'_>, wrapped: &WrappedKek) -> Result<Kek, SealError>;
}

/// The length of every wrapped KEK of format 1.
pub const WRAPPED_KEK_BYTES: usize = SEALED_AT + KEY_BYTES + TAG_BYTES;

const FORMAT: u8 = 1;
const NONCE_AT: usize = 1 + 16;
const SEALED_AT: usize = NONCE_AT + NONCE_BYTES;

/// A KEK epoch wrapped under a root key.
///
/// ```text
/// offset  bytes  content
/// 0       1      format: 1 = AES-256-GCM under the root key
/// 1       16     root key id
/// 17      12     nonce, random
/// 29      32     ciphertext of the KEK
/// 61      16     authentication tag
/// ```
///
/// Associated data: format, cluster, key domain, KEK epoch, root key id. The root key is used as it is, without derivation, so
/// that a device can do the same without giving it out; a root key wraps few epochs, far below GCM's limit on random nonces.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKek([u8; WRAPPED_KEK_BYTES]);

impl WrappedKek {
    /// The associated data, for a device that does the wrapping itself.
    ///
    /// # Errors
    /// [`SealError::Defect`] only.
    pub fn associated_data(name: &KekName<'_>, root: RootKeyId) -> Result<Vec<u8>, SealError> {
        Ok(name.root_wrap(FORMAT, root).bytes()?.to_vec())
    }

    /// Puts together what a device has wrapped.
    pub fn from_parts(root: RootKeyId, nonce: &[u8; NONCE_BYTES], ciphertext_and_tag: &[u8; KEY_BYTES + TAG_BYTES]) -> Self {
        let mut bytes = [0; WRAPPED_KEK_BYTES];
        bytes[0] = FORMAT;
        bytes[1..NONCE_AT].copy_from_slice(root.as_bytes());
        bytes[NONCE_AT..SEALED_AT].copy_from_slice(nonce);
        bytes[SEALED_AT..].copy_from_slice(ciphertext_and_tag);
        Self(bytes)
    }

    /// Checks format and length; `name` is for the error.
    ///
    /// # Errors
    /// [`SealError::NewerFormat`], [`SealError::Damaged`].
    pub fn decode(name: &KekName<'_>, bytes: &[u8]) -> Result<Self, SealError> {
        let subject = || Subject::Kek(name.domain.clone(), name.epoch);
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

    /// The root key that can unwrap it.
    pub fn root_key_id(&self) -> RootKeyId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[1..NONCE_AT]);
        RootKeyId::from_bytes(id)
    }

    /// The nonce.
    pub fn nonce(&self) -> &[u8] {
        &self.0[NONCE_AT..SEALED_AT]
    }

    /// Ciphertext and tag.
    pub fn ciphertext_and_tag(&self) -> &[u8] {
        &self.0[SEALED_AT..]
    }
}

impl fmt::Debug for WrappedKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKek(under root {})", self.root_key_id())
    }
}

impl RootKey {
    /// Wraps as [`WrappedKek`] says: what every provider does that has its key in memory.
    ///
    /// # Errors
    /// [`SealError::Defect`] only.
    pub fn wrap_kek(&self, entropy: &dyn Entropy, id: RootKeyId, name: &KekName<'_>, kek: &Kek) -> Result<WrappedKek, SealError> {
        let associated = name.root_wrap(FORMAT, id);
        let nonce = cipher::nonce(entropy);
        let mut sealed = [0; KEY_BYTES + TAG_BYTES];
        cipher::seal_into(&cipher::cipher(self.expose()), &nonce, associated.bytes()?, kek.expose(), &mut sealed)?;
        Ok(WrappedKek::from_parts(id, &nonce, &sealed))
    }

    /// Unwraps what [`RootKey::wrap_kek`] wrapped.
    ///
    /// # Errors
    /// [`SealError::OtherRoot`], [`SealError::NotAuthentic`].
    pub fn unwrap_kek(&self, id: RootKeyId, name: &KekName<'_>, wrapped: &WrappedKek) -> Result<Kek, SealError> {
        let subject = || Subject::Kek(name.domain.clone(), name.epoch);
        if wrapped.root_key_id() != id {
            return Err(SealError::OtherRoot { subject: subject(), wrapped_by: wrapped.root_key_id(), held: id });
        }
        let associated = name.root_wrap(FORMAT, id);
        let mut kek = Kek::zeroed();
        let (cipher, sealed) = (cipher::cipher(self.expose()), wrapped.ciphertext_and_tag());
        cipher::open_into(&cipher, wrapped.nonce(), associated.bytes()?, sealed, kek.expose_mut())
            .ok_or_else(|| SealError::NotAuthentic { subject: subject() })?;
        Ok(kek)
    }
}
