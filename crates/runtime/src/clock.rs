//! The machine's clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use seams::{BoxFuture, Clock};
use types::UnixMillis;

/// The wall clock of the machine, the monotonic clock since this value was made, and tokio's timer.
///
/// The monotonic clock goes on while the machine is suspended or its VM paused: an edge that slept for a day is a day older. The timer
/// stands still meanwhile, so a sleep may end that much later.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    start: Duration,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: since_boot() }
    }

    /// The wall clock, for a command of a person, which is not simulated.
    pub fn wall_millis() -> u64 {
        Self::new().wall().get()
    }
}

/// Time since the machine was started, suspended or not.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where real time enters")]
    fn wall(&self) -> UnixMillis {
        // A clock before 1970 is unset. Zero lies behind every mark that was kept, so an age is not taken from it after a restart.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.start)
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

    #[test]
    fn clock_monotonic_counts_what_the_machine_slept() {
        // A machine that never slept cannot tell the two clocks apart, so the source itself is compared.
        let boot = |text: &str| text.split_whitespace().next().unwrap().parse::<f64>().unwrap();
        let Ok(uptime) = std::fs::read_to_string("/proc/uptime") else { return };
        // The file counts suspended time too.
        assert!(since_boot().as_secs_f64() + 0.02 >= boot(&uptime), "{:?} {uptime}", since_boot());
    }
}
