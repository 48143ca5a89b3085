//! Processes in one thread: who runs on whose behalf, so that a crash ends all of a process's tasks and nobody else's.
//!
//! [`NodeRuntime`] is openraft's simulated runtime with one thing added: a task that is spawned while a task of a [`Process`] is
//! being polled belongs to that process too. Killing the process drops the futures of all its tasks at once; what they own (links,
//! files, timers) goes with them. Everything else (virtual time, the order of polls, randomness) is openraft-rt-sim's.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::SimRuntime;
use seams::{BoxFuture, Spawn};

/// What a voter's log waits for its disk at most, between two groups; nothing else sleeps so briefly, but for tries that are repeated.
const DISK_WORK_MAX: Duration = Duration::from_millis(3);

thread_local! {
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// Locks. A task that panicked is reported as such; what it held is read on as it was left.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tasks of one running process. Clones share it.
#[derive(Clone)]
pub(super) struct Process(Arc<Mutex<Tasks>>);

#[derive(Default)]
struct Tasks {
    /// Short sleeps, which stand for the work of a disk, take so many times as long; 0 and 1 for as long as they take.
    slow: u32,
    next: u64,
    /// By the order of spawning, which is the order of dropping.
    alive: BTreeMap<u64, Arc<dyn Kill>>,
    dead: bool,
    panics: u64,
}

trait Kill: Send + Sync {
    /// Drops the future, wherever it waits.
    fn kill(&self);
}

struct Slot<F>(Mutex<Option<Pin<Box<F>>>>);

impl<F: Future + Send> Kill for Slot<F> {
    fn kill(&self) {
        let future = lock(&self.0).take();
        drop(future);
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// A process without tasks.
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Starts a task of this process.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let _inside = Inside::enter(self.clone());
        drop(NodeRuntime::spawn(future));
    }

    /// Starts a task of this process and waits for its result from outside; none when the process dies first.
    pub(super) async fn call<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            // Nobody may be waiting any more.
            let _ = done.send(future.await);
        });
        result.await.ok()
    }

    /// Runs a future in the caller's own task, on behalf of this process: what it spawns belongs to the process.
    pub(super) async fn inside<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            let _inside = Inside::enter(self.clone());
            future.as_mut().poll(context)
        })
        .await
    }

    /// Ends the process between two polls: all its futures are dropped, oldest first, and it starts no more.
    pub(super) fn kill(&self) {
        let alive = {
            let mut tasks = lock(&self.0);
            tasks.dead = true;
            std::mem::take(&mut tasks.alive)
        };
        let _inside = Inside::enter(self.clone());
        for task in alive.into_values() {
            task.kill();
        }
    }

    /// Its disk takes so many times as long.
    pub(super) fn slow_disk(&self, times: u32) {
        lock(&self.0).slow = times;
    }

    /// How many of its tasks have panicked.
    pub(super) fn panics(&self) -> u64 {
        lock(&self.0).panics
    }

    fn adopt(&self, task: Arc<dyn Kill>) -> Option<u64> {
        let mut tasks = lock(&self.0);
        if tasks.dead {
            drop(tasks);
            task.kill();
            return None;
        }
        let id = tasks.next;
        tasks.next += 1;
        tasks.alive.insert(id, task);
        Some(id)
    }

    fn finished(&self, id: u64, panicked: bool) {
        let mut tasks = lock(&self.0);
        tasks.alive.remove(&id);
        tasks.panics += u64::from(panicked);
    }
}

/// While it lives, what is spawned belongs to a process.
struct Inside(Option<Process>);

impl Inside {
    fn enter(process: Process) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(process))))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with(|current| current.replace(before));
    }
}

/// A task of a process: polls the future as long as there is one. Once killed it never ends, and nobody is left to wait for it.
struct Member<F: Future> {
    process: Process,
    id: Option<u64>,
    slot: Arc<Slot<F>>,
}

/// Counts a panic on its way through.
struct Watch<'a>(&'a Process, u64);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.finished(self.1, true);
        }
    }
}

impl<F: Future> Future for Member<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let Some(id) = this.id else { return Poll::Pending };
        let _inside = Inside::enter(this.process.clone());
        let _watch = Watch(&this.process, id);
        let mut slot = lock(&this.slot.0);
        let Some(future) = slot.as_mut() else { return Poll::Pending };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            let ended = slot.take();
            drop(slot);
            drop(ended);
            this.process.finished(id, false);
        }
        polled
    }
}

/// openraft's simulated runtime, with tasks that belong to processes.
#[derive(Debug)]
pub(super) struct NodeRuntime(SimRuntime);

impl NodeRuntime {
    /// A runtime whose randomness follows from `seed`.
    pub(super) fn with_seed(seed: u64) -> Self {
        Self(SimRuntime::with_seed(seed))
    }
}

impl AsyncRuntime for NodeRuntime {
    type JoinError = <SimRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = <SimRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <SimRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match CURRENT.with(|current| current.borrow().clone()) {
            None => SimRuntime::spawn(future),
            Some(process) => {
                let slot = Arc::new(Slot(Mutex::new(Some(Box::pin(future)))));
                let id = process.adopt(slot.clone());
                SimRuntime::spawn(Member { process, id, slot })
            }
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        let slow = match CURRENT.with(|current| current.borrow().clone()) {
            Some(process) if duration <= DISK_WORK_MAX => lock(&process.0).slow.max(1),
            _ => 1,
        };
        SimRuntime::sleep(duration * slow)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(<SimRuntime as AsyncRuntime>::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }

    /// There is no other thread: the work is refused, so that whoever forgot to ask for inline work is found.
    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SimRuntime::spawn_blocking(work)
    }
}

/// Starts tasks of a process for code that is written against the seams.
impl Spawn for Process {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        Self::spawn(self, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_killed_loses_the_tasks_its_tasks_spawned_and_no_others() {
        let mut runtime = NodeRuntime::with_seed(1);
        let counts = Arc::new(Mutex::new((0, 0)));
        runtime.block_on(async {
            let process = Process::new();
            let inner = counts.clone();
            process.spawn(async move {
                drop(NodeRuntime::spawn(async move {
                    loop {
                        NodeRuntime::sleep(Duration::from_secs(1)).await;
                        lock(&inner).0 += 1;
                    }
                }));
            });
            let outer = counts.clone();
            drop(NodeRuntime::spawn(async move {
                loop {
                    NodeRuntime::sleep(Duration::from_secs(1)).await;
                    lock(&outer).1 += 1;
                }
            }));
            NodeRuntime::sleep(Duration::from_millis(2500)).await;
            process.kill();
            NodeRuntime::sleep(Duration::from_millis(2000)).await;
            assert_eq!(process.call(async { 1 }).await, None, "a dead process starts nothing");
        });
        assert_eq!(*lock(&counts), (2, 4));
    }

    #[test]
    fn process_counts_the_panics_of_its_tasks() {
        let mut runtime = NodeRuntime::with_seed(1);
        runtime.block_on(async {
            let process = Process::new();
            assert_eq!(process.call(async { panic!("on purpose") }).await, None::<()>);
            assert_eq!(process.panics(), 1);
        });
    }
}
