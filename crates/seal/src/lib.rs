//! Envelope encryption: a root key wraps KEK epochs, these wrap data keys, and a key derived from a data key seals each value.
//!
//! ```text
//! root (RootProvider)  wraps  KEK epochs  wrap  DEKs (per account)  derive  a key per value, which seals it
//! ```
//!
//! A process holds its unlocked epochs in one [`KeyRing`]. An epoch comes into it from a [`RootProvider`] (control) or from an
//! HPKE envelope opened with the node's [`NodeKeyPair`] (edges), and is installed only when it matches the commitment in the
//! chain. The ring unwraps DEKs, keeps a bounded number of them ready, and seals and opens values. [`OperatorToken`],
//! [`ConsumerToken`] and [`JoinToken`] are the secrets that people, services and nodes present; [`RecoveryKey`] is what operators keep
//! offline for the day on which every control node is lost.
//!
//! **Invariants**
//! 1. Whatever is sealed or wrapped is bound to its whole context ([`ValueContext`], [`KekName`], [`DekName`]); a change of any
//!    field, or of any byte, fails to open.
//! 2. A value's context never holds the KEK epoch: rotating a KEK rewraps DEKs and touches no value.
//! 3. Keys, plaintexts and tokens own their bytes, are wiped on drop, and have neither Debug, Display, Clone nor Serialize.
//! 4. No error holds a byte of any of them.
//! 5. Every format begins with its number, and a newer one than known is refused by that name. Fixtures in `tests` hold them.
//!
//! **Concurrency**: everything is synchronous, and [`KeyRing`] may be shared between threads. Opening a small value takes about a
//! microsecond; an envelope takes about a hundred, and a device may take milliseconds: keep those off the async threads.
//!
//! **Left out**: which epoch is active and how often a DEK was used (`state`), devices (`hsm`), transport.

mod archive;
mod authority;
mod cache;
mod cipher;
mod context;
mod deks;
mod envelope;
mod error;
mod file_root;
mod keks;
mod keys;
mod recovery;
mod ring;
mod root;
mod token;
mod value;

pub use archive::{ARCHIVE_CHUNK_EXTRA_BYTES, ARCHIVE_ENVELOPE_BYTES, ArchiveOpener, ArchiveSealer, open_archive_key, seal_archive_key};
pub use authority::{open_authority, seal_authority};
pub use context::{DekName, KekName, Recipient, ValueContext};
pub use deks::{DekWrap, WRAPPED_DEK_BYTES, WrappedDek};
pub use envelope::{ENVELOPE_BYTES, NODE_KEY_FILE_BYTES, NODE_PUBLIC_KEY_BYTES, NodeKeyPair, NodePublicKey, open_envelope, seal_envelope};
pub use error::{SealError, Subject};
pub use file_root::FileRoot;
pub use keks::commitment;
pub use keys::{ArchiveKey, Dek, KEY_BYTES, Kek, Plaintext, RootKey};
pub use recovery::{RecoveryKey, RecoveryPublicKey};
pub use ring::{KeyRing, MintedDek, UNKEYED, fingerprint_epoch, unkeyed_fingerprint};
pub use root::{RootProvider, WRAPPED_KEK_BYTES, WrappedKek};
pub use token::{ConsumerToken, JoinToken, OperatorToken, TokenText};
pub use value::{open_value, seal_value};

#[cfg(test)]
mod hex {
    /// Hex digits as the standards print them.
    pub(crate) fn bytes(digits: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(digit).collect()
    }
}
