//! Simulated implementations: a disk that forgets, a clock that is set, bytes from a seed.

mod disk;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use disk::{DiskFaults, Loss, SimDisk, Survived};
use futures::future::BoxFuture;
use types::UnixMillis;

use crate::{Clock, Entropy};

/// Bytes that follow from a seed (SplitMix64). Never to be used outside tests.
#[derive(Debug)]
pub struct SimEntropy(AtomicU64);

impl SimEntropy {
    /// Starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
            z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(z ^ z >> 31).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A clock that stands still until it is moved. Sleeps end when the clock has been moved far enough.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<ManualTime>,
}

#[derive(Debug, Default)]
struct ManualTime {
    wall_ms: u64,
    monotonic: Duration,
    sleepers: Vec<(Duration, futures::channel::oneshot::Sender<()>)>,
}

impl ManualClock {
    /// A clock that shows `wall`.
    pub fn at(wall: UnixMillis) -> Self {
        Self { now: Mutex::new(ManualTime { wall_ms: wall.get(), ..ManualTime::default() }) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut now = self.lock();
        now.wall_ms += by.as_millis() as u64;
        now.monotonic += by;
        let reached = now.monotonic;
        for (_, wake) in now.sleepers.extract_if(.., |(until, _)| *until <= reached) {
            let _ = wake.send(());
        }
    }

    /// Sets the wall clock alone, as an operator or a bad time server would.
    pub fn set_wall(&self, wall: UnixMillis) {
        self.lock().wall_ms = wall.get();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualTime> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMillis {
        UnixMillis::new(self.lock().wall_ms)
    }

    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (wake, woken) = futures::channel::oneshot::channel();
        let mut now = self.lock();
        let until = now.monotonic + duration;
        if duration.is_zero() {
            let _ = wake.send(());
        } else {
            now.sleepers.push((until, wake));
        }
        Box::pin(async move {
            let _ = woken.await;
        })
    }
}
