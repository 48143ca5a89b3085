//! Tests of the log on the simulated disk: reading and writing, crashes, damage, failures, and the fixture of its format.

mod basics;
mod crash;
mod damage;
mod failure;
mod fixture;

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use seams::{Disk, sim::SimDisk};

use super::{Done, Drive, LogError, LogOptions, LogReader, LogWriter, Slot, completion};

const FOLDER: &str = "data/log";

/// The result of a future that need not wait.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096, cache_bytes_max: 300, queue_bytes_max: 1 << 20, group_bytes_max: 2048, ..LogOptions::new(FOLDER) }
}

fn open(disk: &SimDisk, drive: Drive) -> Result<(LogWriter, LogReader), LogError> {
    LogWriter::open(Arc::new(disk.clone()), options(), drive)
}

fn entry(index: u64, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (index as usize * 31 + at + 1) as u8).collect()
}

fn entries(from: u64, to: u64, bytes: usize) -> Vec<Bytes> {
    (from..to).map(|index| entry(index, bytes)).collect()
}

fn ignore() -> Done {
    Box::new(|_| {})
}

/// Appends with a log that is driven inline, and waits until it is durable.
fn append(log: &LogWriter, first: u64, entries: Vec<Bytes>) -> Result<(), Arc<LogError>> {
    let (done, durable) = completion();
    now(log.append(first, entries, done))?;
    now(durable)
}

fn vote(log: &LogWriter, bytes: &[u8]) -> Result<(), Arc<LogError>> {
    let (done, durable) = completion();
    now(log.write_slot(Slot::Vote, Bytes::copy_from_slice(bytes), done))?;
    now(durable)
}

fn purge(log: &LogWriter, before: u64, note: &[u8]) -> Result<(), Arc<LogError>> {
    let (done, durable) = completion();
    now(log.purge_before(before, Bytes::copy_from_slice(note), done))?;
    now(durable)
}

fn all(reader: &LogReader) -> Vec<(u64, Bytes)> {
    reader.read(0..u64::MAX, usize::MAX).unwrap()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new(FOLDER)).unwrap().into_iter().filter(|name| name.ends_with(".seg")).collect()
}

/// Another disk with the same files.
fn copy(disk: &SimDisk) -> SimDisk {
    let other = SimDisk::new();
    for path in disk.files() {
        let file = other.open(&path, seams::OpenMode::CreateNew).unwrap();
        file.write_all_at(&disk.read(&path).unwrap(), 0).unwrap();
        file.sync_data().unwrap();
    }
    other.sync_dir(Path::new(FOLDER)).unwrap();
    other
}
