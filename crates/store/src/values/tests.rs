use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use seams::{
    Entropy, Table, TableBatch,
    sim::{DiskFaults, SimDisk, SimEntropy},
};

use super::*;
use crate::MemTable;

const FIRST: u8 = 2;
const FOLDER: &str = "data/values";

fn key(number: u8) -> Vec<u8> {
    vec![FIRST, number, number ^ 0x5a]
}

fn value(number: u8) -> Vec<u8> {
    vec![number; 3000]
}

fn files(disk: &SimDisk) -> ValueFiles {
    ValueFiles::new(Arc::new(disk.clone()), FOLDER, FIRST)
}

fn scanned(table: &dyn Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = Vec::new();
    table
        .scan(&mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    assert!(all.is_sorted(), "by rising key");
    all.into_iter().collect()
}

/// Records 1 and 2, values 7 and 200.
fn scene() -> (SimDisk, SplitTable) {
    let disk = SimDisk::new();
    let mut table = SplitTable::new(Box::new(MemTable::new()), files(&disk));
    let mut batch = TableBatch::default();
    for number in [200, 7] {
        batch.put(key(number), value(number));
    }
    batch.put([1], *b"one");
    batch.put([0], *b"zero");
    table.write(&batch).unwrap();
    (disk, table)
}

#[test]
fn split_table_shows_records_and_values_as_one_and_keeps_values_out_of_the_records() {
    let (disk, table) = scene();
    let all = scanned(&table);
    assert_eq!(all.keys().cloned().collect::<Vec<_>>(), [vec![0], vec![1], key(7), key(200)]);
    assert_eq!(all[&key(200)], value(200));
    let reader = table.reader();
    assert_eq!(reader.get(&key(7)).unwrap(), Some(value(7)));
    assert_eq!((reader.get(&[1]).unwrap().as_deref(), reader.get(&key(8)).unwrap()), (Some(&b"one"[..]), None));
    assert_eq!(disk.files(), [PathBuf::from("data/values/07/075d"), PathBuf::from("data/values/c8/c892")]);
}

#[test]
fn split_table_removes_a_value_with_the_flush_after_its_deletion_unless_it_is_put_again() {
    let (disk, mut table) = scene();
    let mut batch = TableBatch::default();
    batch.delete(key(7));
    batch.delete(key(200));
    batch.delete(key(99));
    table.write(&batch).unwrap();
    assert_eq!(disk.files().len(), 2, "a crash may bring back the records that name them");
    let mut batch = TableBatch::default();
    batch.put(key(200), value(200));
    table.write(&batch).unwrap();
    table.flush().unwrap();
    assert_eq!((table.get(&key(7)).unwrap(), table.get(&key(200)).unwrap()), (None, Some(value(200))));
    assert_eq!(disk.files().len(), 1);
}

#[test]
fn split_table_refuses_what_it_could_not_find_again() {
    let (_, mut table) = scene();
    for key in [vec![FIRST], vec![FIRST; NAME_BYTES_MAX + 2], vec![FIRST + 1]] {
        let mut batch = TableBatch::default();
        batch.put(key, *b"x");
        assert!(table.write(&batch).unwrap_err().to_string().contains("write failed"));
    }
    assert_eq!(scanned(&table).len(), 4);
}

#[test]
fn value_file_is_stored_as_format_1_says() {
    let (disk, _) = scene();
    let stored = disk.read(Path::new("data/values/07/075d")).unwrap();
    assert_eq!(stored[..5], [1, 0xb8, 0x0b, 0, 0]);
    assert_eq!(stored[5..9], crc(&key(7), &value(7)).to_le_bytes());
    assert_eq!(stored[9..], value(7));
}

#[test]
fn value_damaged_anywhere_is_an_error_and_removed_by_a_scan() {
    let path = Path::new("data/values/07/075d");
    for offset in [0, 1, 4, 5, 8, 9, 3008] {
        let (disk, table) = scene();
        disk.damage(path, offset, 0x10).unwrap();
        assert!(matches!(table.get(&key(7)), Err(TableError::Damaged { .. })), "byte {offset}");
        assert_eq!(scanned(&table).len(), 3);
        assert_eq!((disk.read(path), table.get(&key(7)).unwrap()), (None, None));
    }
    for len in [0, 8, 9, 3008] {
        let (disk, table) = scene();
        disk.open(path, OpenMode::Write).unwrap().set_len(len).unwrap();
        assert!(matches!(table.get(&key(7)), Err(TableError::Damaged { .. })), "{len} bytes");
        assert_eq!(scanned(&table).len(), 3);
    }
    // A whole file under another's name.
    let (disk, table) = scene();
    disk.rename(path, Path::new("data/values/07/0700")).unwrap();
    assert!(matches!(table.get(&[FIRST, 7, 0]), Err(TableError::Damaged { .. })));
}

#[test]
fn value_that_a_full_disk_cut_short_is_not_there_and_can_be_written_later() {
    let (disk, mut table) = scene();
    disk.set_faults(DiskFaults { capacity: Some(6100), ..DiskFaults::default() });
    let mut batch = TableBatch::default();
    batch.put(key(9), value(9));
    assert!(table.write(&batch).is_err());
    assert_eq!(table.get(&key(9)).unwrap(), None);
    disk.set_faults(DiskFaults::default());
    // What it left is in nobody's way, and goes with the next scan.
    assert!(disk.files().contains(&PathBuf::from("data/values/09/0953.new")));
    assert_eq!(scanned(&table).len(), 4);
    assert_eq!(disk.files().len(), 2);
    table.write(&batch).unwrap();
    assert_eq!(table.get(&key(9)).unwrap(), Some(value(9)));
}

#[test]
fn values_set_aside_go_with_their_table() {
    let (disk, table) = scene();
    files(&disk).set_aside(Path::new("data/table.damaged-1")).unwrap();
    assert!(disk.files().iter().all(|path| path.starts_with("data/table.damaged-1/values")));
    assert_eq!(scanned(&table).len(), 2);
    // There may be none.
    files(&disk).set_aside(Path::new("data/table.damaged-2")).unwrap();
}

#[test]
fn values_after_a_crash_are_whole_or_missing() {
    let (mut whole, mut missing) = (0, 0);
    for seed in 0..50 {
        let (disk, entropy) = (SimDisk::new(), SimEntropy::new(seed));
        let records = MemTable::new();
        let mut table = SplitTable::new(Box::new(records.clone()), files(&disk));
        for number in 0..20 {
            let mut batch = TableBatch::default();
            batch.put(key(number), value(number));
            table.write(&batch).unwrap();
            table.flush().unwrap();
            if entropy.number() % 8 == 0 {
                // As a system does in its own time: the names are on the disk, the bytes in part.
                disk.sync_dir(Path::new("data")).unwrap();
            }
        }
        drop(table);
        records.crash(&entropy);
        disk.crash(&entropy);
        let table = SplitTable::new(Box::new(records), files(&disk));
        for (key, found) in scanned(&table) {
            assert_eq!(found, value(key[1]));
            whole += 1;
        }
        missing += (0..20).filter(|number| table.get(&key(*number)).unwrap().is_none()).count();
    }
    assert!(whole > 0 && missing > 0, "{whole} whole, {missing} missing");
}
