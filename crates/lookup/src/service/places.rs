//! Bounded places: so many in all, and so many of them for one caller, that nobody's greed leaves the others without.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use types::ConsumerRef;

use crate::LookupError;

/// One caller gets at most one in so many places: four that take all they can are needed to fill a node.
const SHARE: usize = 4;

/// Who holds a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// The consumer that a credential stands for.
    Consumer(ConsumerRef),
    /// A uid that may act as several.
    Uid(u32),
}

/// Places of one kind.
pub(super) struct Places {
    what: &'static str,
    max: usize,
    each_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Only holders of something stand here.
    by: HashMap<Holder, usize>,
}

/// Some of them, taken until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    holder: Holder,
    weight: usize,
}

impl Places {
    /// `max` places, named `what` in errors.
    pub(super) fn new(what: &'static str, max: usize) -> Arc<Self> {
        Arc::new(Self { what, max, each_max: max.div_ceil(SHARE), taken: Mutex::default() })
    }

    /// Takes `weight` of them.
    ///
    /// # Errors
    /// [`LookupError::Busy`] when so many are not left, in all or for this holder.
    pub(super) fn take(self: &Arc<Self>, holder: Holder, weight: usize) -> Result<Place, LookupError> {
        let mut taken = self.lock();
        let mine = taken.by.get(&holder).copied().unwrap_or_default();
        let fits = |taken: usize, max: usize| taken.checked_add(weight).is_some_and(|sum| sum <= max);
        if !fits(taken.all, self.max) {
            return Err(LookupError::Busy { what: self.what, whose: "on this edge", max: self.max });
        }
        if !fits(mine, self.each_max) {
            return Err(LookupError::Busy { what: self.what, whose: "for one caller", max: self.each_max });
        }
        taken.all += weight;
        *taken.by.entry(holder.clone()).or_default() += weight;
        drop(taken);
        Ok(Place { places: Arc::clone(self), holder, weight })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(self.weight);
        if let Some(mine) = taken.by.get_mut(&self.holder) {
            *mine = mine.saturating_sub(self.weight);
            if *mine == 0 {
                taken.by.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_one_holder_end_before_those_of_all_and_come_back() {
        let places = Places::new("watches", 8);
        let take = |uid, weight| places.take(Holder::Uid(uid), weight);
        let first = take(1, 2).unwrap();
        assert_eq!(take(1, 1).err(), Some(LookupError::Busy { what: "watches", whose: "for one caller", max: 2 }));
        let others: Vec<_> = (2..5).map(|uid| take(uid, 2).unwrap()).collect();
        assert_eq!(take(9, 1).err(), Some(LookupError::Busy { what: "watches", whose: "on this edge", max: 8 }));
        drop(first);
        take(1, 2).unwrap();
        drop(others);
        assert!(places.lock().by.is_empty() && places.lock().all == 0);
        assert!(take(1, usize::MAX).is_err());
    }
}
