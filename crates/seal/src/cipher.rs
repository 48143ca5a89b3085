//! The two primitives that all else is made of: HKDF-SHA256 (RFC 5869) and AES-256-GCM (NIST SP 800-38D).

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce, Tag,
    aead::{AeadInOut, inout::InOutBuf},
};
use hkdf::Hkdf;
use seams::Entropy;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::{SealError, keys::KEY_BYTES};

/// A 96-bit nonce, always random.
pub(crate) const NONCE_BYTES: usize = 12;
/// The full 128-bit tag.
pub(crate) const TAG_BYTES: usize = 16;

/// A key from which others are derived: the pseudorandom key of HKDF, extracted once and kept ready. Wiped on drop.
pub(crate) struct Prk(Hkdf<Sha256>);

impl Prk {
    /// HKDF-Extract. `salt` is the label of the purpose, so that one key serves several without relation between them.
    pub(crate) fn extract(salt: &[u8], key: &[u8]) -> Self {
        let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(salt), key);
        prk.zeroize();
        Self(hkdf)
    }

    /// HKDF-Expand to 32 bytes.
    pub(crate) fn expand(&self, info: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        let mut okm = Zeroizing::new([0; KEY_BYTES]);
        self.0.expand(info, &mut okm[..]).map_err(|_| SealError::Defect { operation: "derive a key" })?;
        Ok(okm)
    }

    /// The cipher whose key is derived by `info`.
    pub(crate) fn cipher(&self, info: &[u8]) -> Result<Aes256Gcm, SealError> {
        Ok(cipher(&*self.expand(info)?))
    }
}

/// AES-256-GCM under `key`. Round keys are wiped on drop.
pub(crate) fn cipher(key: &[u8; KEY_BYTES]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

/// A fresh nonce.
pub(crate) fn nonce(entropy: &dyn Entropy) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    nonce
}

/// Seals `plain` into `out`, which is longer by the tag. The plaintext is never in `out`, not even in passing.
pub(crate) fn seal_into(
    cipher: &Aes256Gcm,
    nonce: &[u8; NONCE_BYTES],
    associated_data: &[u8],
    plain: &[u8],
    out: &mut [u8],
) -> Result<(), SealError> {
    let defect = || SealError::Defect { operation: "seal" };
    let (text, tag_place) = out.split_at_mut_checked(plain.len()).ok_or_else(defect)?;
    let buffer = InOutBuf::new(plain, text).map_err(|_| defect())?;
    let tag = cipher.encrypt_inout_detached(&Nonce::from(*nonce), associated_data, buffer).map_err(|_| defect())?;
    if tag_place.len() != tag.len() {
        return Err(defect());
    }
    tag_place.copy_from_slice(&tag);
    Ok(())
}

/// Opens `sealed` (ciphertext and tag) into `out`, which is shorter by the tag. The tag is checked before anything is
/// deciphered: after a failure `out` holds nothing of the plaintext. `None` when it does not authenticate.
pub(crate) fn open_into(cipher: &Aes256Gcm, nonce: &[u8], associated_data: &[u8], sealed: &[u8], out: &mut [u8]) -> Option<()> {
    let (text, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_BYTES)?)?;
    let buffer = InOutBuf::new(text, out).ok()?;
    cipher.decrypt_inout_detached(&Nonce::try_from(nonce).ok()?, associated_data, buffer, &Tag::try_from(tag).ok()?).ok()
}

/// The first bytes of the SHA-256 of a file's content: tells damage from a good file, and promises nothing against an attacker.
pub(crate) fn checksum<const N: usize>(content: &[u8]) -> [u8; N] {
    let mut sum = [0; N];
    for (byte, of) in sum.iter_mut().zip(Sha256::digest(content)) {
        *byte = of;
    }
    sum
}
