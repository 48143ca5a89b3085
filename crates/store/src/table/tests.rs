use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use seams::{Entropy, Table, TableRead, sim::SimEntropy};

use super::*;
use crate::log::Drive;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn records(table: &dyn Table) -> Records {
    let mut records = Vec::new();
    table
        .scan(&mut |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    records
}

fn batch(writes: &[(&str, Option<&str>)]) -> TableBatch {
    TableBatch {
        writes: writes.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))).collect(),
    }
}

fn options() -> SledOptions {
    SledOptions { cache_bytes: 1 << 20, ..SledOptions::default() }
}

fn sled(folder: &Path) -> SledTable {
    // The one before lets go of the folder a moment after it was dropped.
    (0..1000)
        .find_map(|_| SledTable::open(folder, options()).inspect_err(|_| std::thread::yield_now()).ok())
        .unwrap_or_else(|| SledTable::open(folder, options()).unwrap())
}

/// What every table does. `reopen` ends the process and begins another.
fn contract(mut table: Box<dyn Table>, reopen: &dyn Fn(Box<dyn Table>) -> Box<dyn Table>) {
    assert_eq!(records(&*table), []);
    assert_eq!(table.get(b"a").unwrap(), None);

    // Sorted by bytes, values may be empty, keys too; the last write of a key wins.
    table
        .write(&batch(&[("b", Some("2")), ("a", Some("1")), ("b", None), ("", Some("")), ("b", Some("3")), ("\u{ff}", Some("4"))]))
        .unwrap();
    let expected: Records = [("", ""), ("a", "1"), ("b", "3"), ("\u{ff}", "4")].map(|(key, value)| (key.into(), value.into())).to_vec();
    assert_eq!(records(&*table), expected);
    assert_eq!(table.get(b"b").unwrap().unwrap(), b"3");
    // A reader sees what is written after it was made.
    let reader = table.reader();
    assert_eq!((reader.get(b"b").unwrap().as_deref(), reader.get(b"c").unwrap()), (Some(&b"3"[..]), None));
    table.write(&batch(&[("c", Some("5"))])).unwrap();
    assert_eq!(reader.get(b"c").unwrap().unwrap(), b"5");

    // Deleting what is not there is fine; an empty batch too.
    table.write(&batch(&[("c", None), ("", None)])).unwrap();
    table.write(&TableBatch::default()).unwrap();
    table.flush().unwrap();
    assert_eq!(records(&*table), expected[1..]);

    // What is too large is refused with its whole batch; what just fits is taken.
    for (key, value) in [(vec![1; KEY_BYTES_MAX + 1], vec![]), (vec![1], vec![1; VALUE_BYTES_MAX + 1])] {
        let mut bad = batch(&[("a", Some("lost"))]);
        bad.put(key, value);
        assert!(table.write(&bad).unwrap_err().to_string().contains("write failed"));
    }
    assert_eq!(records(&*table), expected[1..]);
    let mut large = TableBatch::default();
    large.put(vec![7; KEY_BYTES_MAX], vec![9; VALUE_BYTES_MAX]);
    table.write(&large).unwrap();
    assert_eq!(table.get(&[7; KEY_BYTES_MAX]).unwrap().unwrap(), [9; VALUE_BYTES_MAX]);

    // A visitor's error ends the scan.
    let mut seen = 0;
    let stopped = table.scan(&mut |_, _| {
        seen += 1;
        Err(failed("visit", "enough"))
    });
    assert_eq!((stopped.unwrap_err().to_string().as_str(), seen), ("table visit failed", 1));

    // What was flushed is there afterwards.
    table.write(&batch(&[("last", Some("x"))])).unwrap();
    table.flush().unwrap();
    let before = records(&*table);
    let table = reopen(table);
    assert_eq!(records(&*table), before);
}

#[test]
fn table_in_memory_keeps_the_contract() {
    let medium = MemTable::new();
    contract(Box::new(medium.clone()), &|table| {
        drop(table);
        medium.crash(&SimEntropy::new(1));
        Box::new(medium.clone())
    });
}

#[test]
fn table_over_sled_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    contract(Box::new(sled(&path)), &|table| {
        drop(table);
        Box::new(sled(&path))
    });
}

#[test]
fn tables_fed_the_same_batches_hold_the_same_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let random = SimEntropy::new(5);
    let (mut one, mut other) = (sled(&path), MemTable::new());
    for _ in 0..300 {
        let mut batch = TableBatch::default();
        for _ in 0..random.number() % 20 {
            let key = (random.number() % 200).to_be_bytes();
            if random.number().is_multiple_of(4) {
                batch.delete(key);
            } else {
                batch.put(key, vec![random.number() as u8; (random.number() % 900) as usize]);
            }
        }
        one.write(&batch).unwrap();
        other.write(&batch).unwrap();
    }
    one.flush().unwrap();
    assert_eq!(records(&one), records(&other));
    drop(one);
    assert_eq!(records(&sled(&path)), records(&other));
}

#[test]
fn table_in_memory_crashed_keeps_whole_batches_in_order() {
    let mut kept = [0; 4];
    for seed in 0..60 {
        let medium = MemTable::new();
        let mut table = medium.clone();
        table.write(&batch(&[("durable", Some("1"))])).unwrap();
        table.flush().unwrap();
        for number in ["1", "2", "3"] {
            table.write(&batch(&[("a", Some(number)), ("b", Some(number))])).unwrap();
        }
        medium.crash(&SimEntropy::new(seed));
        let a = medium.get(b"a").unwrap();
        assert_eq!((&a, medium.get(b"durable").unwrap().is_some()), (&medium.get(b"b").unwrap(), true));
        kept[a.map_or(0, |value| usize::from(value[0] - b'0'))] += 1;
    }
    assert!(kept.iter().all(|count| *count > 0), "{kept:?}");
}

#[test]
fn table_opened_twice_refuses_and_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let table = sled(&path);
    let error = SledTable::open(&path, options()).err().unwrap();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("another process holds"));
    assert!(open_or_set_aside(&path, options(), &mut |_, _| Ok(())).is_err());
    assert!(path.exists());
    drop(table);
}

/// Fills a table and returns how many records it has.
fn fill(path: &Path) -> usize {
    let mut table = sled(path);
    for number in 0..400u32 {
        let mut batch = TableBatch::default();
        batch.put(number.to_be_bytes(), [number as u8; 500]);
        table.write(&batch).unwrap();
    }
    table.flush().unwrap();
    400
}

fn reopen(path: &Path) -> (OpenedTable, usize) {
    super::sled::wait_until_free(path).unwrap();
    let mut seen = 0;
    let opened = open_or_set_aside(path, options(), &mut |key, value| {
        seen += 1;
        let number = u32::from_be_bytes(key.try_into().unwrap());
        assert_eq!(value, [number as u8; 500], "never silently wrong");
        Ok(())
    });
    (opened.unwrap(), seen)
}

#[test]
fn table_opened_at_start_is_scanned_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let count = fill(&path);
    let (opened, seen) = reopen(&path);
    assert!(opened.set_aside.is_none());
    assert_eq!(seen, count);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no marker is left");
}

#[test]
fn table_damaged_anywhere_is_a_state_that_was_or_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    fill(&path);
    super::sled::wait_until_free(&path).unwrap();
    let is_file = |entry: &std::fs::DirEntry| entry.file_type().unwrap().is_file();
    let files = std::fs::read_dir(&path).unwrap().map(Result::unwrap).filter(is_file);
    let good: Vec<_> = files.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect();
    let random = SimEntropy::new(3);
    let (mut set_aside, mut older) = (0, 0);
    for _ in 0..60 {
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        for (name, bytes) in &good {
            let mut bytes = bytes.clone();
            if name == "db" {
                let at = random.number() as usize % bytes.len();
                bytes[at] ^= 1 << (random.number() % 8);
            }
            std::fs::write(path.join(name), bytes).unwrap();
        }
        let (opened, seen) = reopen(&path);
        match opened.set_aside {
            Some(aside) => {
                set_aside += 1;
                assert!(aside.folder.exists() && aside.folder.to_string_lossy().contains("table.damaged-"));
                assert_eq!(records(&opened.table).len(), 0, "empty, to be rebuilt");
            }
            // sled may fall back to a state before: a prefix, which the caller sees by the position in it.
            // sled takes some damage for a torn end and falls back to a state before it, without a word: the caller notices by
            // the position in the same batch. It must be one that was, though.
            None => {
                older += 1;
                let numbers: Vec<u32> =
                    records(&opened.table).iter().map(|(key, _)| u32::from_be_bytes(key[..].try_into().unwrap())).collect();
                assert_eq!(numbers, (0..seen as u32).collect::<Vec<_>>());
            }
        }
        drop(opened.table);
        super::sled::wait_until_free(&path).unwrap();
    }
    assert_eq!(set_aside + older, 60);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(left <= 3, "the table and two damaged ones, not {left}");
}

#[test]
fn table_whose_record_is_swapped_for_another_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    fill(&path);
    super::sled::wait_until_free(&path).unwrap();
    let db = ::sled::open(&path).unwrap();
    let other = db.get(1u32.to_be_bytes()).unwrap().unwrap();
    db.insert(2u32.to_be_bytes(), other).unwrap();
    drop(db);
    let (opened, _) = reopen(&path);
    assert!(opened.set_aside.unwrap().cause.to_string().contains("fails its checksum"));
}

#[test]
fn table_that_its_reader_refuses_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    fill(&path);
    super::sled::wait_until_free(&path).unwrap();
    let opened = open_or_set_aside(&path, options(), &mut |_, _| Err(failed("read", "unknown kind"))).unwrap();
    assert_eq!(opened.set_aside.unwrap().cause.to_string(), "table read failed");
}

#[test]
fn table_whose_opening_kills_the_process_is_set_aside_at_the_third_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    fill(&path);
    let marker = folder.path().join("table.opening");
    std::fs::write(&marker, b"x").unwrap();
    assert!(reopen(&path).0.set_aside.is_none(), "one may have been a power loss");
    std::fs::write(&marker, b"xx").unwrap();
    assert!(reopen(&path).0.set_aside.is_some());
    assert!(!marker.exists());
}

#[test]
fn table_overwritten_often_is_copied_and_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let options = SledOptions { compact_bytes_min: 2 << 20, ..options() };
    let mut table = open_or_set_aside(&path, options, &mut |_, _| Ok(())).unwrap().table;
    let reader = table.reader();
    let mut highest = 0;
    for round in 0..60u8 {
        let mut batch = TableBatch::default();
        for number in 0..50u32 {
            batch.put(number.to_be_bytes(), vec![round.wrapping_mul(7) ^ number as u8; 3000]);
        }
        table.write(&batch).unwrap();
        table.flush().unwrap();
        highest = highest.max(table.disk_bytes());
        assert_eq!(reader.get(&3u32.to_be_bytes()).unwrap().unwrap(), [round.wrapping_mul(7) ^ 3; 3000], "readers follow the swap");
    }
    table.compact().unwrap();
    assert!(highest < 8 << 20, "{highest}");
    assert_eq!(records(&table).len(), 50);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no copy is left");
}

/// Writes `rounds` batches of `count` changes to keys anywhere, and keeps the account in `model`.
fn change(table: &mut dyn Table, model: &mut std::collections::BTreeMap<Vec<u8>, Vec<u8>>, entropy: &dyn Entropy, count: u64) {
    let mut batch = TableBatch::default();
    for _ in 0..count {
        let draw = |below: u64| entropy.number() % below;
        let key = format!("{:04}", draw(2000)).into_bytes();
        if draw(4) == 0 {
            batch.delete(key.clone());
            model.remove(&key);
        } else {
            let value = vec![draw(256) as u8; draw(900) as usize];
            batch.put(key.clone(), value.clone());
            model.insert(key, value);
        }
    }
    table.write(&batch).unwrap();
    table.flush().unwrap();
}

#[test]
fn copy_is_made_a_slice_a_flush_and_misses_nothing_that_is_written_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let entropy = SimEntropy::new(7);
    let options = SledOptions { compact_bytes_min: 1 << 20, copy_bytes: 48 << 10, ..options() };
    let opened = |options: &SledOptions| open_or_set_aside(&path, options.clone(), &mut |_, _| Ok(())).unwrap().table;
    let (mut table, mut model) = (opened(&options), std::collections::BTreeMap::new());
    let copying = || folder.path().join("table.compact").exists();
    let (mut begun, mut swapped, mut longest, mut flushes) = (0, 0, 0, 0);
    while swapped < 1 || !copying() {
        let before = copying();
        change(&mut table, &mut model, &entropy, 300);
        begun += usize::from(!before && copying());
        swapped += usize::from(before && !copying());
        flushes = if copying() { flushes + 1 } else { 0 };
        longest = longest.max(flushes);
        assert!(begun < 100, "it ends");
        if before && !copying() {
            assert_eq!(records(&table), model.clone().into_iter().collect::<Records>(), "after copy {swapped}");
        }
    }
    assert!(longest >= 8, "a slice a flush: {longest}");
    // A process that dies in the middle of a copy leaves the table as it was, and no copy.
    drop(table);
    super::sled::wait_until_free(&path).unwrap();
    let table = opened(&options);
    assert_eq!(records(&table), model.into_iter().collect::<Records>());
    assert!(!copying());
}

#[test]
fn table_whose_swap_was_interrupted_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let count = fill(&path);
    super::sled::wait_until_free(&path).unwrap();
    std::fs::create_dir(folder.path().join("table.compact")).unwrap();
    std::fs::rename(&path, folder.path().join("table.old")).unwrap();
    let (opened, seen) = reopen(&path);
    assert!(opened.set_aside.is_none());
    assert_eq!((seen, std::fs::read_dir(folder.path()).unwrap().count()), (count, 1));
}

#[test]
fn sled_record_is_stored_as_format_1_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let mut table = sled(&path);
    table.write(&batch(&[("key", Some("value"))])).unwrap();
    drop(table);
    super::sled::wait_until_free(&path).unwrap();
    let stored = ::sled::open(&path).unwrap().get("key").unwrap().unwrap();
    let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "01c3f2da1c76616c7565");
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Counts what reaches a table, and fails on demand.
#[derive(Clone, Default)]
struct Probe {
    inner: MemTable,
    calls: Arc<Mutex<(Vec<usize>, usize)>>,
    fails: Arc<Mutex<bool>>,
}

impl Table for Probe {
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        self.inner.scan(visit)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.inner.get(key)
    }
    fn reader(&self) -> Arc<dyn TableRead> {
        self.inner.reader()
    }
    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError> {
        self.calls.lock().unwrap().0.push(batch.writes.len());
        self.inner.write(batch)
    }
    fn flush(&mut self) -> Result<(), TableError> {
        if *self.fails.lock().unwrap() {
            return Err(failed("flush", "told to"));
        }
        self.calls.lock().unwrap().1 += 1;
        self.inner.flush()
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
}

#[test]
fn write_behind_merges_what_waits_into_one_flush() {
    let probe = Probe::default();
    let behind = WriteBehind::start(Box::new(probe.clone()), WriteBehindOptions::default(), Drive::Manual).unwrap();
    for mark in 1..=10u64 {
        let value = mark.to_string();
        now(behind.push(mark, batch(&[("a", Some(&value)), (&value, Some("x"))]))).unwrap();
    }
    assert_eq!(behind.durable().mark, 0);
    assert!(behind.run_pending());
    assert!(!behind.run_pending());
    assert_eq!(behind.durable().mark, 10);
    assert_eq!(*probe.calls.lock().unwrap(), (vec![11], 1));
    assert_eq!(probe.get(b"a").unwrap().unwrap(), b"10", "the last one wins");
}

#[test]
fn write_behind_full_makes_the_sender_wait() {
    let options = WriteBehindOptions { queue_bytes_max: 1000, merge_bytes_max: 500, ..WriteBehindOptions::default() };
    let behind = WriteBehind::start(Box::new(MemTable::new()), options, Drive::Manual).unwrap();
    let large = || batch(&[("a", Some(&"x".repeat(800)))]);
    now(behind.push(1, large())).unwrap();
    let mut second = pin!(behind.push(2, large()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert!(behind.run_pending());
    assert!(matches!(second.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    behind.close().unwrap();
    assert_eq!(behind.durable().mark, 2);
    assert!(matches!(now(behind.push(3, large())), Err(WriteBehindError::Closed)));
}

#[test]
fn write_behind_reports_the_first_failure_and_writes_no_more() {
    let probe = Probe::default();
    let behind = WriteBehind::start(Box::new(probe.clone()), WriteBehindOptions::default(), Drive::Inline).unwrap();
    let watch = behind.watch();
    now(behind.push(1, batch(&[("a", Some("1"))]))).unwrap();
    *probe.fails.lock().unwrap() = true;
    now(behind.push(2, batch(&[("a", Some("2"))]))).unwrap();
    *probe.fails.lock().unwrap() = false;
    let durable = watch.borrow().clone();
    assert_eq!((durable.mark, durable.error.unwrap().to_string().as_str()), (1, "table flush failed"));
    assert!(matches!(now(behind.push(3, TableBatch::default())), Err(WriteBehindError::Failed(_))));
    assert!(matches!(behind.close(), Err(WriteBehindError::Failed(_))));
    assert_eq!(probe.calls.lock().unwrap().0.len(), 2);
}

#[test]
fn write_behind_thread_writes_all_before_it_closes() {
    let medium = MemTable::new();
    let options = WriteBehindOptions { linger: Duration::from_millis(1), ..WriteBehindOptions::default() };
    let behind = WriteBehind::start(Box::new(medium.clone()), options, Drive::Thread).unwrap();
    for mark in 1..=200u64 {
        now(behind.push(mark, batch(&[(&mark.to_string(), Some("x")), ("mark", Some(&mark.to_string()))]))).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut watch = behind.watch();
    runtime.block_on(watch.wait_for(|durable| durable.mark == 200)).unwrap();
    behind.close().unwrap();
    medium.crash(&SimEntropy::new(1));
    assert_eq!(records(&medium).len(), 201);
}

#[test]
fn write_behind_thread_lingers_until_there_is_enough_or_it_closes() {
    // Longer than any test run: whatever is written did not wait for it.
    let options = WriteBehindOptions { merge_bytes_max: 20_000, linger: Duration::from_secs(86_400), ..WriteBehindOptions::default() };
    let probe = Probe::default();
    let behind = WriteBehind::start(Box::new(probe.clone()), options, Drive::Thread).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for mark in 1..=100u64 {
        now(behind.push(mark, batch(&[(&mark.to_string(), Some(&"x".repeat(100))), ("mark", Some(&mark.to_string()))]))).unwrap();
    }
    let mut watch = behind.watch();
    let written = runtime.block_on(watch.wait_for(|durable| durable.mark > 0)).unwrap().mark;
    assert!(written > 30, "they were merged: {written}");
    now(behind.push(101, batch(&[("a", Some("1"))]))).unwrap();
    behind.close().unwrap();
    assert_eq!(behind.durable().mark, 101);
    assert!(probe.calls.lock().unwrap().0.len() < 10);
}

#[test]
fn write_behind_crashed_at_any_moment_leaves_records_of_their_mark() {
    for seed in 0..100 {
        let random = SimEntropy::new(seed);
        let medium = MemTable::new();
        let options = WriteBehindOptions { merge_bytes_max: 600, ..WriteBehindOptions::default() };
        let behind = WriteBehind::start(Box::new(medium.clone()), options, Drive::Manual).unwrap();
        for mark in 1..=50u64 {
            let text = mark.to_string();
            now(behind.push(mark, batch(&[("mark", Some(&text)), ("a", Some(&text))]))).unwrap();
            if random.number().is_multiple_of(5) {
                behind.run_pending();
            }
        }
        let durable = behind.durable().mark;
        medium.crash(&random);
        assert_eq!(medium.get(b"mark").unwrap(), medium.get(b"a").unwrap());
        let found = medium.get(b"mark").unwrap().map_or(0, |mark| String::from_utf8(mark).unwrap().parse().unwrap());
        assert!(durable <= found && found <= 50);
    }
}
