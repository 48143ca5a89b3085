//! Archives: a snapshot of the whole state, sealed chunk by chunk for those who may restore it.
//!
//! Each archive has a random key of its own, which stands in an envelope for every recipient: the control nodes and the offline
//! recovery key. The chunks follow the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): a nonce is the chunk's
//! number and whether it is the last, so chunks can be neither exchanged, repeated nor left out, also not at the end. The
//! associated data of every chunk is the SHA-256 of the archive's header: a chunk belongs under one header only.
//!
//! ```text
//! nonce   bytes 0 to 6: zero; 7 to 10: the chunk's number from 0, big-endian; 11: 1 for the last chunk, else 0
//! chunk   ciphertext, tag 16
//! ```
//!
//! A key is used for one archive, and a number once in it: so nonces need no randomness.

use aes_gcm::Aes256Gcm;
use seams::Entropy;
use types::ClusterId;

use crate::{
    ArchiveKey, ENVELOPE_BYTES, NodeKeyPair, NodePublicKey, Recipient, SealError, Subject,
    cipher::{self, NONCE_BYTES},
    context::Labelled,
    envelope,
};

const FORMAT: u8 = 1;

/// The length of the envelope of an archive's key.
pub const ARCHIVE_ENVELOPE_BYTES: usize = ENVELOPE_BYTES;
/// By how much a sealed chunk is longer than what it holds.
pub const ARCHIVE_CHUNK_EXTRA_BYTES: usize = cipher::TAG_BYTES;

/// HPKE's info: format, cluster, archive id, recipient.
fn info(cluster: ClusterId, archive: [u8; 16], recipient: Recipient) -> Labelled {
    let mut labelled = Labelled::new("cinnabar archive key");
    labelled.field(&[FORMAT]).field(cluster.as_bytes()).field(&archive).field(&recipient.bytes());
    labelled
}

/// Seals an archive's key for one who may open it. `archive` is the archive's random id.
///
/// # Errors
/// [`SealError::Defect`] only.
pub fn seal_archive_key(
    entropy: &dyn Entropy,
    cluster: ClusterId,
    archive: [u8; 16],
    recipient: impl Into<Recipient>,
    to: &NodePublicKey,
    key: &ArchiveKey,
) -> Result<Vec<u8>, SealError> {
    envelope::seal_bytes(entropy, &info(cluster, archive, recipient.into()), to, key.expose())
}

/// Opens what [`seal_archive_key`] made. Anyone can make such an envelope: that the archive is the cluster's own, its signature says.
///
/// # Errors
/// [`SealError::NotAuthentic`] when it was changed or is for another archive, recipient or key pair; [`SealError::NewerFormat`],
/// [`SealError::UnknownAlgorithm`], [`SealError::Damaged`].
pub fn open_archive_key(
    cluster: ClusterId,
    archive: [u8; 16],
    recipient: impl Into<Recipient>,
    with: &NodeKeyPair,
    sealed: &[u8],
) -> Result<ArchiveKey, SealError> {
    let mut key = ArchiveKey::zeroed();
    envelope::open_bytes(&|| Subject::ArchiveKey, &info(cluster, archive, recipient.into()), with, sealed, key.expose_mut())?;
    Ok(key)
}

/// What both directions share: the cipher, the header they are bound to, and the number of the next chunk.
struct Stream {
    cipher: Aes256Gcm,
    header: [u8; 32],
    next: Option<u32>,
}

impl Stream {
    fn new(key: &ArchiveKey, header: [u8; 32]) -> Self {
        Self { cipher: cipher::cipher(key.expose()), header, next: Some(0) }
    }

    /// The number and nonce of the next chunk. After the last chunk, and after as many as there are numbers, there is none.
    fn advance(&mut self, last: bool) -> Result<(u32, [u8; NONCE_BYTES]), SealError> {
        let number = self.next.ok_or(SealError::Defect { operation: "go on behind an archive's last chunk" })?;
        self.next = if last { None } else { number.checked_add(1) };
        let mut nonce = [0; NONCE_BYTES];
        nonce[7..11].copy_from_slice(&number.to_be_bytes());
        nonce[11] = u8::from(last);
        Ok((number, nonce))
    }
}

/// Seals the chunks of one archive, in order.
pub struct ArchiveSealer(Stream);

impl ArchiveSealer {
    /// Begins. `header` is the SHA-256 of the archive's header.
    pub fn new(key: &ArchiveKey, header: [u8; 32]) -> Self {
        Self(Stream::new(key, header))
    }

    /// Seals the next chunk into `out`, over what it held.
    ///
    /// # Errors
    /// [`SealError::Defect`] behind the last chunk.
    pub fn seal(&mut self, last: bool, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let (_, nonce) = self.0.advance(last)?;
        out.resize(plain.len() + ARCHIVE_CHUNK_EXTRA_BYTES, 0);
        cipher::seal_into(&self.0.cipher, &nonce, &self.0.header, plain, out)
    }
}

/// Opens the chunks of one archive, in order.
pub struct ArchiveOpener(Stream);

impl ArchiveOpener {
    /// Begins. `header` is the SHA-256 of the archive's header as it was found.
    pub fn new(key: &ArchiveKey, header: [u8; 32]) -> Self {
        Self(Stream::new(key, header))
    }

    /// Opens the next chunk into `out`, over what it held. The archive is whole once a chunk was opened as the last.
    ///
    /// # Errors
    /// [`SealError::NotAuthentic`] with the chunk's number: changed, moved, or not the last (or the last) as it claims.
    pub fn open(&mut self, last: bool, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let (number, nonce) = self.0.advance(last)?;
        let not_authentic = || SealError::NotAuthentic { subject: Subject::ArchiveChunk(number) };
        out.resize(sealed.len().checked_sub(ARCHIVE_CHUNK_EXTRA_BYTES).ok_or_else(not_authentic)?, 0);
        cipher::open_into(&self.0.cipher, &nonce, &self.0.header, sealed, out).ok_or_else(not_authentic)
    }
}

#[cfg(test)]
mod tests {
    use seams::sim::SimEntropy;
    use types::NodeId;

    use super::*;

    const HEADER: [u8; 32] = [7; 32];

    fn sealed(key: &ArchiveKey, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut sealer = ArchiveSealer::new(key, HEADER);
        let seal = |(place, plain): (usize, &&[u8])| {
            let mut out = Vec::new();
            sealer.seal(place + 1 == chunks.len(), plain, &mut out).unwrap();
            out
        };
        chunks.iter().enumerate().map(seal).collect()
    }

    fn opened(key: &ArchiveKey, header: [u8; 32], chunks: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, SealError> {
        let mut opener = ArchiveOpener::new(key, header);
        let open = |(place, sealed): (usize, &Vec<u8>)| {
            let mut out = Vec::new();
            opener.open(place + 1 == chunks.len(), sealed, &mut out).map(|()| out)
        };
        chunks.iter().enumerate().map(open).collect()
    }

    #[test]
    fn chunks_open_in_their_order_under_their_header_only() {
        let key = ArchiveKey::generate(&SimEntropy::new(1));
        let plain: [&[u8]; 3] = [b"first", b"", b"third"];
        let chunks = sealed(&key, &plain);
        assert_eq!(opened(&key, HEADER, &chunks).unwrap(), plain);
        let refused = |what: &str, header: [u8; 32], chunks: Vec<Vec<u8>>| {
            assert!(opened(&key, header, &chunks).is_err(), "{what}");
        };
        refused("another header", [8; 32], chunks.clone());
        refused("the end cut off", HEADER, chunks[..2].to_vec());
        refused("the beginning cut off", HEADER, chunks[1..].to_vec());
        refused("exchanged", HEADER, vec![chunks[1].clone(), chunks[0].clone(), chunks[2].clone()]);
        refused("repeated", HEADER, [&chunks[..1], &chunks[..]].concat());
        for place in 0..chunks[0].len() {
            let mut changed = chunks.clone();
            changed[0][place] ^= 1;
            assert!(matches!(opened(&key, HEADER, &changed), Err(SealError::NotAuthentic { subject: Subject::ArchiveChunk(0) })));
        }
        assert!(opened(&ArchiveKey::generate(&SimEntropy::new(2)), HEADER, &chunks).is_err());
    }

    #[test]
    fn chunk_behind_the_last_is_never_sealed() {
        let mut sealer = ArchiveSealer::new(&ArchiveKey::generate(&SimEntropy::new(1)), HEADER);
        let mut out = Vec::new();
        sealer.seal(true, b"all", &mut out).unwrap();
        assert!(sealer.seal(true, b"more", &mut out).is_err());
    }

    #[test]
    fn archive_key_opens_for_its_recipient_and_archive_only() {
        let entropy = SimEntropy::new(3);
        let (pair, other) = (NodeKeyPair::generate(&entropy).unwrap(), NodeKeyPair::generate(&entropy).unwrap());
        let (cluster, archive, node) = (ClusterId::from_bytes([1; 16]), [2; 16], NodeId::new(4));
        let key = ArchiveKey::generate(&entropy);
        let sealed = seal_archive_key(&entropy, cluster, archive, node, pair.public(), &key).unwrap();
        assert_eq!(sealed.len(), ARCHIVE_ENVELOPE_BYTES);
        assert!(open_archive_key(cluster, archive, node, &pair, &sealed).unwrap() == key);
        assert!(open_archive_key(cluster, archive, node, &other, &sealed).is_err());
        assert!(open_archive_key(cluster, archive, NodeId::new(5), &pair, &sealed).is_err());
        assert!(open_archive_key(cluster, archive, Recipient::Recovery, &pair, &sealed).is_err());
        assert!(open_archive_key(cluster, [3; 16], node, &pair, &sealed).is_err());
        assert!(open_archive_key(ClusterId::from_bytes([9; 16]), archive, node, &pair, &sealed).is_err());
        let mut newer = sealed;
        newer[0] = 2;
        assert!(matches!(open_archive_key(cluster, archive, node, &pair, &newer), Err(SealError::NewerFormat { .. })));
    }
}
