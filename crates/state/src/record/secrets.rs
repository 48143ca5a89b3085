//! Accounts, stores, secrets and their sealed values.

use serde::{Deserialize, Serialize};
use types::{
    AccountId, AccountName, Comment, DekId, KeyDomain, ScopeSet, SealedValue, SecretId, SecretName, StoreId, StoreName, UnixMillis,
    ValueId, Version,
};

use crate::format::stored;

/// An account, under its id. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// For people; need not be unique.
    pub name: AccountName,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// The data key that new values must be sealed under; none before the first value.
    pub current_dek: Option<DekId>,
    /// The data key before that, for sealers that have not heard yet.
    pub previous_dek: Option<PreviousDek>,
}
stored!(AccountRecord, "an account record");

/// A replaced data key that is still accepted for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousDek {
    /// The key.
    pub dek: DekId,
    /// The first moment of log time at which it is refused.
    pub until: UnixMillis,
}

/// A store, under its id. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// Whose it is.
    pub account: AccountId,
    /// Unique in the account.
    pub name: StoreName,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// When it or a secret in it was last made or removed, in log time.
    pub modified: UnixMillis,
    /// The marker of a cascading delete: readers treat the store and all in it as gone; background steps clear it away.
    pub deleting: bool,
}
stored!(StoreRecord, "a store record");

/// A secret, under its store and id. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Whose it is.
    pub account: AccountId,
    /// Which store it is in.
    pub store: StoreId,
    /// Unique in the store, immutable.
    pub name: SecretName,
    /// Where it may be used; never empty.
    pub scopes: ScopeSet,
    /// Free text.
    pub comment: Comment,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// When anything in this record last changed, in log time.
    pub modified: UnixMillis,
    /// The versions that are kept, by rising number; at most [`VERSIONS_MAX`](crate::limits::VERSIONS_MAX).
    #[serde(with = "crate::packed::versions")]
    pub versions: Vec<VersionEntry>,
    /// The highest number ever given, whether or not that version is kept.
    pub newest: Version,
    /// The version that lookups get.
    pub current: Version,
    /// The version that was current before; where revert goes.
    pub previous: Option<Version>,
    /// A staged version that promote makes current.
    pub candidate: Option<Version>,
    /// The marker of a cascading delete: readers treat it as gone.
    pub deleting: bool,
}
stored!(SecretRecord, "a secret record");

impl SecretRecord {
    /// The entry of a version that is kept.
    pub fn version(&self, version: Version) -> Option<&VersionEntry> {
        self.versions.binary_search_by_key(&version, |entry| entry.version).ok().and_then(|place| self.versions.get(place))
    }

    /// The entry of the current version; none only in a damaged record.
    pub fn current_entry(&self) -> Option<&VersionEntry> {
        self.version(self.current)
    }
}

/// One version of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionEntry {
    /// Its number, given by apply, never reused.
    pub version: Version,
    /// Where its sealed value lies.
    pub value_id: ValueId,
    /// When it was made, in log time; a reseal does not change it.
    pub created: UnixMillis,
}

/// One sealed value, under its secret and value id. Propagated, immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueRecord {
    /// Whose value it is.
    pub secret: SecretId,
    /// The data key that it is sealed under.
    pub dek: DekId,
    /// The key domain of that key.
    pub domain: KeyDomain,
    /// The sealed bytes.
    #[serde(with = "crate::packed::sealed")]
    pub sealed: SealedValue,
}
stored!(ValueRecord, "a value record");
