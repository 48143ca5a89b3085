//! The two primitives that all else is made of: HKDF-SHA256 (RFC 5869) and AES-256-GCM (NIST SP 800-38D).
//!
//! Both keep key material in their state, and both wipe it on drop, which an assertion below holds them to. What remains is what the
//! libraries work with on the stack: HMAC's padded key and HKDF's output block lie in a dead frame until a later call
//! overwrites them.

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce, Tag,
    aead::{AeadInOut, inout::InOutBuf},
};
use hkdf::Hkdf;
use seams::Entropy;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{SealError, keys::KEY_BYTES};

/// A 96-bit nonce, always random.
pub(crate) const NONCE_BYTES: usize = 12;
/// The full 128-bit tag.
pub(crate) const TAG_BYTES: usize = 16;

// Fails to compile when a library's feature that wipes its state is lost. HMAC has no marker of its own; it is made of two
// SHA-256 states and a block buffer, each of which wipes itself by the same feature.
const _: () = {
    const fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Aes256Gcm>();
    wiped::<Sha256>();
};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::bytes;

    #[test]
    fn hkdf_gives_the_answers_of_rfc_5869() {
        let range = |from: u8, to: u8| (from..=to).collect::<Vec<_>>();
        let cases = [
            // Appendix A.1 and A.2; the first 32 bytes of the OKM, since those do not depend on its length.
            (vec![0x0b; 22], range(0, 12), range(0xf0, 0xf9), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"),
            (range(0, 0x4f), range(0x60, 0xaf), range(0xb0, 0xff), "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"),
        ];
        for (key, salt, info, okm) in cases {
            assert_eq!(Prk::extract(&salt, &key).expand(&info).unwrap().as_slice(), bytes(okm));
        }
    }

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation": 256-bit key, associated data, a torn last block.
    #[test]
    fn gcm_gives_the_answer_of_its_specification() {
        let key: [u8; 32] = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").try_into().unwrap();
        let nonce: [u8; 12] = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let associated = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = bytes(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let sealed = bytes(concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
        ));
        let mut out = vec![0; plain.len() + TAG_BYTES];
        seal_into(&cipher(&key), &nonce, &associated, &plain, &mut out).unwrap();
        assert_eq!(out, sealed);
        let mut opened = vec![0; plain.len()];
        open_into(&cipher(&key), &nonce, &associated, &sealed, &mut opened).unwrap();
        assert_eq!(opened, plain);
    }

    #[test]
    fn open_refused_leaves_no_plaintext_behind() {
        let (key, nonce) = ([7; 32], [9; NONCE_BYTES]);
        let mut sealed = [0; 5 + TAG_BYTES];
        seal_into(&cipher(&key), &nonce, b"here", b"CANRY", &mut sealed).unwrap();
        let mut out = [0; 5];
        assert!(open_into(&cipher(&key), &nonce, b"there", &sealed, &mut out).is_none());
        assert_eq!(out, [0; 5]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_without_panic() {
        let (aes, nonce) = (cipher(&[7; 32]), [9; NONCE_BYTES]);
        for len in [0, 4, 20, 22] {
            assert!(seal_into(&aes, &nonce, b"", b"12345", &mut vec![0; len]).is_err(), "{len}");
        }
        for (sealed, out) in [(0, 0), (15, 0), (16, 1), (21, 4), (21, 6)] {
            assert!(open_into(&aes, &nonce, b"", &vec![0; sealed], &mut vec![0; out]).is_none(), "{sealed} {out}");
        }
        assert!(open_into(&aes, &nonce[..11], b"", &[0; 16], &mut []).is_none());
    }
}
