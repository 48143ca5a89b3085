//! Writing a table behind: batches are taken at once and applied by a thread of their own.
//!
//! Nobody waits for the table: what it holds shortens the next start, and a log holds the rest. So its thread lingers before it writes
//! ([`WriteBehindOptions::linger`]), and what was overwritten meanwhile, such as the mark in each batch, is never written. A flush of sled
//! wakes its threads, writes and syncs, however little there is: at an edge that takes a few writes a second, that was half of all its
//! work.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use seams::{Table, TableBatch, TableError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::log::Drive;

/// What a batch weighs in the queue on top of its bytes.
const BATCH_WEIGHT: usize = 128;
/// What a record weighs on top of its bytes.
const RECORD_WEIGHT: usize = 64;

/// Bounds of a [`WriteBehind`].
#[derive(Clone, Debug)]
pub struct WriteBehindOptions {
    /// How many bytes may wait. When full, the sender waits: what it applies then goes no faster than the disk.
    pub queue_bytes_max: usize,
    /// How many bytes of waiting batches are merged into one at most (a single larger one still goes in one).
    pub merge_bytes_max: usize,
    /// How long the thread waits for more, unless enough has come to be merged or the table is being closed. For [`Drive::Thread`].
    pub linger: Duration,
}

impl Default for WriteBehindOptions {
    /// 64 MiB, 2 MiB, and two seconds: a start has to make up for at most that much more of the log, some 0.2 s of work after two
    /// seconds of many writes. What sled replaces while it takes one batch is in memory until that is written, about 10 KiB a record.
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, merge_bytes_max: 2 << 20, linger: Duration::from_secs(2) }
    }
}

impl WriteBehindOptions {
    /// What is worth writing without waiting for more: senders must not come to wait for room while the thread lingers.
    fn enough_bytes(&self) -> usize {
        self.merge_bytes_max.min(self.queue_bytes_max / 2)
    }
}

/// How far a table is durable.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The mark of the last durable batch; 0 before the first.
    pub mark: u64,
    /// The first failure; after it nothing more is written.
    pub error: Option<Arc<TableError>>,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteBehindError {
    /// The table failed, now or earlier.
    #[error("the table failed and is no longer written; it is rebuilt at the next start")]
    Failed(#[source] Arc<TableError>),
    /// It was closed.
    #[error("the table is closed")]
    Closed,
}

/// Applies batches to a table in their order, off the caller's path; clones share it. What waits is merged into one batch and one
/// flush. When the last clone is dropped, what waits is still written, then the thread ends.
#[derive(Clone)]
pub struct WriteBehind {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().closing = true;
        self.0.wake.notify_all();
    }
}

struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
    permits: Arc<Semaphore>,
    durable: watch::Sender<Durable>,
    options: WriteBehindOptions,
    drive: Drive,
    thread: Mutex<Option<JoinHandle<()>>>,
    written: OnceLock<Written>,
}

/// Told the mark of each batch that was written.
type Written = Box<dyn Fn(u64) + Send + Sync>;

struct Inner {
    queue: VecDeque<Queued>,
    /// The weight of all that is queued.
    bytes: usize,
    /// Taken out by whoever writes to it; gone after a failure or the end.
    table: Option<Box<dyn Table>>,
    closing: bool,
}

struct Queued {
    mark: u64,
    batch: TableBatch,
    weight: usize,
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, up to the merge limit. False when there was nothing to do, or another has the table.
    fn turn(&self) -> bool {
        let mut inner = self.lock();
        if inner.queue.is_empty() {
            return false;
        }
        let Some(mut table) = inner.table.take() else { return false };
        let merged = self.merge(&mut inner);
        drop(inner);
        let (mark, batch, permits) = merged;
        let written = if batch.writes.is_empty() { Ok(()) } else { table.write(&batch).and_then(|()| table.flush()) };
        match written {
            Ok(()) => {
                if let Some(written) = self.written.get() {
                    written(mark);
                }
                self.lock().table = Some(table);
                self.durable.send_modify(|durable| durable.mark = mark);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the table failed; it is rebuilt at the next start");
                self.fail(error);
            }
        }
        drop(permits);
        true
    }

    /// The batches in front as one, where the last write of a key wins.
    fn merge(&self, inner: &mut Inner) -> (u64, TableBatch, Vec<OwnedSemaphorePermit>) {
        let (mut records, mut permits, mut mark, mut bytes) = (BTreeMap::new(), Vec::new(), 0, 0usize);
        while let Some(queued) = inner.queue.pop_front_if(|next| permits.is_empty() || bytes + next.weight <= self.options.merge_bytes_max)
        {
            bytes += queued.weight;
            mark = queued.mark;
            permits.push(queued._permit);
            records.extend(queued.batch.writes);
        }
        inner.bytes -= bytes;
        metrics::counter!("cinnabar_table_merged_batches_total").increment(permits.len() as u64);
        metrics::counter!("cinnabar_table_flushes_total").increment(1);
        (mark, TableBatch { writes: records.into_iter().collect() }, permits)
    }

    fn fail(&self, error: TableError) {
        let error = Arc::new(error);
        self.durable.send_modify(|durable| {
            durable.error.get_or_insert(error);
        });
        // Senders that wait for room see the failure as soon as the permits are back.
        let mut inner = self.lock();
        inner.queue.clear();
        inner.bytes = 0;
    }

    fn run(&self) {
        let _guard = DiedGuard(self);
        loop {
            let mut inner = self.lock();
            while inner.table.is_some() && inner.queue.is_empty() && !inner.closing {
                inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            if inner.table.is_none() || inner.queue.is_empty() {
                break;
            }
            let lingers = |inner: &mut Inner| !inner.closing && inner.bytes < self.options.enough_bytes();
            drop(self.wake.wait_timeout_while(inner, self.options.linger, lingers).unwrap_or_else(PoisonError::into_inner));
            while self.turn() {}
        }
        self.end();
    }

    fn end(&self) {
        let table = self.lock().table.take();
        drop(table);
    }

    fn state(&self) -> Result<(), WriteBehindError> {
        match &self.durable.borrow().error {
            Some(error) => Err(WriteBehindError::Failed(error.clone())),
            None => Ok(()),
        }
    }
}

/// Reports a thread that unwound, so that nobody waits for it for ever.
struct DiedGuard<'a>(&'a Shared);

impl Drop for DiedGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(super::failed("write", "the writing thread ended unexpectedly"));
        }
    }
}

impl WriteBehind {
    /// Takes the table over.
    ///
    /// # Errors
    /// [`TableError`] when no thread can be started.
    pub fn start(table: Box<dyn Table>, options: WriteBehindOptions, drive: Drive) -> Result<Self, TableError> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { queue: VecDeque::new(), bytes: 0, table: Some(table), closing: false }),
            wake: Condvar::new(),
            permits: Arc::new(Semaphore::new(permits_max(&options))),
            durable: watch::Sender::new(Durable::default()),
            options,
            drive,
            thread: Mutex::new(None),
            written: OnceLock::new(),
        });
        if drive == Drive::Thread {
            let runner = shared.clone();
            let spawned = std::thread::Builder::new().name("table".into()).spawn(move || runner.run());
            let thread = spawned.map_err(|error| TableError::Failed { operation: "start", source: Box::new(error) })?;
            *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        Ok(Self { _open: Arc::new(Open(shared.clone())), shared })
    }

    /// Tells `written` the mark of each batch that can be read in the table and is durable there, on the writing thread and in order.
    /// To be called once, before the first batch.
    pub fn on_written(&self, written: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.shared.written.set(Box::new(written));
    }

    /// Hands over a batch; waits while the queue is full. Marks must not go down. Cancelled while waiting, it has done nothing.
    ///
    /// # Errors
    /// [`WriteBehindError`]; then the batch was not taken.
    pub async fn push(&self, mark: u64, batch: TableBatch) -> Result<(), WriteBehindError> {
        let weigh = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| RECORD_WEIGHT + key.len() + value.as_ref().map_or(0, Vec::len);
        let weight = BATCH_WEIGHT + batch.writes.iter().map(weigh).sum::<usize>();
        let permits = weight.min(permits_max(&self.shared.options)) as u32;
        let permit = self.shared.permits.clone().acquire_many_owned(permits).await.map_err(|_| WriteBehindError::Closed)?;
        let wakes = {
            let mut inner = self.shared.lock();
            self.shared.state()?;
            if inner.closing {
                return Err(WriteBehindError::Closed);
            }
            let (first, enough) = (inner.queue.is_empty(), self.shared.options.enough_bytes());
            let before = inner.bytes;
            inner.bytes += weight;
            inner.queue.push_back(Queued { mark, batch, weight, _permit: permit });
            first || (before < enough && inner.bytes >= enough)
        };
        match self.shared.drive {
            // A thread that lingers is left alone until there is enough.
            Drive::Thread if wakes => self.shared.wake.notify_all(),
            Drive::Thread => {}
            Drive::Inline => while self.shared.turn() {},
            Drive::Manual => {}
        }
        Ok(())
    }

    /// How far the table is durable.
    pub fn durable(&self) -> Durable {
        self.shared.durable.borrow().clone()
    }

    /// Tells of each change of it.
    pub fn watch(&self) -> watch::Receiver<Durable> {
        self.shared.durable.subscribe()
    }

    /// Writes some of what waits; false when there is nothing. For [`Drive::Manual`].
    pub fn run_pending(&self) -> bool {
        self.shared.turn()
    }

    /// Writes what waits, ends the thread and drops the table. Blocks. Later batches are refused.
    ///
    /// # Errors
    /// [`WriteBehindError::Failed`] when the table has failed.
    pub fn close(&self) -> Result<(), WriteBehindError> {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) => {
                let _ = thread.join();
            }
            None if self.shared.drive == Drive::Thread => {}
            None => {
                while self.shared.turn() {}
                self.shared.end();
            }
        }
        self.shared.state()
    }
}

fn permits_max(options: &WriteBehindOptions) -> usize {
    options.queue_bytes_max.clamp(BATCH_WEIGHT, u32::MAX as usize >> 1)
}
