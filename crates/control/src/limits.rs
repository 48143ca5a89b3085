//! How often one caller may do what costs others something: changes, by token; and tokens that nobody knows, by address and together.
//!
//! Each limit is a leaky bucket (GCRA, by the library `governor`), in this node's memory alone: what is refused here has touched neither
//! the log nor another node. The library's own tables of keys grow without bound, so the table is ours ([`Cells`]).
//!
//! **Invariants**
//! 1. A token that this node knows is never refused for tokens that it does not know, whoever shows them.
//! 2. The tables are bounded. One that is full forgets the half of its keys that have used least of theirs; what comes from all addresses
//!    together stays bounded by its own limit.
//! 3. A refusal says when to ask again.

use std::{
    collections::BTreeMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{Quota, RateLimiter, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore};
use runtime::{config::Rates, listen::network};
use seams::{
    Clock,
    mutation::{self, Mutation},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use wire::{ErrorKind, PublicError};

/// Tokens whose changes are remembered: 64 bytes each, more than write within the same seconds.
const TOKENS_MAX: usize = 16_384;
/// Addresses that are remembered for the tokens shown from there.
const ADDRESSES_MAX: usize = 16_384;

/// The limits of a node.
pub(crate) struct Limits {
    writes: Option<Limit<[u8; 32]>>,
    strangers: Option<Limit<IpAddr>>,
    all_strangers: Option<Limit<()>>,
    places: Semaphore,
}

/// Strangers for whom a node asks the leader at once: all of them share one question.
const STRANGERS_MAX: usize = 64;

impl Limits {
    /// As configured.
    pub(crate) fn new(rates: &Rates, clock: &Arc<dyn Clock>) -> Self {
        let quota = |per: fn(NonZeroU32) -> Quota, number: u32| NonZeroU32::new(number).map(per);
        let writes = quota(Quota::per_second, rates.writes_per_second)
            .map(|quota| NonZeroU32::new(rates.writes_burst).map_or(quota, |burst| quota.allow_burst(burst)));
        let strangers = quota(Quota::per_minute, rates.failed_logins_per_minute);
        let all_strangers = quota(Quota::per_minute, rates.failed_logins_in_all_per_minute);
        Self {
            writes: writes.map(|quota| Limit::new(quota, TOKENS_MAX, clock)),
            strangers: strangers.map(|quota| Limit::new(quota, ADDRESSES_MAX, clock)),
            all_strangers: all_strangers.map(|quota| Limit::new(quota, 1, clock)),
            places: Semaphore::new(STRANGERS_MAX),
        }
    }

    /// A place among those for whom the leader is asked; none when all are taken, and then nobody is asked.
    pub(crate) fn place_to_ask(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// Counts a change by the holder of a token.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], with the time until the next one is taken.
    pub(crate) fn write(&self, token: &[u8; 32]) -> Result<(), PublicError> {
        let over =
            "this token makes more changes than one may at this node (`rates` in its configuration): wait, or send several in one call";
        passes(self.writes.as_ref(), token, "writes", over)
    }

    /// Counts a token that this node does not know, before any work is done for it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], with the time until the next one is looked at.
    pub(crate) fn stranger(&self, from: Option<IpAddr>) -> Result<(), PublicError> {
        let from = from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), network);
        passes(
            self.strangers.as_ref(),
            &from,
            "failed_logins",
            "too many tokens that nobody knows came from this address: wait, then ask again",
        )?;
        passes(
            self.all_strangers.as_ref(),
            &(),
            "failed_logins_in_all",
            "too many tokens that nobody knows are shown to this node: ask again, or ask another",
        )
    }
}

fn passes<K: Ord + Clone + Hash>(limit: Option<&Limit<K>>, key: &K, name: &'static str, over: &str) -> Result<(), PublicError> {
    if mutation::is_on(Mutation::RateIgnored) {
        return Ok(());
    }
    limit.map_or(Ok(()), |limit| limit.count(key)).map_err(|wait| {
        metrics::counter!("cinnabar_control_rate_limited_total", "limit" => name).increment(1);
        PublicError::new(ErrorKind::Busy, over).with_retry_after(wait)
    })
}

/// One limit for each of many keys.
struct Limit<K: Ord + Clone>(RateLimiter<K, Cells<K>, Monotonic, NoOpMiddleware<Duration>>);

impl<K: Ord + Clone + Hash> Limit<K> {
    fn new(quota: Quota, keys_max: usize, clock: &Arc<dyn Clock>) -> Self {
        let cells = Cells { cells: Mutex::default(), most: keys_max };
        Self(RateLimiter::new(quota, cells, Monotonic(clock.clone())))
    }

    /// Counts one, or says how long to wait for the next, in whole milliseconds and never none.
    fn count(&self, key: &K) -> Result<(), Duration> {
        self.0.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(governor::clock::Clock::now(self.0.clock()));
            Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
        })
    }
}

/// The node's own clock, as the library asks for it.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl governor::clock::Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// When each key's bucket will be empty again. At most `most` keys.
struct Cells<K> {
    cells: Mutex<BTreeMap<K, Nanos>>,
    most: usize,
}

impl<K: Ord + Clone> StateStore for Cells<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let before = cells.get(key).copied();
        let (answer, after) = decide(before)?;
        if before.is_none() && cells.len() >= self.most {
            forget_half(&mut cells);
        }
        cells.insert(key.clone(), after);
        Ok(answer)
    }
}

/// Forgets the keys that are nearest to what a new one has: a pass over all for every second half, so a constant effort for each.
fn forget_half<K: Ord>(cells: &mut BTreeMap<K, Nanos>) {
    let mut times: Vec<Nanos> = cells.values().copied().collect();
    let middle = times.len() / 2;
    let (_, middle, _) = times.select_nth_unstable(middle);
    let middle = *middle;
    cells.retain(|_, time| *time > middle);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use seams::sim::ManualClock;
    use types::UnixMillis;

    use super::*;

    fn limits(rates: Rates) -> (Limits, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(UnixMillis::new(0)));
        (Limits::new(&rates, &(clock.clone() as Arc<dyn Clock>)), clock)
    }

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from(number)))
    }

    #[track_caller]
    fn waits(result: Result<(), PublicError>) -> Duration {
        let refused = result.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Busy);
        refused.retry_after.expect("a refusal says when to ask again")
    }

    #[test]
    fn token_over_its_rate_waits_as_long_as_it_is_told_and_others_do_not() {
        let (limits, clock) = limits(Rates { writes_per_second: 10, writes_burst: 5, ..Rates::default() });
        let (one, other) = ([1; 32], [2; 32]);
        for _ in 0..5 {
            limits.write(&one).unwrap();
        }
        let wait = waits(limits.write(&one));
        assert!(wait > Duration::from_millis(90) && wait <= Duration::from_millis(101), "{wait:?}");
        limits.write(&other).unwrap();
        clock.advance(wait);
        limits.write(&one).unwrap();
        waits(limits.write(&one));
        clock.advance(Duration::from_secs(1));
        for _ in 0..5 {
            limits.write(&one).unwrap();
        }
        waits(limits.write(&one));
    }

    #[test]
    fn token_without_a_limit_never_waits() {
        let (limits, _) = limits(Rates { writes_per_second: 0, failed_logins_per_minute: 0, ..Rates::default() });
        for _ in 0..5000 {
            limits.write(&[1; 32]).unwrap();
            limits.stranger(address(1)).unwrap();
        }
    }

    #[test]
    fn address_over_its_rate_waits_others_do_not_and_all_together_have_a_bound() {
        let rates = Rates { failed_logins_per_minute: 3, failed_logins_in_all_per_minute: 8, ..Rates::default() };
        let (limits, clock) = limits(rates);
        for _ in 0..3 {
            limits.stranger(address(1)).unwrap();
        }
        for _ in 0..100 {
            waits(limits.stranger(address(1)));
        }
        // What one address was refused does not count for all.
        for number in 2..7 {
            limits.stranger(address(number)).unwrap();
        }
        let wait = waits(limits.stranger(address(7)));
        assert!(wait <= Duration::from_millis(7501), "{wait:?}");
        clock.advance(wait);
        limits.stranger(address(8)).unwrap();
    }

    #[test]
    fn network_of_many_addresses_counts_as_one_address() {
        let (limits, _) = limits(Rates { failed_logins_per_minute: 2, ..Rates::default() });
        let of = |network: u16, host: u16| Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host)));
        limits.stranger(of(0, 1)).unwrap();
        limits.stranger(of(0, 2)).unwrap();
        waits(limits.stranger(of(0, 3)));
        limits.stranger(of(1, 1)).unwrap();
        // A server that listens for both sees an IPv4 address in the form of the other.
        let mapped = |number: u32| Some(IpAddr::V6(Ipv4Addr::from(number).to_ipv6_mapped()));
        for number in 0..3 {
            limits.stranger(mapped(number)).unwrap();
        }
    }

    #[test]
    fn table_that_is_full_forgets_who_used_least() {
        let (limits, clock) = limits(Rates { writes_per_second: 1, writes_burst: 3, ..Rates::default() });
        let token = |number: u32| {
            let mut token = [0; 32];
            token[..4].copy_from_slice(&number.to_be_bytes());
            token
        };
        for _ in 0..3 {
            limits.write(&token(0)).unwrap();
        }
        for number in 1..3 * TOKENS_MAX as u32 {
            limits.write(&token(number)).unwrap();
            clock.advance(Duration::from_nanos(1));
        }
        waits(limits.write(&token(0)));
        let held = limits.writes.unwrap().0.into_state_store().cells.into_inner().unwrap().len();
        assert!(held <= TOKENS_MAX, "{held}");
    }
}
