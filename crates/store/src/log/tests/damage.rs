use seams::OpenMode;

use super::*;

/// A small log over two segments with one of everything; returns its entries.
fn build(disk: &SimDisk) -> Vec<(u64, Bytes)> {
    let (log, reader) = open(disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 3, 60)).unwrap();
    vote(&log, b"vote 1").unwrap();
    append(&log, 3, entries(3, 5, 1100)).unwrap();
    now(log.truncate_from(4, ignore())).unwrap();
    purge(&log, 1, b"note").unwrap();
    append(&log, 4, entries(14, 16, 100)).unwrap();
    vote(&log, b"vote 2").unwrap();
    assert_eq!(segments(disk).len(), 2);
    log.close().unwrap();
    all(&reader)
}

fn flips(disk: &SimDisk) -> impl Iterator<Item = (std::path::PathBuf, u64, u8)> {
    let files: Vec<_> = disk.files().into_iter().map(|path| (disk.read(&path).unwrap().len() as u64, path)).collect();
    files.into_iter().flat_map(|(len, path)| (0..len).map(move |offset| (path.clone(), offset, 1u8 << (offset % 8))))
}

#[test]
fn log_with_any_flipped_byte_refuses_to_open_or_is_whole() {
    let whole = SimDisk::new();
    let expected = build(&whole);
    let mut refused = 0;
    for (path, offset, mask) in flips(&whole) {
        let disk = copy(&whole);
        disk.damage(&path, offset, mask).unwrap();
        match open(&disk, Drive::Inline) {
            Err(LogError::Damaged { file, detail, .. }) => {
                assert_eq!(file, path, "{offset}: {detail}");
                refused += 1;
            }
            Err(error) => panic!("{}:{offset}: {error:?}", path.display()),
            Ok((_, reader)) => {
                assert_eq!(all(&reader), expected, "{}:{offset}", path.display());
                assert_eq!(reader.slot(Slot::Vote).unwrap(), "vote 2", "{}:{offset}", path.display());
                assert_eq!(reader.bounds(), (1..6, "note".into()));
            }
        }
    }
    assert!(refused > 2000, "{refused}");
}

#[test]
fn log_damaged_before_its_last_block_is_never_cut_even_without_a_mark() {
    let whole = SimDisk::new();
    let (log, _) = open(&whole, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 2, 60)).unwrap();
    let old_marks = whole.read(&Path::new(FOLDER).join("marks")).unwrap();
    append(&log, 2, entries(2, 4, 60)).unwrap();
    append(&log, 4, entries(4, 6, 60)).unwrap();
    let segment = Path::new(FOLDER).join("0000000000000001.seg");
    drop(log);
    // Blocks at 512, 1024 and 1536; the mark covers the first.
    for offset in 0..2048 {
        let disk = copy(&whole);
        disk.open(&Path::new(FOLDER).join("marks"), OpenMode::Write).unwrap().write_all_at(&old_marks, 0).unwrap();
        disk.damage(&segment, offset, 0x10).unwrap();
        match open(&disk, Drive::Inline) {
            Err(LogError::Damaged { .. }) => assert!(offset < 1536, "{offset}"),
            Err(error) => panic!("{offset}: {error:?}"),
            Ok((log, reader)) => {
                assert!(offset >= 1536, "{offset}");
                assert_eq!((reader.next_index(), log.cut().map(|cut| cut.offset)), (4, Some(1536)));
            }
        }
    }
}

#[test]
fn log_with_a_missing_file_refuses_to_open() {
    let whole = SimDisk::new();
    build(&whole);
    for path in whole.files() {
        let disk = copy(&whole);
        disk.remove_file(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "new") {
            assert!(open(&disk, Drive::Inline).is_ok(), "a file in the making is not missed");
            continue;
        }
        let Err(error) = open(&disk, Drive::Inline) else { panic!("opened without {}", path.display()) };
        assert!(matches!(error, LogError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("Replace a voter"), "says what to do");
    }
}

#[test]
fn log_with_a_segment_missing_between_refuses_to_open() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, Drive::Inline).unwrap();
    for index in 0..60 {
        append(&log, index, vec![entry(index, 200)]).unwrap();
    }
    drop(log);
    disk.remove_file(&Path::new(FOLDER).join("0000000000000003.seg")).unwrap();
    let Err(error) = open(&disk, Drive::Inline) else { panic!("opened") };
    assert!(error.to_string().contains("are missing"), "{error}");
}

#[test]
fn log_with_purged_segments_brought_back_removes_them() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, Drive::Inline).unwrap();
    for index in 0..60 {
        append(&log, index, vec![entry(index, 200)]).unwrap();
    }
    let oldest = Path::new(FOLDER).join("0000000000000001.seg");
    let bytes = disk.read(&oldest).unwrap();
    purge(&log, 50, b"").unwrap();
    drop(log);
    let left = segments(&disk);
    disk.open(&oldest, OpenMode::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.bounds().0, 50..60);
    assert_eq!(segments(&disk), left);
}

#[test]
fn log_entry_that_rots_after_opening_fails_its_read() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 8, 200)).unwrap();
    disk.damage(&Path::new(FOLDER).join("0000000000000001.seg"), 700, 1).unwrap();
    assert!(matches!(*reader.read(0..8, usize::MAX).unwrap_err(), LogError::Damaged { .. }));
    assert_eq!(reader.read(7..8, usize::MAX).unwrap(), [(7, entry(7, 200))], "others are unharmed");
    drop(log);
}
