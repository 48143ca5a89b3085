//! Envelopes of the certificate authority's key: one for each control node, and one for the offline recovery key.
//!
//! The bytes are those of [`seal_envelope`](crate::seal_envelope), with the private key as PKCS#8 (RFC 5958) in the place of the KEK.
//! The label in HPKE's info is another, so neither opens as the other. Anyone can make an envelope: what is opened counts once its
//! public half is that of the authority's certificate.

use seams::Entropy;
use types::ClusterId;

use crate::{ENVELOPE_BYTES, KEY_BYTES, NodeKeyPair, NodePublicKey, Plaintext, Recipient, SealError, Subject, context::Labelled, envelope};

const FORMAT: u8 = 1;
/// The longest private key: one of P-256 takes 138 bytes. An envelope of this length still fits a record of the state.
const PKCS8_BYTES_MAX: usize = 1024;

/// HPKE's info: format, cluster, recipient.
fn info(cluster: ClusterId, recipient: Recipient) -> Labelled {
    let mut labelled = Labelled::new("cinnabar authority key");
    labelled.field(&[FORMAT]).field(cluster.as_bytes()).field(&recipient.bytes());
    labelled
}

/// Seals the private key of a cluster's certificate authority for one who may issue certificates.
///
/// # Errors
/// [`SealError::TooLong`] above 1,024 bytes; [`SealError::Defect`].
pub fn seal_authority(
    entropy: &dyn Entropy,
    cluster: ClusterId,
    recipient: impl Into<Recipient>,
    to: &NodePublicKey,
    pkcs8: &[u8],
) -> Result<Vec<u8>, SealError> {
    if pkcs8.len() > PKCS8_BYTES_MAX {
        return Err(SealError::TooLong { got: pkcs8.len(), max: PKCS8_BYTES_MAX });
    }
    envelope::seal_bytes(entropy, &info(cluster, recipient.into()), to, pkcs8)
}

/// Opens what [`seal_authority`] made: the private key as PKCS#8.
///
/// # Errors
/// [`SealError::NotAuthentic`] when it was changed or is for another cluster, recipient or key pair; [`SealError::NewerFormat`],
/// [`SealError::UnknownAlgorithm`], [`SealError::Damaged`].
pub fn open_authority(
    cluster: ClusterId,
    recipient: impl Into<Recipient>,
    with: &NodeKeyPair,
    sealed: &[u8],
) -> Result<Plaintext, SealError> {
    // Of a length that cannot be, the check of the format tells.
    let length = sealed.len().saturating_sub(ENVELOPE_BYTES - KEY_BYTES).min(PKCS8_BYTES_MAX);
    let mut pkcs8 = Plaintext::zeroed(length);
    envelope::open_bytes(&|| Subject::AuthorityKey, &info(cluster, recipient.into()), with, sealed, pkcs8.expose_mut())?;
    Ok(pkcs8)
}
