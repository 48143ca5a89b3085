//! Consumers, their tokens and their bindings.

use serde::{Deserialize, Serialize};
use types::{ConsumerRef, SecretId, SecretName, StoreId, StoreName, TokenId, UnixMillis};

use super::BoundTo;
use crate::format::stored;

/// A consumer, under its account, kind and name. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerRecord {
    /// When it was made, in log time.
    pub created: UnixMillis,
}
stored!(ConsumerRecord, "a consumer record");

/// A consumer's token, under the SHA-256 of the token. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerTokenRecord {
    /// Who it stands for.
    pub consumer: ConsumerRef,
    /// Its public id.
    pub token_id: TokenId,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// The first moment at which it is refused; none means never.
    pub expires: Option<UnixMillis>,
}
stored!(ConsumerTokenRecord, "a consumer token record");

/// What a binding leads to: the id that the name had when the binding was made, and that name, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindingTarget {
    /// One secret.
    Secret {
        /// Its store.
        store: StoreId,
        /// Its id. Deleting the secret and making another of the same name does not revive the binding.
        secret: SecretId,
        /// Its name.
        name: SecretName,
    },
    /// All secrets of a store, by their names.
    Store {
        /// Its id.
        store: StoreId,
        /// Its name.
        name: StoreName,
    },
}

impl BindingTarget {
    /// The store that it leads to, or into.
    pub const fn store(&self) -> StoreId {
        match self {
            Self::Secret { store, .. } | Self::Store { store, .. } => *store,
        }
    }

    /// The target's id.
    pub const fn bound_to(&self) -> BoundTo {
        match self {
            Self::Secret { secret, .. } => BoundTo::Secret(*secret),
            Self::Store { store, .. } => BoundTo::Store(*store),
        }
    }
}

/// A binding, under its consumer and name. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRecord {
    /// What the consumer reads under the name.
    pub target: BindingTarget,
    /// When it was made, in log time.
    pub created: UnixMillis,
}
stored!(BindingRecord, "a binding record");
