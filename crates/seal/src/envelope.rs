//! Envelopes: a KEK epoch sealed to one node's public key, or to the offline recovery key, by HPKE (RFC 9180, base mode).
//!
//! The KEM is X-Wing (ML-KEM-768 with X25519), so that an envelope recorded today does not open when X25519 falls. Base mode
//! does not say who sealed: anyone can make an envelope. Therefore what is opened counts only once it has proved to match the
//! commitment in the signed chain, which [`crate::KeyRing::install_kek`] checks.

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::{AeadTag, AesGcm256},
    inout::InOutBuf,
    kdf::HkdfSha256,
    kem::XWing,
};
use seams::Entropy;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{KEY_BYTES, Kek, KekName, Recipient, SealError, Subject, cipher, context::Labelled};

/// X-Wing in IANA's registry of HPKE KEMs.
const KEM_ID: u16 = XWing::KEM_ID;
/// HKDF-SHA256 in IANA's registry of HPKE KDFs.
const KDF_ID: u16 = 0x0001;
/// AES-256-GCM in IANA's registry of HPKE AEADs.
const AEAD_ID: u16 = 0x0002;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 7;
const ENCAPSULATED_BYTES: usize = 1120;
const SEALED_AT: usize = HEADER_BYTES + ENCAPSULATED_BYTES;
const PUBLIC_BYTES: usize = 1216;

/// The length of every envelope of format 1.
pub const ENVELOPE_BYTES: usize = SEALED_AT + KEY_BYTES + cipher::TAG_BYTES;
/// The length of an encoded public key.
pub const NODE_PUBLIC_KEY_BYTES: usize = 2 + PUBLIC_BYTES;
/// The length of a node's key file.
pub const NODE_KEY_FILE_BYTES: usize = FILE_SUM_AT + FILE_SUM_BYTES;

const FILE_MAGIC: &[u8; 8] = b"CBN-NODE";
const FILE_SEED_AT: usize = 11;
const FILE_SUM_AT: usize = FILE_SEED_AT + SEED_BYTES;
const FILE_SUM_BYTES: usize = 8;
const SEED_BYTES: usize = 32;

/// A node's public key for envelopes, as the node registry carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePublicKey(<XWing as Kem>::PublicKey);

impl NodePublicKey {
    /// 2 bytes: the KEM's id (0x647a, X-Wing), big-endian; 1,216 bytes: its public key.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; NODE_PUBLIC_KEY_BYTES];
        bytes[..2].copy_from_slice(&KEM_ID.to_be_bytes());
        self.0.write_exact(&mut bytes[2..]);
        bytes
    }

    /// Reads what [`NodePublicKey::encode`] wrote.
    ///
    /// # Errors
    /// [`SealError::UnknownAlgorithm`] for another KEM, [`SealError::Damaged`] for bytes that are no key of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        let damaged = |detail| SealError::Damaged { subject: Subject::NodePublicKey, detail };
        let (kem, key) = bytes.split_first_chunk().ok_or_else(|| damaged("it is too short"))?;
        known(Subject::NodePublicKey, *kem, KEM_ID)?;
        Deserializable::from_bytes(key).map(Self).map_err(|_| damaged("its bytes are no X-Wing public key"))
    }
}

/// A node's key pair for envelopes. Kept as the 32-byte seed from which X-Wing expands its private key.
pub struct NodeKeyPair {
    seed: Box<[u8; SEED_BYTES]>,
    public: NodePublicKey,
}

impl NodeKeyPair {
    /// A fresh key pair.
    ///
    /// # Errors
    /// [`SealError::Defect`] only.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SealError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        entropy.fill(&mut seed[..]);
        Self::from_seed(&seed[..])
    }

    /// The public part.
    pub fn public(&self) -> &NodePublicKey {
        &self.public
    }

    /// The node's key file, to be kept with mode 0600.
    ///
    /// ```text
    /// offset  bytes  content
    /// 0       8      magic "CBN-NODE"
    /// 8       1      format: 1
    /// 9       2      KEM: 0x647a (X-Wing), big-endian
    /// 11      32     seed of the private key
    /// 43      8      checksum: the first 8 bytes of SHA-256 over bytes 0 to 42
    /// ```
    pub fn to_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(vec![0; NODE_KEY_FILE_BYTES]);
        bytes[..8].copy_from_slice(FILE_MAGIC);
        bytes[8] = FORMAT;
        bytes[9..FILE_SEED_AT].copy_from_slice(&KEM_ID.to_be_bytes());
        bytes[FILE_SEED_AT..FILE_SUM_AT].copy_from_slice(&self.seed[..]);
        let sum: [u8; FILE_SUM_BYTES] = cipher::checksum(&bytes[..FILE_SUM_AT]);
        bytes[FILE_SUM_AT..].copy_from_slice(&sum);
        bytes
    }

    /// Reads what [`NodeKeyPair::to_file_bytes`] wrote. The caller wipes `bytes`.
    ///
    /// # Errors
    /// [`SealError::NewerFormat`], [`SealError::UnknownAlgorithm`], [`SealError::Damaged`].
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let damaged = |detail| SealError::Damaged { subject: Subject::NodeKeyFile, detail };
        if bytes.get(..8) != Some(FILE_MAGIC) {
            return Err(damaged("it does not begin as a node key file does"));
        }
        match bytes.get(8) {
            Some(&FORMAT) => {}
            Some(&got) if got > FORMAT => return Err(SealError::NewerFormat { subject: Subject::NodeKeyFile, got, newest: FORMAT }),
            _ => return Err(damaged("its format is none that was ever written")),
        }
        if bytes.len() != NODE_KEY_FILE_BYTES {
            return Err(damaged("it has not the length of its format"));
        }
        known(Subject::NodeKeyFile, [bytes[9], bytes[10]], KEM_ID)?;
        let sum: [u8; FILE_SUM_BYTES] = cipher::checksum(&bytes[..FILE_SUM_AT]);
        if !bool::from(sum.ct_eq(&bytes[FILE_SUM_AT..])) {
            return Err(damaged("its checksum does not match"));
        }
        Self::from_seed(&bytes[FILE_SEED_AT..FILE_SUM_AT])
    }

    pub(crate) fn from_seed(bytes: &[u8]) -> Result<Self, SealError> {
        let private = private(bytes)?;
        let mut seed = Box::new([0; SEED_BYTES]);
        seed.copy_from_slice(bytes);
        Ok(Self { seed, public: NodePublicKey(XWing::sk_to_pk(&private)) })
    }
}

impl Drop for NodeKeyPair {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl ZeroizeOnDrop for NodeKeyPair {}

/// Seals a KEK epoch to a recipient.
///
/// ```text
/// offset  bytes  content
/// 0       1      format: 1
/// 1       2      KEM: 0x647a (X-Wing), big-endian
/// 3       2      KDF: 0x0001 (HKDF-SHA256)
/// 5       2      AEAD: 0x0002 (AES-256-GCM)
/// 7       1120   encapsulated key
/// 1127    32     ciphertext of the KEK
/// 1159    16     authentication tag
/// ```
///
/// HPKE's info: format, cluster, key domain, KEK epoch, recipient. Its associated data: bytes 0 to 6.
///
/// # Errors
/// [`SealError::Defect`] only.
pub fn seal_envelope(
    entropy: &dyn Entropy,
    name: &KekName<'_>,
    recipient: impl Into<Recipient>,
    to: &NodePublicKey,
    kek: &Kek,
) -> Result<Vec<u8>, SealError> {
    seal_bytes(entropy, &name.envelope(FORMAT, recipient.into()), to, kek.expose())
}

/// Seals `plain` to a public key under `info`: an envelope as above, but for the length of its ciphertext.
pub(crate) fn seal_bytes(entropy: &dyn Entropy, info: &Labelled, to: &NodePublicKey, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut envelope = vec![0; SEALED_AT + plain.len() + cipher::TAG_BYTES];
    envelope[..HEADER_BYTES].copy_from_slice(&header());
    let (encapsulated_at, sealed) = envelope.split_at_mut(SEALED_AT);
    let (sealed, tag_at) = sealed.split_at_mut(plain.len());
    let defect = || SealError::Defect { operation: "seal an envelope" };
    let (encapsulated, tag) = hpke::single_shot_seal_inout_detached_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Base,
        &to.0,
        info.bytes()?,
        InOutBuf::new(plain, sealed).map_err(|_| defect())?,
        &header(),
        &mut Randomness(entropy),
    )
    .map_err(|_| defect())?;
    encapsulated.write_exact(&mut encapsulated_at[HEADER_BYTES..]);
    tag.write_exact(tag_at);
    Ok(envelope)
}

/// Opens an envelope. What comes out is whatever its maker put in: install it in a ring, which proves it, before using it.
///
/// # Errors
/// [`SealError::NotAuthentic`] when it was changed or is for another name, recipient or key pair; [`SealError::NewerFormat`],
/// [`SealError::UnknownAlgorithm`], [`SealError::Damaged`].
pub fn open_envelope(name: &KekName<'_>, recipient: impl Into<Recipient>, key: &NodeKeyPair, envelope: &[u8]) -> Result<Kek, SealError> {
    let mut kek = Kek::zeroed();
    let subject = || Subject::Envelope(name.domain.clone(), name.epoch);
    open_bytes(&subject, &name.envelope(FORMAT, recipient.into()), key, envelope, kek.expose_mut())?;
    Ok(kek)
}

/// Opens what [`seal_bytes`] made into `out`, which has the length of the plaintext.
pub(crate) fn open_bytes(
    subject: &dyn Fn() -> Subject,
    info: &Labelled,
    key: &NodeKeyPair,
    envelope: &[u8],
    out: &mut [u8],
) -> Result<(), SealError> {
    check_header(subject, envelope, SEALED_AT + out.len() + cipher::TAG_BYTES)?;
    let not_authentic = |_| SealError::NotAuthentic { subject: subject() };
    let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(&envelope[HEADER_BYTES..SEALED_AT]).map_err(not_authentic)?;
    let (sealed, tag) = envelope[SEALED_AT..].split_at(out.len());
    let tag = AeadTag::<AesGcm256>::from_bytes(tag).map_err(not_authentic)?;
    let buffer = InOutBuf::new(sealed, out).map_err(|_| SealError::Defect { operation: "open an envelope" })?;
    hpke::single_shot_open_inout_detached::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        &private(&key.seed[..])?,
        &encapsulated,
        info.bytes()?,
        buffer,
        &header(),
        &tag,
    )
    .map_err(not_authentic)
}

fn header() -> [u8; HEADER_BYTES] {
    let ([k0, k1], [d0, d1], [a0, a1]) = (KEM_ID.to_be_bytes(), KDF_ID.to_be_bytes(), AEAD_ID.to_be_bytes());
    [FORMAT, k0, k1, d0, d1, a0, a1]
}

fn check_header(subject: &dyn Fn() -> Subject, envelope: &[u8], bytes: usize) -> Result<(), SealError> {
    match envelope.first() {
        None => return Err(SealError::Damaged { subject: subject(), detail: "it is empty" }),
        Some(&FORMAT) => {}
        Some(&got) => return Err(SealError::NewerFormat { subject: subject(), got, newest: FORMAT }),
    }
    if envelope.len() < HEADER_BYTES {
        return Err(SealError::Damaged { subject: subject(), detail: "it is too short" });
    }
    for (at, id) in [(1, KEM_ID), (3, KDF_ID), (5, AEAD_ID)] {
        known(subject(), [envelope[at], envelope[at + 1]], id)?;
    }
    if envelope.len() != bytes {
        return Err(SealError::Damaged { subject: subject(), detail: "it has not the length of its format" });
    }
    Ok(())
}

fn known(subject: Subject, got: [u8; 2], known: u16) -> Result<(), SealError> {
    match u16::from_be_bytes(got) {
        got if got == known => Ok(()),
        got => Err(SealError::UnknownAlgorithm { subject, got, known }),
    }
}

/// The private key, expanded from its seed for one use and wiped after it.
fn private(seed: &[u8]) -> Result<<XWing as Kem>::PrivateKey, SealError> {
    Deserializable::from_bytes(seed).map_err(|_| SealError::Defect { operation: "expand a node's key" })
}

/// The one source of randomness, as HPKE wants it.
struct Randomness<'a>(&'a dyn Entropy);

impl rand_core::TryRng for Randomness<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.number())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Randomness<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::bytes;

    /// The first vector of draft-connolly-cfrg-xwing-kem: the seed, and both ends of its public key.
    #[test]
    fn node_public_key_follows_from_its_seed_as_the_draft_says() {
        let pair = NodeKeyPair::from_seed(&bytes("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")).unwrap();
        let public = pair.public().encode();
        assert_eq!(public[..34], bytes("647ae2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5"));
        assert_eq!(public[1211..], bytes("cd049040ef6534"));
    }
}
