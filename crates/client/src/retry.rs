//! When a failed call is sent again, and after what pause.

use std::time::Duration;

use wire::PublicError;

/// The rule for repetitions: pauses double from `pause` to `pause_max`, each drawn from its upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often a call is sent at the most, the first time included.
    pub attempts_max: u32,
    /// The first pause.
    pub pause: Duration,
    /// The longest pause, unless the server asks for more.
    pub pause_max: Duration,
}

impl Default for Retries {
    /// Five times in about one second: an election, or the restart of a node.
    fn default() -> Self {
        Self { attempts_max: 5, pause: Duration::from_millis(50), pause_max: Duration::from_secs(2) }
    }
}

impl Retries {
    /// Send once only.
    pub const NONE: Self = Self { attempts_max: 1, pause: Duration::ZERO, pause_max: Duration::ZERO };

    /// The pause before the next attempt after `attempts`, or none if there is to be no other: the error is final, the limit
    /// is reached, or the pause would outlast what is left of the deadline.
    pub(crate) fn pause_after(&self, error: &PublicError, attempts: u32, left: Duration, random: u64) -> Option<Duration> {
        if !error.kind.retryable() || attempts >= self.attempts_max {
            return None;
        }
        let doubled = self.pause.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(self.pause_max);
        // Jitter keeps clients that failed together from coming back together.
        let half = doubled / 2;
        let jitter = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        let pause = half + Duration::from_micros(random % jitter.saturating_add(1));
        let pause = pause.max(error.retry_after.unwrap_or_default());
        (pause < left).then_some(pause)
    }
}

/// Waits between two attempts.
#[expect(clippy::disallowed_methods, reason = "a client is the rim: it runs in the caller's process and is never simulated")]
pub(crate) async fn wait(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// Random bytes for request ids and jitter; none if the system has none to give.
#[expect(clippy::disallowed_methods, reason = "a client is the rim: it runs in the caller's process and is never simulated")]
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use wire::ErrorKind;

    use super::*;

    const LEFT: Duration = Duration::from_secs(60);

    #[test]
    fn pause_doubles_to_its_bound_and_stays_in_the_upper_half() {
        let rule = Retries { attempts_max: 40, ..Retries::default() };
        let error = PublicError::new(ErrorKind::Unavailable, "down");
        for (attempts, most) in [(1, 50), (2, 100), (3, 200), (6, 1600), (7, 2000), (39, 2000)] {
            for random in [0, 1, 977, u64::MAX] {
                let pause = rule.pause_after(&error, attempts, LEFT, random).unwrap();
                assert!(pause >= Duration::from_millis(most / 2) && pause <= Duration::from_millis(most), "{attempts}: {pause:?}");
            }
        }
    }

    #[test]
    fn pause_only_for_kinds_that_pass_within_limit_and_deadline() {
        let rule = Retries::default();
        for kind in ErrorKind::all() {
            let error = PublicError::new(kind, "no");
            assert_eq!(rule.pause_after(&error, 1, LEFT, 0).is_some(), kind.retryable(), "{kind:?}");
            assert_eq!(rule.pause_after(&error, rule.attempts_max, LEFT, 0), None, "{kind:?}");
            assert_eq!(rule.pause_after(&error, 1, Duration::from_millis(20), 0), None, "{kind:?}");
        }
        let busy = PublicError::new(ErrorKind::Busy, "full").with_retry_after(Duration::from_secs(5));
        assert_eq!(rule.pause_after(&busy, 1, LEFT, 0), Some(Duration::from_secs(5)));
        assert_eq!(rule.pause_after(&busy, 1, Duration::from_secs(5), 0), None);
        assert_eq!(Retries::NONE.pause_after(&busy, 1, LEFT, 0), None);
    }
}
