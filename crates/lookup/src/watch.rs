//! Following one binding: its value now, and again whenever what a lookup would answer has changed.
//!
//! A watch remembers which value it last told, not which roots went by: however many changes come while its reader is busy, the next
//! call tells the newest one. So it needs no queue, and a slow reader costs nothing.
//!
//! **Concurrency**: one task reads a watch. [`Watch::next`] is safe to cancel: a change is remembered as told when it is returned.

use std::{mem::Discriminant, sync::Arc, time::Duration};

use tokio::sync::watch;
use types::{Position, SecretId, Version};
use wire::parse::{FreshnessTarget, WantedTarget};

use crate::{Caller, Found, Lookup, LookupError};

/// How often a watch looks again without a new root: age, the expiry of a token and the arrival of a key change answers without one.
const RECHECK: Duration = Duration::from_secs(2);

/// What a watch last told. A version of a secret, not the id of a value: sealing a value anew changes nothing for readers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Value(SecretId, Version),
    Error(Discriminant<LookupError>),
}

/// A watch of one binding.
pub struct Watch {
    lookup: Arc<Lookup>,
    caller: Caller,
    wanted: WantedTarget,
    freshness: FreshnessTarget,
    positions: watch::Receiver<Option<Position>>,
    told: Option<Told>,
}

impl Watch {
    /// Watches what `caller` would get.
    pub fn new(lookup: Arc<Lookup>, caller: Caller, wanted: WantedTarget, freshness: FreshnessTarget) -> Self {
        let positions = lookup.serving().watch_position();
        Self { lookup, caller, wanted, freshness, positions, told: None }
    }

    /// The answer now at the first call; at each later one the answer after it has changed: another value, an error, another error.
    ///
    /// # Errors
    /// [`LookupError`], as the answer of this moment. Most are mended by a later change; after one for which
    /// [`LookupError::is_final`] holds the watch is of no more use.
    pub async fn next(&mut self) -> Result<Found, LookupError> {
        loop {
            // Before the look, so that a root that comes during it is seen by the wait below.
            self.positions.borrow_and_update();
            if let Some(change) = self.look().await {
                return change;
            }
            tokio::select! {
                biased;
                changed = self.positions.changed() => if changed.is_err() {
                    return Err(LookupError::NotSynced);
                },
                () = self.lookup.serving().clock().sleep(RECHECK) => {}
            }
        }
    }

    /// The answer, if it is another than was told. Looks without opening first: most roots change something else.
    async fn look(&mut self) -> Option<Result<Found, LookupError>> {
        let peeked = self.lookup.peek(&self.caller, &self.wanted, self.freshness);
        if self.told == Some(Told::of(peeked.as_ref().copied())) {
            return None;
        }
        // May be another root than was peeked at, so its own answer counts.
        let answer = self.lookup.fetch(&self.caller, &self.wanted, self.freshness).await;
        let told = Told::of(answer.as_ref().map(|found| (found.secret, found.version)));
        if self.told == Some(told) {
            return None;
        }
        self.told = Some(told);
        Some(answer)
    }
}

impl Told {
    fn of(answer: Result<(SecretId, Version), &LookupError>) -> Self {
        match answer {
            Ok((secret, version)) => Self::Value(secret, version),
            Err(error) => Self::Error(std::mem::discriminant(error)),
        }
    }
}
