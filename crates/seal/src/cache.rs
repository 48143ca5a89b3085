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
