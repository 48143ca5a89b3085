//! A node's clock on virtual time: it runs at the right speed and shows the wrong time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use openraft::{AsyncRuntime, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};
use seams::{BoxFuture, Clock};
use types::UnixMillis;

/// What the true wall clock shows when a run begins: 22 November 2026.
const START_MS: u64 = 1_795_305_600_000;

/// Virtual time since the run began.
pub(super) fn elapsed() -> Duration {
    SimInstant::now().elapsed_since_start()
}

/// The true wall clock, since the Unix epoch.
pub(super) fn true_wall() -> Duration {
    Duration::from_millis(START_MS) + elapsed()
}

/// How far a node's wall clock is off, in milliseconds; outlives its processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew(Arc<AtomicI64>);

impl Skew {
    /// A clock that is `ms` ahead, or behind when negative.
    pub(super) fn new(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    /// What it is now.
    pub(super) fn ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the wall clock anew, as an operator or a bad time server would.
    pub(super) fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

/// The clock of one process.
#[derive(Clone, Debug)]
pub(super) struct SimClock {
    skew: Skew,
    born: SimInstant,
}

impl SimClock {
    /// The clock of a process that begins now.
    pub(super) fn new(skew: Skew) -> Self {
        Self { skew, born: SimInstant::now() }
    }
}

impl Clock for SimClock {
    fn wall(&self) -> UnixMillis {
        let truth = START_MS + elapsed().as_millis() as u64;
        UnixMillis::new(truth.saturating_add_signed(self.skew.0.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Duration {
        SimInstant::now() - self.born
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SimRuntime::sleep(duration))
    }
}

/// Waits until something holds, looking every millisecond; false when it does not within the time.
pub(super) async fn until(holds: impl Fn() -> bool, within: Duration) -> bool {
    let deadline = elapsed() + within;
    while !holds() {
        if elapsed() >= deadline {
            return false;
        }
        SimRuntime::sleep(Duration::from_millis(1)).await;
    }
    true
}
