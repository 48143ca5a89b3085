//! The machine's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use seams::{BoxFuture, Clock};
use types::UnixMillis;

/// The wall clock of the machine, the monotonic clock since this value was made, and tokio's timer.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place where real time enters")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where real time enters")]
    fn wall(&self) -> UnixMillis {
        // A clock before 1970 is unset; zero makes every age infinite, which is the safe reading.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place where real time enters")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_wall_is_of_this_century_and_monotonic_never_goes_back() {
        let clock = RealClock::new();
        assert!(clock.wall() > UnixMillis::new(1_700_000_000_000));
        let (first, second) = (clock.monotonic(), clock.monotonic());
        assert!(second >= first);
    }
}
