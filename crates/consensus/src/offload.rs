//! Where blocking disk work runs.

use std::{io, marker::PhantomData};

use store::Drive;

use crate::Runtime;

/// Runs blocking work on the runtime's blocking threads, or in place in a simulation.
pub(crate) struct Offload<R> {
    drive: Drive,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Clone for Offload<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Offload<R> {}

impl<R: Runtime> Offload<R> {
    pub(crate) fn new(drive: Drive) -> Self {
        Self { drive, runtime: PhantomData }
    }

    /// Runs `work`. Once begun it runs to its end, even if the future is dropped.
    ///
    /// # Errors
    /// Its own, or that the runtime is going down.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        match self.drive {
            Drive::Inline | Drive::Manual => work(),
            Drive::Thread => R::spawn_blocking(work).await?,
        }
    }
}
