//! Waiting for a value.

use std::time::Duration;

use runtime::RealClock;
use seams::Clock;

/// How long anything may take that takes a second on an idle machine. Tests run beside each other on shared cores.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value.
///
/// # Panics
/// After [`PATIENCE`], with what the last look said.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let clock = RealClock::new();
    let end = clock.monotonic() + PATIENCE;
    let mut said = "the first look did not end".to_owned();
    loop {
        let left = end.saturating_sub(clock.monotonic());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(why)) if !left.is_zero() => said = why,
            Ok(Err(_)) | Err(_) => panic!("waited {PATIENCE:?} in vain for {what}: {said}"),
        }
        clock.sleep(LOOK_EVERY).await;
    }
}
