//! The bounded cache of unwrapped DEKs, replaced by the clock algorithm (second chance): a hit writes one flag, under a read lock.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use types::{AccountId, DekId, KekEpoch, KeyDomain};

use crate::{Dek, DekWrap, ValueContext, WrappedDek, cipher::Prk, value};

/// A DEK ready for use: the extracted HKDF key, from which each value's key is derived. Wiped on drop.
pub(crate) struct CachedDek {
    domain: KeyDomain,
    account: AccountId,
    wrapped: WrappedDek,
    values: Prk,
    /// Set by use, cleared by the hand of the clock, which takes out what it finds cleared.
    used: AtomicBool,
}

impl CachedDek {
    pub(crate) fn new(context: &ValueContext<'_>, wrapped: WrappedDek, dek: &Dek) -> Self {
        let (domain, account) = (context.domain.clone(), context.account);
        Self { domain, account, wrapped, values: value::prk(dek), used: AtomicBool::new(true) }
    }

    pub(crate) fn values(&self) -> &Prk {
        &self.values
    }

    /// Whether unwrapping what the call names would give this DEK. Any difference goes the long way, and fails there if it must.
    fn serves(&self, context: &ValueContext<'_>, wrap: DekWrap<'_>) -> bool {
        self.account == context.account && self.domain == *context.domain && self.wrapped.as_bytes() == wrap.bytes
    }
}

type Place = (DekId, KekEpoch);

/// DEKs by id and epoch, at most `max`.
pub(crate) struct DekCache {
    max: usize,
    deks: BTreeMap<Place, Arc<CachedDek>>,
    /// The places of `deks`, each once, in the order in which the hand visits them.
    clock: VecDeque<Place>,
}

impl DekCache {
    /// Holds at most `max`, at least one.
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.max(1), deks: BTreeMap::new(), clock: VecDeque::new() }
    }

    pub(crate) fn find(&self, context: &ValueContext<'_>, wrap: DekWrap<'_>) -> Option<Arc<CachedDek>> {
        let cached = self.deks.get(&(context.dek, wrap.epoch)).filter(|cached| cached.serves(context, wrap))?;
        // The flag is written only when it changes: a store would move the cache line between cores on every lookup.
        if !cached.used.load(Ordering::Relaxed) {
            cached.used.store(true, Ordering::Relaxed);
        }
        Some(cached.clone())
    }

    /// Keeps a DEK, in place of one with the same id and epoch, or of the first that was not used since the hand last passed it.
    pub(crate) fn keep(&mut self, place: Place, cached: Arc<CachedDek>) {
        if self.deks.insert(place, cached).is_some() {
            return;
        }
        self.clock.push_back(place);
        while self.deks.len() > self.max {
            // Each turn drops one or clears one flag, so the second round at the latest ends this.
            let Some(oldest) = self.clock.pop_front() else { return };
            if self.deks.get(&oldest).is_some_and(|cached| oldest != place && !cached.used.swap(false, Ordering::Relaxed)) {
                self.deks.remove(&oldest);
            } else {
                self.clock.push_back(oldest);
            }
        }
    }

    /// Drops every DEK that was unwrapped with this epoch.
    pub(crate) fn drop_epoch(&mut self, domain: &KeyDomain, epoch: KekEpoch) {
        self.deks.retain(|place, cached| place.1 != epoch || cached.domain != *domain);
        self.clock.retain(|place| self.deks.contains_key(place));
    }

    pub(crate) fn clear(&mut self) {
        self.deks.clear();
        self.clock.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.deks.len(), self.clock.len(), "each place stands once in the clock");
        self.deks.len()
    }
}

#[cfg(test)]
mod tests {
    use types::{SecretId, SecretName, StoreId, ValueId};

    use super::*;
    use crate::WRAPPED_DEK_BYTES;

    struct Fixture {
        domain: KeyDomain,
        name: SecretName,
        wrapped: WrappedDek,
    }

    impl Fixture {
        fn new() -> Self {
            let wrapped = WrappedDek::decode(dek(0), &[1; WRAPPED_DEK_BYTES]).unwrap();
            Self { domain: KeyDomain::global(), name: SecretName::new("K").unwrap(), wrapped }
        }

        fn context(&self, number: u8) -> ValueContext<'_> {
            ValueContext {
                account: AccountId::from_bytes([1; 16]),
                store: StoreId::from_bytes([2; 16]),
                secret: SecretId::from_bytes([3; 16]),
                name: &self.name,
                value_id: ValueId::from_bytes([4; 16]),
                dek: dek(number),
                domain: &self.domain,
            }
        }

        fn keep(&self, cache: &mut DekCache, number: u8, epoch: u32) {
            let cached = CachedDek::new(&self.context(number), self.wrapped.clone(), &Dek::zeroed());
            cache.keep((dek(number), KekEpoch::new(epoch)), Arc::new(cached));
        }

        fn finds(&self, cache: &DekCache, number: u8, epoch: u32) -> bool {
            cache.find(&self.context(number), DekWrap { epoch: KekEpoch::new(epoch), bytes: self.wrapped.as_bytes() }).is_some()
        }
    }

    fn dek(number: u8) -> DekId {
        DekId::from_bytes([number; 16])
    }

    #[test]
    fn cache_full_drops_what_was_not_used() {
        let (fixture, mut cache) = (Fixture::new(), DekCache::new(3));
        for number in 0..3 {
            fixture.keep(&mut cache, number, 1);
        }
        fixture.keep(&mut cache, 3, 1);
        assert!(!fixture.finds(&cache, 0, 1), "all were used alike, so the oldest goes");
        assert!(fixture.finds(&cache, 1, 1));
        fixture.keep(&mut cache, 4, 1);
        assert!(fixture.finds(&cache, 1, 1), "it was used since the hand passed");
        assert!(!fixture.finds(&cache, 2, 1), "it was not");
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn cache_never_grows_beyond_its_bound() {
        for max in [0, 1, 2, 7] {
            let (fixture, mut cache) = (Fixture::new(), DekCache::new(max));
            for number in 0..100 {
                fixture.keep(&mut cache, number % 13, u32::from(number % 3));
                assert!(fixture.finds(&cache, number % 13, u32::from(number % 3)), "what was kept last is there");
                assert!(cache.len() <= max.max(1));
            }
        }
    }

    #[test]
    fn cache_serves_only_the_same_account_domain_and_wrap() {
        let (fixture, mut cache) = (Fixture::new(), DekCache::new(3));
        fixture.keep(&mut cache, 1, 1);
        let (other_domain, context) = (KeyDomain::new("zone").unwrap(), fixture.context(1));
        let (wrap, other_bytes) = (DekWrap { epoch: KekEpoch::new(1), bytes: fixture.wrapped.as_bytes() }, [2; WRAPPED_DEK_BYTES]);
        assert!(cache.find(&context, wrap).is_some());
        assert!(cache.find(&ValueContext { account: AccountId::from_bytes([9; 16]), ..context }, wrap).is_none());
        assert!(cache.find(&ValueContext { domain: &other_domain, ..context }, wrap).is_none());
        assert!(cache.find(&context, DekWrap { bytes: &other_bytes, ..wrap }).is_none());
        assert!(cache.find(&context, DekWrap { epoch: KekEpoch::new(2), ..wrap }).is_none());
    }

    #[test]
    fn cache_drops_the_deks_of_an_epoch_and_no_others() {
        let (fixture, mut cache) = (Fixture::new(), DekCache::new(9));
        for (number, epoch) in [(1, 1), (1, 2), (2, 1), (3, 2)] {
            fixture.keep(&mut cache, number, epoch);
        }
        cache.drop_epoch(&KeyDomain::new("zone").unwrap(), KekEpoch::new(1));
        assert_eq!(cache.len(), 4);
        cache.drop_epoch(&KeyDomain::global(), KekEpoch::new(1));
        assert_eq!(cache.len(), 2);
        assert!(fixture.finds(&cache, 1, 2) && fixture.finds(&cache, 3, 2));
    }
}
