//! Age: how old the state that a node shows may be.
//!
//! Only a verified checkpoint of the control plane says how fresh a state is. Its age when it came is the wall clock's
//! distance from the checkpoint's own time; from then on the monotonic clock counts, so that a wall clock that is set back later
//! does not make an old state look young. After a restart there is no receipt to count from, so the distance is taken anew
//! from the wall clock, unless that clock stands behind the highest time it was ever seen to show: then it proves nothing.
//!
//! **Invariants**
//! 1. While no checkpoint comes, age never falls.
//! 2. A clock that is known to be wrong gives [`Age::Unknown`], which satisfies no bound.

use std::{fmt, time::Duration};

use seams::Clock;
use types::UnixMillis;

/// The age of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Not older than this.
    Known(Duration),
    /// Nothing is known: no checkpoint yet, or a wall clock behind its own past. Counts as older than any bound.
    Unknown,
}

impl Age {
    /// Whether the age is within `bound`. An unknown age is within none.
    pub fn within(self, bound: Duration) -> bool {
        matches!(self, Self::Known(age) if age <= bound)
    }

    /// The age in milliseconds, when known.
    pub fn millis(self) -> Option<u64> {
        match self {
            Self::Known(age) => Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(age) => write!(f, "{} ms", age.as_millis()),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The last checkpoint seen, and from when on its age is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The checkpoint's own time, which the control plane signed.
    time: UnixMillis,
    /// Its age at the moment of `counted_from`; none when unknown.
    base: Option<Duration>,
    /// The monotonic clock at that moment.
    counted_from: Duration,
}

impl Checkpoint {
    /// A checkpoint that has just come, verified.
    pub fn received(time: UnixMillis, clock: &dyn Clock) -> Self {
        Self { time, base: Some(clock.wall().since(time)), counted_from: clock.monotonic() }
    }

    /// The last checkpoint before a restart, with the highest wall time persisted since. Unknown when the clock is behind either mark:
    /// a clock that went back cannot tell how long the node was off.
    pub fn restored(time: UnixMillis, wall_mark: UnixMillis, clock: &dyn Clock) -> Self {
        let wall = clock.wall();
        let base = (wall >= wall_mark).then(|| wall.since(time));
        Self { time, base, counted_from: clock.monotonic() }
    }

    /// The checkpoint's own time.
    pub const fn time(&self) -> UnixMillis {
        self.time
    }

    /// The age now.
    pub fn age(&self, clock: &dyn Clock) -> Age {
        match self.base {
            Some(base) => Age::Known(base.saturating_add(clock.monotonic().saturating_sub(self.counted_from))),
            None => Age::Unknown,
        }
    }

    /// The time by which credentials expire: the wall clock, but never before the checkpoint's time and what the monotonic clock counted
    /// since. So a wall clock that is set back revives nothing: neither what the control plane already held to be expired, nor what
    /// has expired here since.
    pub fn now(&self, clock: &dyn Clock) -> UnixMillis {
        clock.wall().max(self.time.plus(clock.monotonic().saturating_sub(self.counted_from)))
    }
}

#[cfg(test)]
mod tests {
    use seams::sim::ManualClock;

    use super::*;

    const fn at(ms: u64) -> UnixMillis {
        UnixMillis::new(ms)
    }

    #[test]
    fn age_of_a_received_checkpoint_counts_monotonic_time_only() {
        let clock = ManualClock::at(at(10_000));
        let checkpoint = Checkpoint::received(at(9_400), &clock);
        assert_eq!(checkpoint.age(&clock), Age::Known(Duration::from_millis(600)));
        clock.advance(Duration::from_millis(400));
        assert_eq!(checkpoint.age(&clock), Age::Known(Duration::from_secs(1)));
        clock.set_wall(at(0));
        assert_eq!(checkpoint.age(&clock), Age::Known(Duration::from_secs(1)), "a wall clock set back makes nothing younger");
        clock.set_wall(at(999_000));
        assert_eq!(checkpoint.age(&clock), Age::Known(Duration::from_secs(1)), "nor older");
    }

    #[test]
    fn age_of_a_checkpoint_from_the_future_is_zero() {
        let clock = ManualClock::at(at(10_000));
        assert_eq!(Checkpoint::received(at(10_300), &clock).age(&clock), Age::Known(Duration::ZERO));
    }

    #[test]
    fn age_after_a_restart_is_taken_from_the_wall_clock() {
        let clock = ManualClock::at(at(70_000));
        let checkpoint = Checkpoint::restored(at(10_000), at(12_000), &clock);
        assert_eq!(checkpoint.age(&clock), Age::Known(Duration::from_secs(60)));
        clock.advance(Duration::from_secs(5));
        assert_eq!(checkpoint.age(&clock), Age::Known(Duration::from_secs(65)));
    }

    #[test]
    fn age_after_a_restart_with_the_clock_behind_its_mark_is_unknown_and_within_no_bound() {
        let clock = ManualClock::at(at(11_999));
        let checkpoint = Checkpoint::restored(at(10_000), at(12_000), &clock);
        assert_eq!(checkpoint.age(&clock), Age::Unknown);
        assert!(!checkpoint.age(&clock).within(Duration::MAX));
        clock.advance(Duration::from_secs(60));
        assert_eq!(checkpoint.age(&clock), Age::Unknown, "it stays unknown until the next checkpoint");
    }

    #[test]
    fn now_is_never_before_the_checkpoint() {
        let clock = ManualClock::at(at(5_000));
        assert_eq!(Checkpoint::received(at(9_000), &clock).now(&clock), at(9_000));
        clock.set_wall(at(20_000));
        assert_eq!(Checkpoint::received(at(9_000), &clock).now(&clock), at(20_000));
    }

    #[test]
    fn now_goes_on_when_the_wall_clock_is_set_back() {
        let clock = ManualClock::at(at(10_000));
        let checkpoint = Checkpoint::received(at(9_000), &clock);
        clock.advance(Duration::from_secs(60));
        clock.set_wall(at(10_000));
        assert_eq!(checkpoint.now(&clock), at(69_000), "a token that ended at 60 s stays ended");
    }
}
