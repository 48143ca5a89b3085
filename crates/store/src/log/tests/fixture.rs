use seams::OpenMode;

use super::*;

/// The log of [`build`], as format 1 writes it: file, offset, bytes in hexadecimal; all else is zeros.
const FORMAT_1: &str = include_str!("fixture-1.txt");

fn build(disk: &SimDisk) {
    let (log, _) = open(disk, Drive::Inline).unwrap();
    append(&log, 0, vec!["first".into(), "second".into()]).unwrap();
    vote(&log, b"vote").unwrap();
    now(log.truncate_from(1, ignore())).unwrap();
    append(&log, 1, vec!["third".into(), Bytes::new()]).unwrap();
    now(log.write_slot(Slot::Committed, "1".into(), ignore())).unwrap();
    purge(&log, 1, b"note").unwrap();
    append(&log, 3, vec![entry(3, 1000)]).unwrap();
    append(&log, 4, vec!["last".into()]).unwrap();
    log.close().unwrap();
}

/// Lines of 32 bytes, those of zeros left out.
fn dump(disk: &SimDisk) -> String {
    let mut text = String::new();
    for path in disk.files().into_iter().filter(|path| path.extension().is_none_or(|extension| extension != "new")) {
        let bytes = disk.read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        text += &format!("{name} {}\n", bytes.len());
        for (at, line) in bytes.chunks(32).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
            text += &format!("{:04x} {}\n", at * 32, line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
    text
}

fn load(text: &str) -> SimDisk {
    let disk = SimDisk::new();
    let mut file = None;
    for line in text.lines() {
        let (head, tail) = line.split_once(' ').unwrap();
        if head.len() == 4 {
            let bytes: Vec<u8> = (0..tail.len()).step_by(2).map(|at| u8::from_str_radix(&tail[at..at + 2], 16).unwrap()).collect();
            let Some(file): &Option<Box<dyn seams::DiskFile>> = &file else { panic!("a line before its file") };
            file.write_all_at(&bytes, u64::from_str_radix(head, 16).unwrap()).unwrap();
        } else {
            let created = disk.open(&Path::new(FOLDER).join(head), OpenMode::CreateNew).unwrap();
            created.set_len(tail.parse().unwrap()).unwrap();
            file = Some(created);
        }
    }
    disk
}

#[test]
fn log_writes_format_1_byte_by_byte() {
    let disk = SimDisk::new();
    build(&disk);
    assert_eq!(
        dump(&disk),
        FORMAT_1,
        "the format has changed: it needs a new number and a migration, never a new fixture for an old number"
    );
}

#[test]
fn log_reads_format_1() {
    let disk = load(FORMAT_1);
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.bounds(), (1..5, "note".into()));
    assert_eq!(all(&reader), [(1, "third".into()), (2, Bytes::new()), (3, entry(3, 1000)), (4, "last".into())]);
    assert_eq!((reader.slot(Slot::Vote).unwrap(), reader.slot(Slot::Committed).unwrap()), ("vote".into(), "1".into()));
}

#[test]
fn log_of_a_newer_format_refuses_to_open_and_says_so() {
    // The number after the magic, and where a file's checksum starts and lies.
    for (name, at, seed, end) in [("0000000000000001.seg", 8, None, 508), ("marks", 4, Some(0u64), 4092), ("marks", 4100, Some(1), 8188)] {
        let disk = load(FORMAT_1);
        let path = Path::new(FOLDER).join(name);
        let mut bytes = disk.read(&path).unwrap();
        bytes[at] = 9;
        let start = if at > 4096 { 4096 } else { 0 };
        let crc = crc32c::crc32c_append(seed.map_or(0, |place: u64| crc32c::crc32c(&place.to_le_bytes())), &bytes[start..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        disk.open(&path, OpenMode::Write).unwrap().write_all_at(&bytes, 0).unwrap();
        let Err(error) = open(&disk, Drive::Inline) else { panic!("opened") };
        assert!(matches!(error, LogError::Newer { found: 9, known: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("start the newer Cinnabar"));
    }
}
