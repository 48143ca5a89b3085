use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use seams::{
    Disk, Entropy, OpenMode,
    sim::{DiskFaults, Loss, SimDisk, SimEntropy},
};

use super::*;

const FOLDER: &str = "data/snapshots";

fn folder(disk: &SimDisk) -> SnapshotFolder {
    SnapshotFolder::open(Arc::new(disk.clone()), FOLDER).unwrap()
}

fn write(folder: &SnapshotFolder, order: u128, records: u32) -> Result<SnapshotInfo, SnapshotError> {
    let mut writer = folder.create(order, format!("meta of {order}").as_bytes())?;
    for number in 0..records {
        writer.put(&number.to_be_bytes(), &vec![number as u8; number as usize % 700])?;
    }
    writer.finish()
}

fn records(mut reader: SnapshotReader) -> Result<Vec<(Bytes, Bytes)>, SnapshotError> {
    let mut records = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        records.extend(chunk);
    }
    Ok(records)
}

#[test]
fn snapshot_read_back_is_what_was_written() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    for count in [0, 1, 5000] {
        let info = write(&folder, 7, count).unwrap();
        let read = records(folder.read(7).unwrap()).unwrap();
        assert_eq!(read.len(), count as usize);
        assert!(
            read.iter().zip(0u32..).all(|((key, value), number)| key[..] == number.to_be_bytes() && value.len() == number as usize % 700)
        );
        assert_eq!(folder.read(7).unwrap().verify().unwrap(), info);
        assert_eq!((info.meta, info.records, info.order), ("meta of 7".into(), u64::from(count), 7));
    }
}

#[test]
fn snapshot_with_any_flipped_byte_is_passed_over_for_an_older_one() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    let old = write(&folder, 1, 3).unwrap();
    let new = write(&folder, 2, 5).unwrap();
    assert_eq!(folder.newest_valid().unwrap().0.unwrap(), new);
    for offset in 0..new.bytes {
        let mask = 1 << (offset % 8);
        disk.damage(&new.path, offset, mask).unwrap();
        let (found, errors) = folder.newest_valid().unwrap();
        assert_eq!((found.unwrap(), errors.len()), (old.clone(), 1), "{offset}");
        disk.damage(&new.path, offset, mask).unwrap();
    }
}

#[test]
fn snapshot_cut_at_any_length_is_refused() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    let info = write(&folder, 2, 5).unwrap();
    let bytes = disk.read(&info.path).unwrap();
    for len in 0..info.bytes {
        let file = disk.open(&info.path, OpenMode::Write).unwrap();
        file.set_len(len).unwrap();
        assert!(folder.read(2).and_then(SnapshotReader::verify).is_err(), "{len}");
        file.write_all_at(&bytes, 0).unwrap();
    }
    disk.open(&info.path, OpenMode::Write).unwrap().set_len(info.bytes + 1).unwrap();
    assert!(folder.read(2).and_then(SnapshotReader::verify).is_err(), "a byte more");
}

#[test]
fn snapshot_under_a_false_name_is_passed_over() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    let info = write(&folder, 2, 5).unwrap();
    disk.rename(&info.path, &folder.path(9)).unwrap();
    assert_eq!(folder.newest_valid().unwrap().0, None);
}

/// A process dies before it has synced a file's name; what finds the file may cut a log for it.
#[test]
fn snapshot_that_is_found_is_durable_under_its_name() {
    let disk = SimDisk::new();
    let info = write(&folder(&disk), 2, 5).unwrap();
    let aside = Path::new(FOLDER).join("aside");
    disk.rename(&info.path, &aside).unwrap();
    disk.sync_dir(Path::new(FOLDER)).unwrap();
    disk.rename(&aside, &info.path).unwrap();
    let found = folder(&disk).newest_valid().unwrap().0.unwrap();
    disk.crash_losing(&SimEntropy::new(1), Loss::Suffix);
    assert_eq!(folder(&disk).newest_valid().unwrap().0, Some(found));
}

#[test]
fn snapshot_crashed_at_any_moment_leaves_a_whole_one() {
    for seed in 0..100 {
        let disk = SimDisk::new();
        let random = SimEntropy::new(seed);
        let mut newest = 0;
        for order in 1..8u128 {
            let folder = folder(&disk);
            let (found, errors) = folder.newest_valid().unwrap();
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(found.map_or(0, |info| info.order), newest);
            let count = random.number() as u32 % 2000;
            match random.number() % 3 {
                0 => {
                    let mut writer = folder.create(order, b"").unwrap();
                    (0..count).for_each(|number| writer.put(&number.to_be_bytes(), &[1; 300]).unwrap());
                    // The process dies: nothing is dropped.
                    std::mem::forget(writer);
                }
                1 => drop(folder.create(order, b"").unwrap()),
                _ => {
                    write(&folder, order, count).unwrap();
                    folder.keep_newest(1).unwrap();
                    newest = order;
                }
            }
            disk.crash(&random);
        }
    }
}

#[test]
fn snapshot_on_a_full_disk_says_so_and_leaves_nothing() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    write(&folder, 1, 3).unwrap();
    disk.set_faults(DiskFaults { capacity: Some(10_000), ..DiskFaults::default() });
    let error = write(&folder, 2, 2000).unwrap_err();
    assert!(matches!(error, SnapshotError::Full { .. }), "{error}");
    assert_eq!(disk.files(), [folder.path(1)]);
    disk.set_faults(DiskFaults { sync_fails: true, ..DiskFaults::default() });
    assert!(write(&folder, 2, 3).is_err());
    assert_eq!(folder.orders().unwrap(), [1]);
}

#[test]
fn snapshot_folder_keeps_the_newest_and_drops_leftovers() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    for order in [3, u128::MAX, 1, 2] {
        write(&folder, order, 1).unwrap();
    }
    std::mem::forget(folder.create(9, b"").unwrap());
    assert_eq!(folder.orders().unwrap(), [u128::MAX, 3, 2, 1]);
    folder.keep_newest(2).unwrap();
    assert_eq!(folder.orders().unwrap(), [u128::MAX, 3]);
    self::folder(&disk);
    assert_eq!(disk.files().len(), 2, "the file in the making is gone");
}

#[test]
fn snapshot_of_a_newer_format_stops_the_search() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    write(&folder, 1, 1).unwrap();
    let info = write(&folder, 2, 1).unwrap();
    let mut bytes = disk.read(&info.path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..32]), &info.meta);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    disk.open(&info.path, OpenMode::Write).unwrap().write_all_at(&bytes, 0).unwrap();
    let error = folder.newest_valid().unwrap_err();
    assert!(error.to_string().contains("format 2, newest known here is 1"), "{error}");
}

/// Format 1, byte by byte: order 258, meta "meta", one record "key" = "value".
const FORMAT_1: &str = "434e42534e41500001000000040000000201000000000000000000000000000014099baf6d657461\
434e42430000000010000000010000000ded7d5903000000050000006b657976616c7565\
434e42460100000001000000000000004c00000000000000bde7cb5cc67dbeeda3b58abd5303634bab4869e77e9c8ddfd2c0026236b809237dcb6050";

#[test]
fn snapshot_writes_format_1_byte_by_byte_and_reads_it() {
    let disk = SimDisk::new();
    let folder = folder(&disk);
    let mut writer = folder.create(258, b"meta").unwrap();
    writer.put(b"key", b"value").unwrap();
    let info = writer.finish().unwrap();
    assert_eq!(records(folder.read(258).unwrap()).unwrap(), [("key".into(), "value".into())]);
    let bytes = disk.read(&info.path).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, FORMAT_1, "the format has changed: it needs a new number and a migration, never a new fixture for an old number");
    assert_eq!(info.path, Path::new(FOLDER).join("00000000000000000000000000000102.snap"));
}

proptest! {
    #[test]
    fn snapshot_round_trips(written in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), prop::collection::vec(any::<u8>(), 0..2000)), 0..300), meta in prop::collection::vec(any::<u8>(), 0..100)) {
        let disk = SimDisk::new();
        let folder = folder(&disk);
        let mut writer = folder.create(1, &meta).unwrap();
        for (key, value) in &written {
            writer.put(key, value).unwrap();
        }
        writer.finish().unwrap();
        let reader = folder.read(1).unwrap();
        prop_assert_eq!(&reader.meta()[..], &meta[..]);
        let read: Vec<_> = records(reader).unwrap().into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        prop_assert_eq!(read, written);
    }
}
