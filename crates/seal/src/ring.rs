//! The unlocked keys of a process.
//!
//! Epochs are installed from outside and dropped when the chain destroys them. DEKs are unwrapped when they are first needed and
//! kept ready in a bounded cache, since a lookup cannot afford to unwrap: what is kept is the extracted HKDF key, from which each
//! value's key is derived.
//!
//! **Invariants**
//! 1. An epoch is in the ring only if its KEK matched the commitment given.
//! 2. A cached DEK serves only calls that name the same domain, epoch, account and wrapped bytes: what a call returns never
//!    depends on what is cached.
//! 3. No cached DEK outlives its epoch in the ring: both go under one lock, and an entry is made only if the very epoch that
//!    unwrapped it is still there.
//!
//! **Concurrency**: any number of threads. One read-write lock, held to copy a reference and to change the maps, never while a
//! cipher works. A key that is removed is wiped when the last operation that already uses it has ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use seams::Entropy;
use sha2::{Digest, Sha256};
use types::{AccountId, ClusterId, DekId, Hash, KekEpoch, KeyDomain, SealedValue};

use crate::{
    Dek, DekName, DekWrap, Kek, KekName, NodeKeyPair, NodePublicKey, Plaintext, Recipient, RootProvider, SealError, ValueContext,
    WrappedDek, WrappedKek,
    cache::{CachedDek, DekCache},
    deks, envelope,
    keks::Epoch,
    value,
};

/// DEKs kept ready unless told otherwise, at about 700 bytes each: one for every account of a large cluster.
const CACHED_DEKS: usize = 4096;

/// A fresh DEK, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintedDek {
    /// Its random id.
    pub id: DekId,
    /// The epoch it is wrapped under.
    pub epoch: KekEpoch,
    /// The wrap.
    pub wrapped: WrappedDek,
}

/// The unlocked keys of a process. A locked one is empty.
pub struct KeyRing {
    cluster: ClusterId,
    keys: RwLock<Keys>,
}

struct Keys {
    epochs: BTreeMap<(KeyDomain, KekEpoch), Arc<Epoch>>,
    deks: DekCache,
}

impl KeyRing {
    /// The most epochs a ring holds, over all domains: a rotation a day for two months before the first is destroyed.
    pub const EPOCHS_MAX: usize = 64;

    /// An empty ring for the keys of one cluster.
    pub fn new(cluster: ClusterId) -> Self {
        Self::with_cache(cluster, CACHED_DEKS)
    }

    /// An empty ring that keeps at most `cached_max` DEKs ready, at least one.
    pub fn with_cache(cluster: ClusterId, cached_max: usize) -> Self {
        Self { cluster, keys: RwLock::new(Keys { epochs: BTreeMap::new(), deks: DekCache::new(cached_max) }) }
    }

    /// The cluster whose keys it holds.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Takes an epoch's KEK, if it is the one that the chain announced. Installing it again changes nothing.
    ///
    /// # Errors
    /// [`SealError::CommitmentMismatch`]; [`SealError::TooManyEpochs`] at 64.
    pub fn install_kek(&self, domain: &KeyDomain, epoch: KekEpoch, commitment: &Hash, kek: Kek) -> Result<(), SealError> {
        let installed = Arc::new(Epoch::verified(&self.name(domain, epoch), commitment, kek)?);
        let mut keys = self.write();
        let place = (domain.clone(), epoch);
        if keys.epochs.contains_key(&place) {
            return Ok(());
        }
        if keys.epochs.len() >= Self::EPOCHS_MAX {
            return Err(SealError::TooManyEpochs { max: Self::EPOCHS_MAX });
        }
        keys.epochs.insert(place, installed);
        Ok(())
    }

    /// Unwraps an epoch under a root key and takes it, if it is the one that the chain announced: how a control node unlocks.
    /// Blocks as long as the provider does.
    ///
    /// # Errors
    /// As of [`WrappedKek::decode`], [`RootProvider::unwrap_kek`] and [`KeyRing::install_kek`].
    pub fn unlock_kek(
        &self,
        root: &dyn RootProvider,
        domain: &KeyDomain,
        epoch: KekEpoch,
        commitment: &Hash,
        wrapped: &[u8],
    ) -> Result<(), SealError> {
        let name = self.name(domain, epoch);
        let kek = root.unwrap_kek(&name, &WrappedKek::decode(&name, wrapped)?)?;
        self.install_kek(domain, epoch, commitment, kek)
    }

    /// Opens an envelope and takes the epoch in it, if it is the one that the chain announced: how a node gets its keys.
    ///
    /// # Errors
    /// As of [`crate::open_envelope`] and [`KeyRing::install_kek`].
    pub fn open_envelope(
        &self,
        recipient: impl Into<Recipient>,
        key: &NodeKeyPair,
        domain: &KeyDomain,
        epoch: KekEpoch,
        commitment: &Hash,
        envelope: &[u8],
    ) -> Result<(), SealError> {
        let kek = envelope::open_envelope(&self.name(domain, epoch), recipient, key, envelope)?;
        self.install_kek(domain, epoch, commitment, kek)
    }

    /// Drops an epoch and every DEK unwrapped with it. Says whether it was there.
    pub fn remove_kek(&self, domain: &KeyDomain, epoch: KekEpoch) -> bool {
        let mut keys = self.write();
        let there = keys.epochs.remove(&(domain.clone(), epoch)).is_some();
        keys.deks.drop_epoch(domain, epoch);
        there
    }

    /// Whether the ring holds an epoch.
    pub fn holds(&self, domain: &KeyDomain, epoch: KekEpoch) -> bool {
        self.epoch(domain, epoch).is_ok()
    }

    /// The epochs it holds, in order.
    pub fn epochs(&self) -> Vec<(KeyDomain, KekEpoch)> {
        self.read().epochs.keys().cloned().collect()
    }

    /// Whether it holds no epoch at all.
    pub fn is_locked(&self) -> bool {
        self.read().epochs.is_empty()
    }

    /// Drops every key.
    pub fn lock(&self) {
        let mut keys = self.write();
        keys.epochs.clear();
        keys.deks.clear();
    }

    /// Makes a DEK for an account, wrapped under an epoch.
    ///
    /// # Errors
    /// [`SealError::KeyUnavailable`].
    pub fn mint_dek(&self, entropy: &dyn Entropy, domain: &KeyDomain, epoch: KekEpoch, account: AccountId) -> Result<MintedDek, SealError> {
        let kek = self.epoch(domain, epoch)?;
        let id = DekId::from_bytes(entropy.id());
        let dek = Dek::generate(entropy);
        let wrapped = deks::wrap(entropy, kek.wrapping(), &self.name(domain, epoch), DekName { account, dek: id }, &dek)?;
        Ok(MintedDek { id, epoch, wrapped })
    }

    /// Wraps an existing DEK under another epoch, of the same domain or of another that shall have it too.
    ///
    /// # Errors
    /// [`SealError::KeyUnavailable`] for either epoch; as of unwrapping for the bytes.
    pub fn rewrap_dek(
        &self,
        entropy: &dyn Entropy,
        name: DekName,
        from: (&KeyDomain, DekWrap<'_>),
        to: (&KeyDomain, KekEpoch),
    ) -> Result<WrappedDek, SealError> {
        let (old, new) = (self.epoch(from.0, from.1.epoch)?, self.epoch(to.0, to.1)?);
        let wrapped = WrappedDek::decode(name.dek, from.1.bytes)?;
        let dek = deks::unwrap(old.wrapping(), &self.name(from.0, from.1.epoch), name, &wrapped)?;
        deks::wrap(entropy, new.wrapping(), &self.name(to.0, to.1), name, &dek)
    }

    /// Seals a value under a wrapped DEK: the one that `context` names, in its domain.
    ///
    /// # Errors
    /// [`SealError::TooLong`] above 65,536 bytes; [`SealError::KeyUnavailable`] without the epoch; [`SealError::NotAuthentic`],
    /// [`SealError::NewerFormat`], [`SealError::Damaged`] for the wrapped DEK.
    pub fn seal_value(
        &self,
        entropy: &dyn Entropy,
        context: &ValueContext<'_>,
        dek: DekWrap<'_>,
        plaintext: &[u8],
    ) -> Result<SealedValue, SealError> {
        value::seal_with(entropy, self.dek(context, dek)?.values(), context, plaintext)
    }

    /// Opens a value.
    ///
    /// # Errors
    /// [`SealError::KeyUnavailable`] without the epoch; [`SealError::NotAuthentic`] for a value or wrapped DEK that was changed or
    /// moved; [`SealError::NewerFormat`], [`SealError::Damaged`] for the wrapped DEK.
    pub fn open_value(&self, context: &ValueContext<'_>, dek: DekWrap<'_>, sealed: &SealedValue) -> Result<Plaintext, SealError> {
        value::open_with(self.dek(context, dek)?.values(), context, sealed)
    }

    /// A keyed digest of the content of a request, so that `state` can tell a retry from a request id used twice, and learns
    /// nothing else. Bytes 0 to 3 are the epoch, big-endian ([`fingerprint_epoch`]): a retry that comes after a rotation is
    /// compared under the epoch of the first. The rest are the first 28 of HMAC-SHA256 over the parts, each preceded by its
    /// length as eight bytes, big-endian. Control only: equal content gives equal bytes.
    ///
    /// # Errors
    /// [`SealError::KeyUnavailable`].
    pub fn fingerprint(&self, domain: &KeyDomain, epoch: KekEpoch, content: &[&[u8]]) -> Result<[u8; 32], SealError> {
        Ok(self.epoch(domain, epoch)?.fingerprint(epoch, content))
    }

    /// Wraps an epoch that the ring holds under a root key.
    ///
    /// # Errors
    /// [`SealError::KeyUnavailable`]; as of [`RootProvider::wrap_kek`].
    pub fn wrap_kek(
        &self,
        entropy: &dyn Entropy,
        root: &dyn RootProvider,
        domain: &KeyDomain,
        epoch: KekEpoch,
    ) -> Result<WrappedKek, SealError> {
        root.wrap_kek(entropy, &self.name(domain, epoch), self.epoch(domain, epoch)?.kek())
    }

    /// Seals an epoch that the ring holds to a node or to the recovery key.
    ///
    /// # Errors
    /// [`SealError::KeyUnavailable`].
    pub fn seal_envelope(
        &self,
        entropy: &dyn Entropy,
        domain: &KeyDomain,
        epoch: KekEpoch,
        recipient: impl Into<Recipient>,
        to: &NodePublicKey,
    ) -> Result<Vec<u8>, SealError> {
        envelope::seal_envelope(entropy, &self.name(domain, epoch), recipient, to, self.epoch(domain, epoch)?.kek())
    }

    fn name<'a>(&self, domain: &'a KeyDomain, epoch: KekEpoch) -> KekName<'a> {
        KekName { cluster: self.cluster, domain, epoch }
    }

    fn epoch(&self, domain: &KeyDomain, epoch: KekEpoch) -> Result<Arc<Epoch>, SealError> {
        let found = self.read().epochs.get(&(domain.clone(), epoch)).cloned();
        found.ok_or_else(|| SealError::KeyUnavailable { domain: domain.clone(), epoch })
    }

    /// The DEK that `context` names, ready for use: from the cache, or unwrapped now.
    fn dek(&self, context: &ValueContext<'_>, wrap: DekWrap<'_>) -> Result<Arc<CachedDek>, SealError> {
        if let Some(cached) = self.read().deks.find(context, wrap) {
            return Ok(cached);
        }
        let kek = self.epoch(context.domain, wrap.epoch)?;
        let name = DekName { account: context.account, dek: context.dek };
        let wrapped = WrappedDek::decode(context.dek, wrap.bytes)?;
        let dek = deks::unwrap(kek.wrapping(), &self.name(context.domain, wrap.epoch), name, &wrapped)?;
        let cached = Arc::new(CachedDek::new(context, wrapped, &dek));
        let mut keys = self.write();
        // The epoch may have been removed, or removed and installed anew, while the DEK was being unwrapped.
        if keys.epochs.get(&(context.domain.clone(), wrap.epoch)).is_some_and(|there| Arc::ptr_eq(there, &kek)) {
            keys.deks.keep((context.dek, wrap.epoch), cached.clone());
        }
        Ok(cached)
    }

    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epoch of a fingerprint that was made without a key: epochs count from 1.
pub const UNKEYED: KekEpoch = KekEpoch::new(0);

/// As [`KeyRing::fingerprint`], for content that holds no secret: a node needs no key for it, so a locked one tells a retry too. Bytes
/// 0 to 3 are zero, as those of [`UNKEYED`]; the rest are the first 28 of SHA-256 over a label and the parts, each preceded by its
/// length as eight bytes, big-endian. Never for a value: whoever reads the log could guess short ones.
pub fn unkeyed_fingerprint(content: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [b"cinnabar request fingerprint v1".as_slice()].into_iter().chain(content.iter().copied()) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut fingerprint = [0; 32];
    fingerprint[4..].copy_from_slice(&digest.finalize()[..28]);
    fingerprint
}

/// The epoch under which a fingerprint was made; [`UNKEYED`] for one without a key.
pub fn fingerprint_epoch(fingerprint: &[u8; 32]) -> KekEpoch {
    let [a, b, c, d, ..] = *fingerprint;
    KekEpoch::new(u32::from_be_bytes([a, b, c, d]))
}
