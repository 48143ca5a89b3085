//! Background tasks on tokio, each known by name until it has ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use seams::{BoxFuture, Spawn};
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many tasks of each name have not ended.
type Running = Arc<Mutex<BTreeMap<&'static str, usize>>>;

/// Starts tasks on one tokio runtime. Clones share the tracker and the tokens.
///
/// **Concurrency**: usable from any thread, also from those that do not belong to tokio. To stop, the owner refuses new
/// work, then calls [`TokioSpawn::drain`]; tasks that have a loop watch [`TokioSpawn::token`].
#[derive(Clone, Debug)]
pub struct TokioSpawn {
    handle: Handle,
    tracker: TaskTracker,
    running: Running,
    /// Asks tasks to end.
    cancel: CancellationToken,
    /// Drops what did not end in time.
    abandon: CancellationToken,
}

/// Tasks that had not ended at the deadline and were dropped where they stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ended within {deadline:?} and dropped: {}", tasks.join(", "))]
pub struct Undrained {
    /// The deadline that passed.
    pub deadline: Duration,
    /// The names of the tasks, each once.
    pub tasks: Vec<&'static str>,
}

impl TokioSpawn {
    /// Tasks on the runtime of `handle` that are asked to end when `cancel` is cancelled.
    pub fn new(handle: Handle, cancel: CancellationToken) -> Self {
        Self { handle, tracker: TaskTracker::new(), running: Running::default(), cancel, abandon: CancellationToken::new() }
    }

    /// The token that asks all tasks of this spawner to end. Components take a child of it.
    pub fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Cancels the token, then waits until all tasks have ended, at most for `deadline`; after that drops the rest.
    ///
    /// # Errors
    /// [`Undrained`] with the names of the tasks that were dropped.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Undrained> {
        self.cancel.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let tasks = self.running.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        self.abandon.cancel();
        Err(Undrained { deadline, tasks })
    }
}

impl Spawn for TokioSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let entry = Entry::new(name, &self.running);
        let abandon = self.abandon.clone();
        self.tracker.spawn_on(
            async move {
                let _entry = entry;
                abandon.run_until_cancelled_owned(task).await;
            },
            &self.handle,
        );
    }
}

/// A task's line in the table, removed when the task ends in whatever way.
struct Entry {
    name: &'static str,
    running: Running,
}

impl Entry {
    fn new(name: &'static str, running: &Running) -> Self {
        *running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { name, running: running.clone() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_end_when_asked() {
        let tasks = TokioSpawn::new(Handle::current(), CancellationToken::new());
        let (done, finished) = tokio::sync::oneshot::channel();
        let token = tasks.token().child_token();
        tasks.spawn(
            "loop",
            Box::pin(async move {
                token.cancelled().await;
                done.send(()).unwrap();
            }),
        );
        tasks.drain(Duration::from_secs(60)).await.unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn drain_drops_and_names_tasks_that_do_not_end() {
        let tasks = TokioSpawn::new(Handle::current(), CancellationToken::new());
        tasks.spawn("stuck", Box::pin(std::future::pending()));
        tasks.spawn("stuck", Box::pin(std::future::pending()));
        let error = tasks.drain(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.to_string(), "not ended within 0ns and dropped: stuck");
        tasks.tracker.wait().await;
        assert!(tasks.running.lock().unwrap().is_empty());
    }
}
