//! The offline recovery key: what brings a cluster back whose control nodes are all lost.
//!
//! Every KEK epoch, and the key of the certificate authority, are also sealed to it; and only a statement that it signed lets an edge
//! take the chain of a new generation. It is shown once, when the cluster is founded, and kept by people.
//!
//! ```text
//! text         "cbr_" and 56 characters, as laid out in `token`: base32 of a 32-byte seed and 3 bytes of checksum
//! signing key  Ed25519 (RFC 8032), seed = HKDF-SHA256(salt "cinnabar recovery", seed, info "signing"), 32 bytes
//! opening key  X-Wing, seed = HKDF-SHA256(salt "cinnabar recovery", seed, info "opening"), 32 bytes
//! ```
//!
//! **Invariants**
//! 1. Seed and derived keys are wiped on drop and cannot be printed.

use ed25519_dalek::Signer as _;
use seams::Entropy;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{NodeKeyPair, NodePublicKey, SealError, TokenText, cipher::Prk, token::RECOVERY};

const SEED_BYTES: usize = 32;

/// The recovery key, both halves.
pub struct RecoveryKey {
    seed: Box<[u8; SEED_BYTES]>,
    signing: ed25519_dalek::SigningKey,
    opening: NodeKeyPair,
}

/// The recovery key's public halves, as the state carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPublicKey {
    /// The Ed25519 public key.
    pub signing: [u8; 32],
    /// The public key for envelopes.
    pub opening: NodePublicKey,
}

impl RecoveryKey {
    /// How the text of every recovery key starts.
    pub const PREFIX: &str = RECOVERY.prefix;

    /// A fresh key.
    ///
    /// # Errors
    /// [`SealError::Defect`] only.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SealError> {
        let mut seed = Box::new([0; SEED_BYTES]);
        entropy.fill(&mut seed[..]);
        Self::from_seed(seed)
    }

    /// Reads a key's text. Spaces around it are the caller's to remove.
    ///
    /// # Errors
    /// [`SealError::TokenPrefix`], [`SealError::TokenLength`], [`SealError::TokenCharacter`], [`SealError::TokenChecksum`].
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let payload = RECOVERY.decode(text)?;
        let mut seed = Box::new([0; SEED_BYTES]);
        seed.copy_from_slice(&payload[..SEED_BYTES]);
        Self::from_seed(seed)
    }

    fn from_seed(seed: Box<[u8; SEED_BYTES]>) -> Result<Self, SealError> {
        let prk = Prk::extract(b"cinnabar recovery", &seed[..]);
        let signing = ed25519_dalek::SigningKey::from_bytes(&*prk.expand(b"signing")?);
        let opening = NodeKeyPair::from_seed(&prk.expand(b"opening")?[..])?;
        Ok(Self { seed, signing, opening })
    }

    /// The text, to be shown once.
    pub fn text(&self) -> TokenText {
        RECOVERY.encode(&self.seed[..])
    }

    /// The public halves.
    pub fn public(&self) -> RecoveryPublicKey {
        RecoveryPublicKey { signing: self.signing.verifying_key().to_bytes(), opening: self.opening.public().clone() }
    }

    /// Signs a message, which the caller has labelled for its purpose: an Ed25519 signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The half that opens envelopes made for [`Recipient::Recovery`](crate::Recipient::Recovery).
    pub fn opening(&self) -> &NodeKeyPair {
        &self.opening
    }
}

impl Drop for RecoveryKey {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl ZeroizeOnDrop for RecoveryKey {}
