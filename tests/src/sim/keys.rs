//! The keys of a run: real ones, made from the seed. Whoever seals and whoever opens share one ring.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use seal::{DekWrap, Kek, KekName, KeyRing, MintedDek, ValueContext, commitment};
use seams::sim::SimEntropy;
use state::{NewDek, SealedInput, record::WrappedDek};
use types::{AccountId, KekEpoch, KeyDomain, SecretId, SecretName, StoreId, ValueId};

use super::{oracle::Oracle, runtime::lock, voter::CLUSTER};

/// The one account.
pub(super) const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
/// The one epoch of the one key domain.
const EPOCH: KekEpoch = KekEpoch::new(1);

pub(super) fn domain() -> KeyDomain {
    KeyDomain::global()
}

/// The key ring, and the account's data keys.
pub(super) struct Keys {
    pub(super) ring: Arc<KeyRing>,
    pub(super) commitment: [u8; 32],
    entropy: SimEntropy,
    oracle: Oracle,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The newest last: what sealers use.
    deks: Vec<MintedDek>,
    /// What is sealed in each value, so that it can be sealed again.
    values: BTreeMap<ValueId, Value>,
}

/// A value to be sealed.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) store: StoreId,
    pub(super) secret: SecretId,
    pub(super) name: SecretName,
    pub(super) plaintext: Vec<u8>,
}

impl Keys {
    pub(super) fn new(seed: u64, oracle: Oracle) -> Self {
        let entropy = SimEntropy::new(seed);
        let ring = Arc::new(KeyRing::new(CLUSTER));
        let kek = Kek::generate(&entropy);
        let announced = commitment(&KekName { cluster: CLUSTER, domain: &domain(), epoch: EPOCH }, &kek).expect("a name");
        ring.install_kek(&domain(), EPOCH, &announced, kek).expect("the key of its commitment");
        Self { ring, commitment: *announced.as_bytes(), entropy, oracle, inner: Mutex::default() }
    }

    /// A data key to take the place of the one in use; [`Keys::adopt`] it when that is done.
    pub(super) fn mint(&self) -> (MintedDek, NewDek) {
        let minted = self.ring.mint_dek(&self.entropy, &domain(), EPOCH, ACCOUNT).expect("an epoch that is there");
        let wraps = vec![WrappedDek { domain: domain(), epoch: EPOCH, bytes: minted.wrapped.as_bytes().to_vec() }];
        let replaces = lock(&self.inner).deks.last().map(|dek| dek.id);
        let new = NewDek { id: minted.id, wraps, replaces };
        (minted, new)
    }

    /// Sealers use this one from now on.
    pub(super) fn adopt(&self, dek: MintedDek) {
        lock(&self.inner).deks.push(dek);
    }

    pub(super) fn seal(&self, value_id: ValueId, value: Value) -> SealedInput {
        let newest = lock(&self.inner).deks.len();
        self.seal_under(newest.saturating_sub(1), value_id, value)
    }

    /// Seals under the data key before the one in use.
    pub(super) fn seal_under_the_last(&self, value_id: ValueId, value: Value) -> Option<SealedInput> {
        let before = lock(&self.inner).deks.len().checked_sub(2)?;
        Some(self.seal_under(before, value_id, value))
    }

    /// The same value, sealed under the data key in use.
    pub(super) fn reseal(&self, input: &SealedInput) -> SealedInput {
        let value = lock(&self.inner).values.get(&input.value_id).cloned();
        value.map_or_else(|| input.clone(), |value| self.seal(input.value_id, value))
    }

    fn seal_under(&self, dek: usize, value_id: ValueId, value: Value) -> SealedInput {
        let domain = domain();
        let dek = lock(&self.inner).deks.get(dek).cloned().expect("a data key before the first value");
        let Value { store, secret, name, plaintext } = &value;
        let context = ValueContext { account: ACCOUNT, store: *store, secret: *secret, name, value_id, dek: dek.id, domain: &domain };
        let wrap = DekWrap { epoch: EPOCH, bytes: dek.wrapped.as_bytes() };
        let sealed = self.ring.seal_value(&self.entropy, &context, wrap, plaintext).expect("a value within its limit");
        self.oracle.sealed(value_id, sealed.clone(), plaintext);
        lock(&self.inner).values.insert(value_id, value);
        SealedInput { value_id, dek: dek.id, domain, sealed }
    }
}
