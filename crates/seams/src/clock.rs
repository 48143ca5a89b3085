//! Time and tasks.

use std::time::Duration;

use futures::future::BoxFuture;
use types::UnixMillis;

/// The time of day, time that only moves forward, and waiting.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may jump either way: nothing that must not go back is derived from it alone.
    fn wall(&self) -> UnixMillis;

    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;

    /// Completes after `duration` of monotonic time. Dropping the future cancels the wait.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Starts background tasks and tracks them until they end.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `task` to its end. `name` is for logs and metrics.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
}
