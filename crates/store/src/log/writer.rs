//! Writing a log: a bounded queue, drained in groups by whoever drives it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use bytes::Bytes;
use seams::Disk;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Cut, Done, Drive, ENTRY_BYTES_MAX, LogError, LogOptions, LogReader, Operation, SMALL_BYTES_MAX, SegmentLog, Slot,
    format::ENTRY_HEADER_BYTES,
    view::{ReadFile, View},
};

/// The most bytes of one append: it goes into one block.
const APPEND_BYTES_MAX: usize = 64 << 20;

/// What an operation without entries weighs in the queue.
const SMALL_WEIGHT: usize = 256;

/// The writing handle; clones share the log. When the last one is dropped, what waits is still written, then the thread ends.
#[derive(Clone)]
pub struct LogWriter {
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

pub(super) struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
    permits: Arc<Semaphore>,
    options: LogOptions,
    drive: Drive,
    cut: Option<Cut>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Inner {
    pub(super) view: View,
    queue: VecDeque<Queued>,
    next_id: u64,
    /// Taken out by whoever writes with it.
    log: Option<Box<SegmentLog>>,
    failed: Option<Arc<LogError>>,
    closing: bool,
}

struct Queued {
    id: u64,
    operation: Operation,
    done: Done,
    weight: usize,
    _permit: OwnedSemaphorePermit,
}

impl Inner {
    /// # Errors
    /// The failure that stopped the log.
    pub(super) fn running(&self) -> Result<(), Arc<LogError>> {
        match &self.failed {
            Some(cause) => Err(cause.clone()),
            None => Ok(()),
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one group, or prepares the next segment when nothing waits. False when there was nothing to do, or another has the log.
    fn turn(&self) -> bool {
        let mut inner = self.lock();
        if inner.queue.is_empty() {
            return self.idle_turn(inner);
        }
        let Some(mut log) = inner.log.take() else { return false };
        let group = self.group(&mut inner.queue);
        drop(inner);

        let (operations, waiting): (Vec<_>, Vec<_>) =
            group.into_iter().map(|queued| (queued.operation, (queued.id, queued.done, queued._permit))).unzip();
        let result = log.commit(&operations).map_err(Arc::new);

        let mut inner = self.lock();
        let mut dropped = VecDeque::new();
        match &result {
            Ok(located) => {
                let mut rest = located.as_slice();
                for (operation, (id, ..)) in operations.iter().zip(&waiting) {
                    if let Operation::Append { first, entries } = operation {
                        let (own, others) = rest.split_at(entries.len().min(rest.len()));
                        inner.view.settle(*id, *first, own);
                        rest = others;
                    }
                }
                inner.view.set_files(log.numbers(), read_files(&log));
            }
            Err(error) => {
                inner.failed = Some(error.clone());
                dropped = std::mem::take(&mut inner.queue);
                tracing::error!(
                    error = &**error as &dyn std::error::Error,
                    "the log has stopped: nothing is written until it is opened again"
                );
            }
        }
        inner.log = Some(log);
        drop(inner);

        metrics::counter!("cinnabar_log_operations_total", "log" => self.options.name).increment(operations.len() as u64);
        for (_, done, permit) in waiting {
            drop(permit);
            done(result.as_ref().map(|_| ()).map_err(Arc::clone));
        }
        if let Err(error) = &result {
            dropped.into_iter().for_each(|queued| (queued.done)(Err(error.clone())));
        }
        true
    }

    fn idle_turn(&self, mut inner: MutexGuard<'_, Inner>) -> bool {
        let Some(mut log) = inner.log.take_if(|log| log.wants_spare()) else { return false };
        drop(inner);
        log.prepare_spare();
        self.lock().log = Some(log);
        true
    }

    fn group(&self, queue: &mut VecDeque<Queued>) -> Vec<Queued> {
        let (mut group, mut bytes) = (Vec::new(), 0usize);
        while let Some(queued) = queue.pop_front_if(|next| group.is_empty() || bytes + next.weight <= self.options.group_bytes_max) {
            bytes += queued.weight;
            group.push(queued);
        }
        group
    }

    fn finish(&self) {
        let Some(mut log) = self.lock().log.take() else { return };
        if let Err(error) = log.finish() {
            self.lock().failed.get_or_insert(Arc::new(error));
        }
    }

    fn run(&self) {
        let _guard = DiedGuard(self);
        loop {
            while self.turn() {}
            let inner = self.lock();
            // Whoever writes a group in the place of this thread gives the log back, and wakes it where something is left to do.
            let lent = inner.log.is_none() && inner.failed.is_none();
            if inner.queue.is_empty() && inner.closing && !lent {
                break;
            }
            if inner.queue.is_empty() || lent {
                drop(self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.finish();
    }

    /// Writes what waits in the thread of the caller, if nobody is writing now: else whoever does goes on with it.
    fn write_here(&self) {
        let _guard = DiedGuard(self);
        let inner = self.lock();
        let free = inner.log.is_some() && !inner.queue.is_empty();
        drop(inner);
        if free {
            self.turn();
        }
        let inner = self.lock();
        let left = !inner.queue.is_empty() || inner.closing || inner.log.as_ref().is_some_and(|log| log.wants_spare());
        drop(inner);
        if left {
            self.wake.notify_all();
        }
    }
}

fn read_files(log: &SegmentLog) -> impl Iterator<Item = (u64, ReadFile)> {
    log.files().map(|(number, path, file)| (number, ReadFile { path: path.clone(), file: file.clone() }))
}

/// Stops the log when the thread that writes unwinds, so that nobody waits for it for ever.
struct DiedGuard<'a>(&'a Shared);

impl Drop for DiedGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let died = Arc::new(LogError::WriterDied);
            let mut inner = self.0.lock();
            inner.failed.get_or_insert(died.clone());
            let dropped = std::mem::take(&mut inner.queue);
            drop(inner);
            self.0.wake.notify_all();
            dropped.into_iter().for_each(|queued| (queued.done)(Err(died.clone())));
        }
    }
}

impl LogWriter {
    /// Opens or creates the log. Reads all of it: blocks.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Newer`], [`LogError::Io`], [`LogError::Full`], [`LogError::Option`].
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions, drive: Drive) -> Result<(Self, LogReader), LogError> {
        let (log, mut recovered) = SegmentLog::open(disk, &options)?;
        let cut = recovered.cut.take();
        let mut view = View::new(recovered, options.cache_bytes_max);
        view.set_files(log.numbers(), read_files(&log));
        let inner = Inner { view, queue: VecDeque::new(), next_id: 1, log: Some(Box::new(log)), failed: None, closing: false };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            permits: Arc::new(Semaphore::new(options.queue_bytes_max.clamp(SMALL_WEIGHT, u32::MAX as usize >> 1))),
            options,
            drive,
            cut,
            thread: Mutex::new(None),
        });
        if drive == Drive::Thread {
            let runner = shared.clone();
            let spawned = std::thread::Builder::new().name("log".into()).spawn(move || runner.run());
            let thread = spawned.map_err(LogError::io("start the thread for", &shared.options.folder))?;
            *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        let reader = LogReader { shared: shared.clone() };
        Ok((Self { _open: Arc::new(Open(shared.clone())), shared }, reader))
    }

    /// Appends entries at `first`, which must be the next index. They are readable on return, and durable when `done` is called.
    /// Waits while the queue is full; cancelled while waiting, it has done nothing. On an error nothing was appended, and
    /// `done` is dropped without a call.
    ///
    /// # Errors
    /// [`LogError::Gap`], [`LogError::TooLarge`] (an entry over 16 MiB, or 64 MiB in all), [`LogError::Closed`], or the failure
    /// that stopped the log.
    pub async fn append(&self, first: u64, entries: Vec<Bytes>, done: Done) -> Result<(), Arc<LogError>> {
        check_entries(&entries)?;
        self.enqueue(Operation::Append { first, entries }, done).await
    }

    /// As [`LogWriter::append`], and with [`Drive::Thread`] the group is written in the thread of the caller, which may block, if
    /// nobody is writing now: for who would wait for `done` anyway, two changes of threads less.
    ///
    /// # Errors
    /// As of [`LogWriter::append`].
    pub async fn append_here(&self, first: u64, entries: Vec<Bytes>, done: Done) -> Result<(), Arc<LogError>> {
        check_entries(&entries)?;
        self.queue(Operation::Append { first, entries }, done).await?;
        match self.shared.drive {
            Drive::Thread => self.shared.write_here(),
            Drive::Inline | Drive::Manual => self.drive(),
        }
        Ok(())
    }

    /// Removes the entries from `index` on. As [`LogWriter::append`] otherwise.
    ///
    /// # Errors
    /// [`LogError::Gap`] behind the end, [`LogError::Purged`] before the start, [`LogError::Closed`], or the failure that stopped the log.
    pub async fn truncate_from(&self, index: u64, done: Done) -> Result<(), Arc<LogError>> {
        self.enqueue(Operation::Truncate { from: index }, done).await
    }

    /// Removes the entries before `index` and keeps `note` (the last purged log id, say) with that mark. An index past the end
    /// empties the log, which goes on there; one at or before the first changes nothing, not even the note. Whole segments are
    /// unlinked before `done` is called.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] for a note over 1 KiB, [`LogError::Closed`], or the failure that stopped the log.
    pub async fn purge_before(&self, index: u64, note: Bytes, done: Done) -> Result<(), Arc<LogError>> {
        limit("purge note", note.len(), SMALL_BYTES_MAX)?;
        self.enqueue(Operation::Purge { before: index, note }, done).await
    }

    /// Replaces a slot's value. Visible on return; durable as [`Slot`] says when `done` is called.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] for a value over 1 KiB, [`LogError::Closed`], or the failure that stopped the log.
    pub async fn write_slot(&self, slot: Slot, bytes: Bytes, done: Done) -> Result<(), Arc<LogError>> {
        limit("slot", bytes.len(), SMALL_BYTES_MAX)?;
        self.enqueue(Operation::Slot { slot, bytes }, done).await
    }

    async fn enqueue(&self, operation: Operation, done: Done) -> Result<(), Arc<LogError>> {
        self.queue(operation, done).await?;
        self.drive();
        Ok(())
    }

    /// Makes an operation visible, and leaves it to be written.
    async fn queue(&self, operation: Operation, done: Done) -> Result<(), Arc<LogError>> {
        let weight = operation.encoded_len().max(SMALL_WEIGHT);
        // A single operation larger than the queue waits until the queue is empty.
        let permits = weight.min(self.shared.options.queue_bytes_max.clamp(SMALL_WEIGHT, u32::MAX as usize >> 1)) as u32;
        let permit = self.shared.permits.clone().acquire_many_owned(permits).await.map_err(|_| Arc::new(LogError::Closed))?;
        let mut inner = self.shared.lock();
        inner.running()?;
        if inner.closing {
            return Err(Arc::new(LogError::Closed));
        }
        // One that changes nothing takes its turn all the same: its `done` means that all before it is durable.
        let changes = inner.view.check(&operation)?;
        let operation = if changes { operation } else { Operation::Append { first: inner.view.next(), entries: Vec::new() } };
        let id = inner.next_id;
        inner.next_id += 1;
        inner.view.show(id, &operation);
        inner.queue.push_back(Queued { id, operation, done, weight, _permit: permit });
        Ok(())
    }

    /// Sees to what is queued.
    fn drive(&self) {
        match self.shared.drive {
            Drive::Thread => self.shared.wake.notify_all(),
            Drive::Inline => while self.shared.turn() {},
            Drive::Manual => {}
        }
    }

    /// Writes one group, or does other work that is due; false when there is none. For [`Drive::Manual`].
    pub fn run_pending(&self) -> bool {
        self.shared.turn()
    }

    /// A reading handle.
    pub fn reader(&self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }

    /// What was cut when the log was opened.
    pub fn cut(&self) -> Option<&Cut> {
        self.shared.cut.as_ref()
    }

    /// Writes what waits, marks the end as durable and ends the thread. Blocks. Later operations fail with [`LogError::Closed`].
    ///
    /// # Errors
    /// The failure that stopped the log.
    pub fn close(&self) -> Result<(), Arc<LogError>> {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            // From within a `done`: the thread ends by itself.
            Some(thread) if thread.thread().id() == std::thread::current().id() => {}
            Some(thread) => {
                let _ = thread.join();
            }
            None if self.shared.drive == Drive::Thread => {}
            None => {
                while self.shared.turn() {}
                self.shared.finish();
            }
        }
        self.shared.lock().running()
    }
}

fn check_entries(entries: &[Bytes]) -> Result<(), Arc<LogError>> {
    let longest = entries.iter().map(Bytes::len).max().unwrap_or(0);
    limit("entry", longest, ENTRY_BYTES_MAX)?;
    limit("append", entries.iter().map(|entry| entry.len() + ENTRY_HEADER_BYTES).sum(), APPEND_BYTES_MAX)
}

fn limit(what: &'static str, got: usize, max: usize) -> Result<(), Arc<LogError>> {
    if got > max { Err(Arc::new(LogError::TooLarge { what, got, max })) } else { Ok(()) }
}
