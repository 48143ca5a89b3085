//! Plain values that every crate speaks in: ids, names, numbers, positions, scopes and the container of a sealed value.
//!
//! Everything here is parsed once, at the rim, by a checked constructor, and trusted afterwards.
//!
//! **Invariants**
//! 1. A value of a type in this crate satisfies that type's bounds: no constructor, `FromStr` or `Deserialize` skips the check.
//! 2. Nothing here holds a plaintext or a key, so everything may be printed.
//!
//! **Left out**: formats of records and commands (`state`), encryption (`seal`), the wire (`wire`).

mod consumer;
mod ids;
pub mod mutation;
mod names;
mod numbers;
mod scope;
mod sealed;

pub use consumer::{ConsumerKind, ConsumerRef, ParseConsumerError};
pub use ids::{AccountId, ClusterId, DekId, Hash, NodeId, ParseIdError, RequestId, RootKeyId, SecretId, StoreId, TokenId, ValueId};
pub use names::{AccountName, BindingName, Comment, ConsumerName, KeyDomain, NameError, NodeName, PrincipalName, SecretName, StoreName};
pub use numbers::{ChainId, FeatureLevel, Generation, KekEpoch, LogIndex, ParsePositionError, Position, Revision, UnixMillis, Version};
pub use scope::{ParseScopeError, Scope, ScopeSet};
pub use sealed::{SealedFormatError, SealedValue, VALUE_BYTES_MAX};
