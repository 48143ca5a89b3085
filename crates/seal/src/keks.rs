//! A KEK epoch made ready for use: what is derived from a KEK, each under its own label.
//!
//! ```text
//! commitment       HKDF-SHA256(salt "cinnabar kek commitment", KEK, info = cluster, key domain, epoch), 32 bytes, public
//! wrapping key     HKDF-SHA256(salt "cinnabar dek wrap", KEK, info = the DEK's associated data): one per wrapped DEK
//! fingerprint key  HKDF-SHA256(salt "cinnabar fingerprint", KEK, info = cluster, key domain, epoch), for HMAC-SHA256
//! ```

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use types::{Hash, KekEpoch};

use crate::{Kek, KekName, SealError, cipher::Prk};

/// What the chain carries of an epoch: 32 bytes that only this KEK of this cluster, domain and epoch gives, and that tell
/// nothing about it. HMAC-SHA256 is collision resistant, so no two KEKs can be passed off as one epoch.
///
/// # Errors
/// [`SealError::Defect`] only.
pub fn commitment(name: &KekName<'_>, kek: &Kek) -> Result<Hash, SealError> {
    let bytes = Prk::extract(b"cinnabar kek commitment", kek.expose()).expand(name.commitment_info().bytes()?)?;
    Ok(Hash::from_bytes(*bytes))
}

/// An installed epoch. Wiped on drop, which is when the last operation that uses it has ended.
pub(crate) struct Epoch {
    kek: Kek,
    wrapping: Prk,
    fingerprints: Hmac<Sha256>,
}

impl Epoch {
    /// Derives all that is needed, once the KEK has proved to be the announced one.
    pub(crate) fn verified(name: &KekName<'_>, announced: &Hash, kek: Kek) -> Result<Self, SealError> {
        if !bool::from(commitment(name, &kek)?.as_bytes().ct_eq(announced.as_bytes())) {
            return Err(SealError::CommitmentMismatch { domain: name.domain.clone(), epoch: name.epoch });
        }
        let wrapping = Prk::extract(b"cinnabar dek wrap", kek.expose());
        let key = Prk::extract(b"cinnabar fingerprint", kek.expose()).expand(name.fingerprint_info().bytes()?)?;
        let fingerprints = Hmac::new_from_slice(&key[..]).map_err(|_| SealError::Defect { operation: "derive a fingerprint key" })?;
        Ok(Self { kek, wrapping, fingerprints })
    }

    pub(crate) fn kek(&self) -> &Kek {
        &self.kek
    }

    pub(crate) fn wrapping(&self) -> &Prk {
        &self.wrapping
    }

    /// Bytes 0 to 3: the epoch, big-endian. Bytes 4 to 31: the first 28 of HMAC-SHA256 over the parts, each preceded by its
    /// length as eight bytes, big-endian.
    pub(crate) fn fingerprint(&self, epoch: KekEpoch, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.fingerprints.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut print = [0; 32];
        print[..4].copy_from_slice(&epoch.get().to_be_bytes());
        print[4..].copy_from_slice(&mac.finalize().into_bytes()[..28]);
        print
    }
}
