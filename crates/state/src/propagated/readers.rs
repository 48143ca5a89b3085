//! Typed reads of propagated records.

use types::{
    AccountId, BindingName, ConsumerRef, DekId, Generation, KekEpoch, KeyDomain, NodeId, SecretId, SecretName, StoreId, StoreName, ValueId,
};

use super::Propagated;
use crate::{
    Content, FormatError, Key, Prefix, TypedKey, Unreadable,
    format::{self, Stored},
    record::{
        AccountRecord, BindingRecord, ConsumerRecord, ConsumerTokenRecord, DekRecord, GenerationRecord, KekEpochRecord, KekState,
        NodeRecord, RecoveryRecord, SecretRecord, SettingsRecord, SignerSetRecord, StoreRecord, TrustRecord, ValueRecord,
    },
};

/// A record that is there but cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It does not decode: damage that the state root did not catch, or a newer format.
    #[error("the record under {key:?} does not decode")]
    Format {
        /// Where it lies.
        key: Key,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// Its bytes lie elsewhere and cannot be had now.
    #[error("the bytes of the record under {key:?} cannot be read")]
    Unreadable {
        /// Where it lies.
        key: Key,
        /// Why.
        #[source]
        source: Unreadable,
    },
}

/// Decodes the stored bytes under a key.
pub(crate) fn read<T: Stored>(key: &Key, stored: Option<&bytes::Bytes>) -> Result<Option<T>, ReadError> {
    stored.map(|bytes| decode(key, bytes)).transpose()
}

pub(crate) fn decode<T: Stored>(key: &Key, bytes: &[u8]) -> Result<T, ReadError> {
    format::decode(T::WHAT, T::FORMAT, bytes).map_err(|source| ReadError::Format { key: key.clone(), source })
}

/// Decodes a record, wherever its bytes lie.
pub(crate) fn decode_content<T: Stored>(key: &Key, content: &Content) -> Result<T, ReadError> {
    match content {
        Content::Inline(bytes) => decode(key, bytes),
        Content::Large(large) => decode(key, &large.read(key).map_err(|source| ReadError::Unreadable { key: key.clone(), source })?),
    }
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $record:ty = $key:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`ReadError`] if the record cannot be read.
            pub fn $name(&self, $($arg: $type),*) -> Result<Option<$record>, ReadError> {
                self.read($key)
            }
        )*
    };
}

impl Propagated {
    fn read<T: Stored>(&self, key: TypedKey) -> Result<Option<T>, ReadError> {
        let key = key.encode();
        self.read_key(&key)
    }

    fn read_key<T: Stored>(&self, key: &Key) -> Result<Option<T>, ReadError> {
        self.get(key).map(|content| decode_content(key, content)).transpose()
    }

    /// A consumer.
    ///
    /// # Errors
    /// [`ReadError`] if the record cannot be read.
    pub fn consumer(&self, consumer: &ConsumerRef) -> Result<Option<ConsumerRecord>, ReadError> {
        self.read_key(&TypedKey::consumer(consumer))
    }

    /// What a name of a consumer is bound to.
    ///
    /// # Errors
    /// [`ReadError`] if the record cannot be read.
    pub fn binding(&self, consumer: &ConsumerRef, name: &BindingName) -> Result<Option<BindingRecord>, ReadError> {
        self.read_key(&TypedKey::binding(consumer, name))
    }

    readers! {
        /// The cluster's settings; none in an empty state.
        settings() -> SettingsRecord = TypedKey::Settings;
        /// The certificate authorities that nodes believe; none before the first was replaced: then it is the one they joined by.
        trust() -> TrustRecord = TypedKey::Trust;
        /// The public halves of the offline recovery key; none when the cluster has none.
        recovery() -> RecoveryRecord = TypedKey::Recovery;
        /// What began a generation.
        generation_begun(generation: Generation) -> GenerationRecord = TypedKey::Generation { generation };
        /// A signer set by its version.
        signer_set_of(version: u32) -> SignerSetRecord = TypedKey::SignerSet { version };
        /// A node, revoked or not.
        node(node: NodeId) -> NodeRecord = TypedKey::Node { node };
        /// A KEK epoch.
        kek_epoch(domain: &KeyDomain, epoch: KekEpoch) -> KekEpochRecord = TypedKey::KekEpoch { domain: domain.clone(), epoch };
        /// An account.
        account(account: AccountId) -> AccountRecord = TypedKey::Account { account };
        /// A wrapped data key.
        dek(account: AccountId, dek: DekId) -> DekRecord = TypedKey::Dek { account, dek };
        /// A sealed value. One that lies elsewhere is read from there, which may block for a disk: see [`Propagated::value_is_large`].
        value(secret: SecretId, value: ValueId) -> ValueRecord = TypedKey::Value { secret, value };
        /// A consumer's token, by its SHA-256; expired or not.
        consumer_by_token(hash: [u8; 32]) -> ConsumerTokenRecord = TypedKey::ConsumerToken { hash };
        /// A store, marked as deleting or not.
        store_even_deleting(store: StoreId) -> StoreRecord = TypedKey::Store { store };
        /// A secret, marked as deleting or not, in a store that may be so too.
        secret_even_deleting(store: StoreId, secret: SecretId) -> SecretRecord = TypedKey::Secret { store, secret };
        /// The id of a store by name.
        store_id(account: AccountId, name: &StoreName) -> StoreId = TypedKey::StoreName { account, name: name.clone() };
        /// The id of a secret by name; holds also while the store is being deleted.
        secret_id(store: StoreId, name: &SecretName) -> SecretId = TypedKey::SecretName { store, name: name.clone() };
    }

    /// A sealed value that is in memory; none for one that lies elsewhere too.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn value_inline(&self, secret: SecretId, value: ValueId) -> Result<Option<ValueRecord>, ReadError> {
        let key = TypedKey::Value { secret, value }.encode();
        read(&key, self.get(&key).and_then(Content::inline))
    }

    /// Whether reading this value may block for a disk.
    pub fn value_is_large(&self, secret: SecretId, value: ValueId) -> bool {
        matches!(self.get(&TypedKey::Value { secret, value }.encode()), Some(Content::Large(_)))
    }

    /// The signer set in force; none in an empty state.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn signer_set(&self) -> Result<Option<SignerSetRecord>, ReadError> {
        match self.settings()? {
            Some(settings) => self.signer_set_of(settings.signer_set),
            None => Ok(None),
        }
    }

    /// The Ed25519 key by which `signer` signs now: a member of the set in force, and not revoked as a node.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn signer_key(&self, signer: NodeId) -> Result<Option<[u8; 32]>, ReadError> {
        let key = self.signer_set()?.and_then(|set| set.key_of(signer).copied());
        match self.node(signer)? {
            Some(node) if node.revoked.is_none() => Ok(key),
            _ => Ok(None),
        }
    }

    /// The KEK epoch of a domain that new data keys are wrapped under.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn active_kek_epoch(&self, domain: &KeyDomain) -> Result<Option<KekEpochRecord>, ReadError> {
        for (key, content) in self.scan(&Prefix::kek_epochs(domain)) {
            let epoch: KekEpochRecord = decode_content(key, content)?;
            if epoch.state == KekState::Active {
                return Ok(Some(epoch));
            }
        }
        Ok(None)
    }

    /// A store that is there and is not being deleted.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode.
    pub fn store(&self, store: StoreId) -> Result<Option<StoreRecord>, ReadError> {
        Ok(self.store_even_deleting(store)?.filter(|record| !record.deleting))
    }

    /// A store by its name in an account, with its id.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn store_by_name(&self, account: AccountId, name: &StoreName) -> Result<Option<(StoreId, StoreRecord)>, ReadError> {
        match self.store_id(account, name)? {
            Some(store) => Ok(self.store(store)?.map(|record| (store, record))),
            None => Ok(None),
        }
    }

    /// A secret that is there, in a store that is there, and that is not being deleted with or without its store.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn secret(&self, store: StoreId, secret: SecretId) -> Result<Option<SecretRecord>, ReadError> {
        match self.store(store)? {
            Some(_) => Ok(self.secret_even_deleting(store, secret)?.filter(|record| !record.deleting)),
            None => Ok(None),
        }
    }

    /// A secret by its name in a store, with its id.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn secret_by_name(&self, store: StoreId, name: &SecretName) -> Result<Option<(SecretId, SecretRecord)>, ReadError> {
        match self.secret_id(store, name)? {
            Some(secret) => Ok(self.secret(store, secret)?.map(|record| (secret, record))),
            None => Ok(None),
        }
    }
}
