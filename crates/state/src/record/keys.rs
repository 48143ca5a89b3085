//! Key-encryption keys, their envelopes, and wrapped data keys: public parts and ciphertext only.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{AccountId, DekId, KekEpoch, KeyDomain, UnixMillis};

use crate::format::stored;

/// The life of a KEK epoch, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KekState {
    /// Made known; nodes fetch their envelopes. Nothing is wrapped under it yet.
    Announced,
    /// New data keys are wrapped under it. One epoch of a domain is active.
    Active,
    /// Nothing new is wrapped under it; what is, still opens.
    Retired,
    /// Gone: a node drops the key when it applies this.
    Destroyed,
}

/// The public part of a KEK epoch, under its domain and number. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekEpochRecord {
    /// The key domain.
    pub domain: KeyDomain,
    /// The epoch's number, from 1.
    pub n: KekEpoch,
    /// What an opened key must match.
    pub commitment: [u8; 32],
    /// Where it is in its life.
    pub state: KekState,
    /// When it was announced, in log time.
    pub created: UnixMillis,
}
stored!(KekEpochRecord, "a KEK epoch record");

/// A data key wrapped under a KEK epoch; the bytes are opaque here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedDek {
    /// The key domain of the epoch.
    pub domain: KeyDomain,
    /// The epoch that wraps it.
    pub epoch: KekEpoch,
    /// The wrapped key.
    #[serde(with = "crate::packed::vec")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for WrappedDek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedDek({} epoch {}, {} bytes)", self.domain, self.epoch, self.bytes.len())
    }
}

/// Whether new values may be sealed under a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DekState {
    /// The current key of its account, or the one before.
    Active,
    /// Opens old values only.
    Retired,
}

/// A wrapped data key, under its account and id. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DekRecord {
    /// Whose values it seals.
    pub account: AccountId,
    /// Its id.
    pub id: DekId,
    /// One wrap per key domain.
    pub wraps: Vec<WrappedDek>,
    /// When it was minted, in log time.
    pub created: UnixMillis,
    /// Whether it is still in use for sealing.
    pub state: DekState,
    /// The era of keys in which it was minted. A node's revocation begins a new era, and keys of older ones seal nothing more.
    pub era: u32,
}
stored!(DekRecord, "a data key record");

impl DekRecord {
    /// The wrap for a domain.
    pub fn wrap(&self, domain: &KeyDomain) -> Option<&WrappedDek> {
        self.wraps.iter().find(|wrap| wrap.domain == *domain)
    }
}

/// A KEK epoch's key, sealed for one recipient. Control only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeRecord {
    /// The envelope; opaque here.
    #[serde(with = "crate::packed::vec")]
    pub bytes: Vec<u8>,
}
stored!(EnvelopeRecord, "an envelope record");

impl fmt::Debug for EnvelopeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeRecord({} bytes)", self.bytes.len())
    }
}
