//! Tokens: the random secrets by which operators, consumers and joining nodes prove who they are.
//!
//! ```text
//! operator  "cbo_" and 56 characters: base32 of 32 random bytes and 3 bytes of checksum
//! consumer  "cbc_" and 56 characters: the same
//! join      "cbj_" and 184 characters: base32 of 32 random bytes, the 16-byte id of the cluster, the 32-byte fingerprint of its
//!           CA (SHA-256 of the certificate's SubjectPublicKeyInfo), the 32-byte hash of the first signer set, and 3 bytes of
//!           checksum
//! recovery  "cbr_" and 56 characters: as an operator's
//! ```
//!
//! Base32 is that of RFC 4648 in lower letters (`a` to `z`, `2` to `7`); the lengths leave no spare bits and no padding, so each
//! token has one text. The checksum is the first bytes of SHA-256 over the labelled prefix and payload: it tells a mistyped
//! token before anybody is asked, and lets scanners tell a token from noise.
//!
//! **Invariants**
//! 1. What is stored is [`OperatorToken::hash`]: SHA-256 over (label "cinnabar token hash", prefix, the 32 random bytes), each
//!    preceded by its length as two bytes, big-endian. 256 random bits need no slow hash.
//! 2. A token and its text are wiped on drop and cannot be printed; errors name places, never characters.

use seams::Entropy;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use types::{ClusterId, Hash};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::SealError;

const SECRET_BYTES: usize = 32;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What the kinds of token differ in.
pub(crate) struct Kind {
    /// In messages, with its article.
    what: &'static str,
    pub(crate) prefix: &'static str,
    /// Payload and checksum together are a multiple of five bytes, so that base32 fits exactly.
    payload: usize,
    checksum: usize,
}

const OPERATOR: Kind = Kind { what: "an operator token", prefix: "cbo_", payload: SECRET_BYTES, checksum: 3 };
const CONSUMER: Kind = Kind { what: "a consumer token", prefix: "cbc_", payload: SECRET_BYTES, checksum: 3 };
const JOIN: Kind = Kind { what: "a join token", prefix: "cbj_", payload: JOIN_BYTES, checksum: 3 };
pub(crate) const RECOVERY: Kind = Kind { what: "a recovery key", prefix: "cbr_", payload: SECRET_BYTES, checksum: 3 };

/// Secret, cluster, CA, signers.
const JOIN_BYTES: usize = SECRET_BYTES + 16 + 32 + 32;
const CLUSTER_AT: usize = SECRET_BYTES;
const CA_AT: usize = CLUSTER_AT + 16;
const SIGNERS_AT: usize = CA_AT + 32;

/// The text of a token, to be shown once. Wiped on drop.
pub struct TokenText(String);

impl TokenText {
    /// The text. Whoever copies it wipes the copy.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for TokenText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for TokenText {}

/// The random part, which alone is secret.
struct Secret(Box<[u8; SECRET_BYTES]>);

impl Secret {
    fn generate(entropy: &dyn Entropy) -> Self {
        let mut secret = Self(Box::new([0; SECRET_BYTES]));
        entropy.fill(&mut secret.0[..]);
        secret
    }

    fn copy_of(bytes: &[u8]) -> Self {
        let mut secret = Self(Box::new([0; SECRET_BYTES]));
        secret.0.copy_from_slice(bytes);
        secret
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        pub struct $name(Secret);

        impl $name {
            /// How the text of every such token starts.
            pub const PREFIX: &str = $kind.prefix;

            /// A fresh random token.
            pub fn generate(entropy: &dyn Entropy) -> Self {
                Self(Secret::generate(entropy))
            }

            /// Reads a token's text. Spaces around it are the caller's to remove.
            ///
            /// # Errors
            /// [`SealError::TokenPrefix`], [`SealError::TokenLength`], [`SealError::TokenCharacter`],
            /// [`SealError::TokenChecksum`].
            pub fn parse(text: &str) -> Result<Self, SealError> {
                Ok(Self(Secret::copy_of(&$kind.decode(text)?[..SECRET_BYTES])))
            }

            /// The text, as laid out at the head of this module.
            pub fn text(&self) -> TokenText {
                $kind.encode(&self.0.0[..])
            }

            /// What is stored and looked up in place of the token.
            pub fn hash(&self) -> [u8; 32] {
                $kind.hash(&self.0)
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> Choice {
                self.0.0.as_slice().ct_eq(other.0.0.as_slice())
            }
        }
    };
}

token!(
    /// What a person or pipeline presents to the control plane's APIs.
    OperatorToken, OPERATOR);
token!(
    /// What a service presents to the edge beside it.
    ConsumerToken, CONSUMER);

/// What a new node presents to join, and by which it knows the cluster that it joins.
pub struct JoinToken {
    secret: Secret,
    cluster: ClusterId,
    ca: Hash,
    signers: Hash,
}

impl JoinToken {
    /// How the text of every such token starts.
    pub const PREFIX: &str = JOIN.prefix;

    /// A fresh token for a cluster. `ca`: SHA-256 of the SubjectPublicKeyInfo of its CA's certificate, DER. `signers`: the hash of its
    /// first signer set.
    pub fn generate(entropy: &dyn Entropy, cluster: ClusterId, ca: Hash, signers: Hash) -> Self {
        Self { secret: Secret::generate(entropy), cluster, ca, signers }
    }

    /// Reads a token's text. Spaces around it are the caller's to remove.
    ///
    /// # Errors
    /// [`SealError::TokenPrefix`], [`SealError::TokenLength`], [`SealError::TokenCharacter`], [`SealError::TokenChecksum`].
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let payload = JOIN.decode(text)?;
        let hash = |at: usize| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&payload[at..at + 32]);
            Hash::from_bytes(bytes)
        };
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&payload[CLUSTER_AT..CA_AT]);
        let secret = Secret::copy_of(&payload[..SECRET_BYTES]);
        Ok(Self { secret, cluster: ClusterId::from_bytes(cluster), ca: hash(CA_AT), signers: hash(SIGNERS_AT) })
    }

    /// The text, as laid out at the head of this module.
    pub fn text(&self) -> TokenText {
        let mut payload = Zeroizing::new([0; JOIN_BYTES]);
        payload[..SECRET_BYTES].copy_from_slice(&self.secret.0[..]);
        payload[CLUSTER_AT..CA_AT].copy_from_slice(self.cluster.as_bytes());
        payload[CA_AT..SIGNERS_AT].copy_from_slice(self.ca.as_bytes());
        payload[SIGNERS_AT..].copy_from_slice(self.signers.as_bytes());
        JOIN.encode(&payload[..])
    }

    /// What is stored and looked up in place of the token; over the random bytes, not over the hashes.
    pub fn hash(&self) -> [u8; 32] {
        JOIN.hash(&self.secret)
    }

    /// The hash of a token of which only the secret part is there: what a node shows of it when it joins. None for another length.
    pub fn hash_of_secret(secret: &[u8]) -> Option<[u8; 32]> {
        (secret.len() == SECRET_BYTES).then(|| JOIN.hash(&Secret::copy_of(secret)))
    }

    /// The secret part, which the node sends to join. Whoever copies it wipes the copy.
    pub fn expose_secret(&self) -> &[u8; 32] {
        &self.secret.0
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The fingerprint of the CA that the control plane must show: SHA-256 of its certificate's SubjectPublicKeyInfo.
    pub fn ca(&self) -> Hash {
        self.ca
    }

    /// The hash of the first signer set, which the node pins.
    pub fn signers(&self) -> Hash {
        self.signers
    }
}

impl ConstantTimeEq for JoinToken {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.secret.0.as_slice().ct_eq(other.secret.0.as_slice())
            & self.cluster.as_bytes().ct_eq(other.cluster.as_bytes())
            & self.ca.as_bytes().ct_eq(other.ca.as_bytes())
            & self.signers.as_bytes().ct_eq(other.signers.as_bytes())
    }
}

impl Kind {
    const fn text_bytes(&self) -> usize {
        self.prefix.len() + (self.payload + self.checksum) / 5 * 8
    }

    pub(crate) fn encode(&self, payload: &[u8]) -> TokenText {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.payload + self.checksum));
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&self.sum(payload)[..self.checksum]);
        let mut text = String::with_capacity(self.text_bytes());
        text.push_str(self.prefix);
        for block in bytes.chunks_exact(5) {
            let bits = Zeroizing::new(block.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)));
            for place in (0..8).rev() {
                text.push(char::from(ALPHABET[(*bits >> (5 * place)) as usize & 31]));
            }
        }
        TokenText(text)
    }

    pub(crate) fn decode(&self, text: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let what = self.what;
        let digits = text.strip_prefix(self.prefix).ok_or(SealError::TokenPrefix { what, prefix: self.prefix })?.as_bytes();
        if text.len() != self.text_bytes() {
            return Err(SealError::TokenLength { what, got: text.len(), wanted: self.text_bytes() });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.payload + self.checksum));
        for (block_at, block) in digits.chunks_exact(8).enumerate() {
            let mut bits = Zeroizing::new(0u64);
            for (at, digit) in block.iter().enumerate() {
                let place = self.prefix.len() + 8 * block_at + at + 1;
                *bits = *bits << 5 | digit_value(*digit).ok_or(SealError::TokenCharacter { what, place })?;
            }
            let block = Zeroizing::new(bits.to_be_bytes());
            bytes.extend_from_slice(&block[3..]);
        }
        let (payload, sum) = bytes.split_at(self.payload);
        if !bool::from(self.sum(payload)[..self.checksum].ct_eq(sum)) {
            return Err(SealError::TokenChecksum { what });
        }
        bytes.truncate(self.payload);
        Ok(bytes)
    }

    fn sum(&self, payload: &[u8]) -> [u8; 32] {
        labelled("cinnabar token checksum", self.prefix, payload)
    }

    fn hash(&self, secret: &Secret) -> [u8; 32] {
        labelled("cinnabar token hash", self.prefix, &secret.0[..])
    }
}

fn labelled(label: &str, prefix: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for field in [label.as_bytes(), prefix.as_bytes(), bytes] {
        // No field here is longer than 112 bytes.
        hasher.update((field.len() as u16).to_be_bytes());
        hasher.update(field);
    }
    hasher.finalize().into()
}

fn digit_value(digit: u8) -> Option<u64> {
    match digit {
        b'a'..=b'z' => Some(u64::from(digit - b'a')),
        b'2'..=b'7' => Some(u64::from(digit - b'2') + 26),
        _ => None,
    }
}
