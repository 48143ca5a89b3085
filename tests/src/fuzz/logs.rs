//! What `store` reads: segments and marks of the log, snapshot files, files of values.
//!
//! An input is a folder: each file as length of its name 1, name, length 4, bytes. Checksums are made right after a change, so that what
//! is behind them is reached; the layouts are those that the headers of the formats describe.

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use seams::{Disk, OpenMode, sim::SimDisk};
use sha2::{Digest, Sha256};
use store::{Drive, LogOptions, LogWriter, Slot, SnapshotFolder, SnapshotReader, SplitTable, ValueFiles, completion};

use super::{Seen, Target, reread};

pub(super) const TARGETS: &[Target] = &[
    Target::new("segment_log", &["store/src/log/format.rs", "store/src/log/marks.rs", "store/src/log/recover.rs"], logs, log)
        .repaired(repair_log)
        .up_to(40 << 10, 4 << 20),
    Target::new("snapshot_file", &["store/src/snapshot/format.rs", "store/src/snapshot/read.rs"], snapshots, snapshot)
        .repaired(repair_snapshot)
        .up_to(LENGTH_MAX, 4 << 20),
    Target::new("value_file", &["store/src/values.rs"], values, value).repaired(repair_value),
    Target::new("table_record", &["store/src/table/sled.rs"], table_records, table_record).repaired(repair_table_record),
    Target::new("chain_marks", &["feed/src/marks.rs"], chain_marks, |bytes| {
        reread(bytes, feed::decode_marks, |marks| feed::encode_marks(marks).to_vec(), "marks")
    })
    .repaired(repair_last),
];

const LENGTH_MAX: usize = 8 << 10;
const FOLDER: &str = "data/log";

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096, cache_bytes_max: 300, queue_bytes_max: 1 << 20, group_bytes_max: 2048, ..LogOptions::new(FOLDER) }
}

/// The result of a future that need not wait: the log is driven by its caller.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a log that is driven inline waits"),
    }
}

fn logs() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let disk = SimDisk::new();
    let (log, _) = LogWriter::open(Arc::new(disk.clone()), options(), Drive::Inline).expect("a new log");
    let append = |first, entries: Vec<Bytes>| {
        let (done, durable) = completion();
        now(log.append(first, entries, done)).expect("appended");
        now(durable).expect("durable");
    };
    seeds.push(pack(&disk));
    append(0, vec!["first".into(), "second".into()]);
    now(log.write_slot(Slot::Vote, "vote".into(), Box::new(|_| {}))).expect("written");
    seeds.push(pack(&disk));
    now(log.truncate_from(1, Box::new(|_| {}))).expect("truncated");
    append(1, vec!["third".into(), Bytes::new()]);
    now(log.write_slot(Slot::Committed, "1".into(), Box::new(|_| {}))).expect("written");
    seeds.push(pack(&disk));
    append(3, vec![vec![7; 1000].into()]);
    append(4, vec!["last".into(), vec![9; 1900].into()]);
    log.close().expect("closed");
    seeds.push(pack(&disk));
    seeds
}

fn pack(disk: &SimDisk) -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in disk.files() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let content = disk.read(&path).unwrap_or_default();
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&content);
    }
    bytes
}

/// Where names and contents of files lie.
fn parts(input: &[u8]) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(length) = input.get(at) {
        let name = at + 1..at + 1 + usize::from(*length);
        let Some(length) = input.get(name.end..).and_then(<[u8]>::first_chunk) else { break };
        let start = name.end + 4;
        let end = start + (u32::from_le_bytes(*length) as usize).min(input.len() - start);
        parts.push((name, start..end));
        at = end;
    }
    parts
}

/// A disk with the files of an input in one folder.
fn unpack(input: &[u8], folder: &str) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(folder)).expect("a folder");
    for (name, content) in parts(input) {
        let name = String::from_utf8_lossy(&input[name]).replace(['/', '\0'], "_");
        if let Ok(file) = disk.open(&Path::new(folder).join(name), OpenMode::CreateNew) {
            file.write_all_at(&input[content], 0).expect("written");
        }
    }
    disk
}

fn log(input: &[u8]) -> Seen {
    let disk = unpack(input, FOLDER);
    let open = || LogWriter::open(Arc::new(disk.clone()), options(), Drive::Inline);
    let (writer, reader) = match open() {
        Ok(opened) => opened,
        Err(error) => return Seen::Refused(error.to_string()),
    };
    let (bounds, _) = reader.bounds();
    let read = |reader: &store::LogReader| reader.read(bounds.clone(), 1 << 16).map_err(|error| error.to_string());
    let (entries, slots) = (read(&reader), (reader.slot(Slot::Vote), reader.slot(Slot::Committed)));
    let cut = writer.cut().is_some();
    writer.close().expect("a log that opened closes");
    // What it has been mended to must be there the next time.
    let (_again, reader) = open().expect("a log that opened opens again");
    assert_eq!(reader.bounds().0, bounds, "a log opens with other bounds the second time");
    assert_eq!(read(&reader), entries, "a log opens with other entries the second time");
    assert_eq!((reader.slot(Slot::Vote), reader.slot(Slot::Committed)), slots, "a log opens with other slots the second time");
    Seen::Read(format!("{} entries, cut {cut}, {}", bounds.end - bounds.start, entries.err().unwrap_or_default()))
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn repair_log(input: &mut [u8]) {
    for (name, content) in parts(input) {
        let is_marks = &input[name] == b"marks";
        let file = &mut input[content];
        if is_marks {
            for (place, bytes) in file.chunks_exact_mut(4096).enumerate() {
                let crc = crc32c::crc32c_append(crc32c::crc32c(&(place as u64).to_le_bytes()), &bytes[..4092]);
                put_crc(bytes, 4092, crc);
            }
        } else {
            repair_segment(file);
        }
    }
}

/// The segment's header, then every block's payload, header and link to the one before.
fn repair_segment(file: &mut [u8]) {
    if file.len() < 512 {
        return;
    }
    let crc = crc32c::crc32c(&file[..508]);
    put_crc(file, 508, crc);
    let segment: [u8; 8] = file[16..24].try_into().expect("eight bytes");
    let (mut at, mut chain) = (512, crc);
    while file.get(at..at + 4) == Some(b"CNBB") {
        let length = u32_at(file, at + 4).unwrap_or_default() as usize;
        let end = (at + 24 + length).next_multiple_of(512).min(file.len());
        let payload = file.get(at + 24..end).map_or(0, crc32c::crc32c);
        put_crc(file, at + 12, chain);
        put_crc(file, at + 16, payload);
        let header = file.get(at..at + 20).unwrap_or_default();
        let seed = crc32c::crc32c_append(crc32c::crc32c(&segment), &(at as u64).to_le_bytes());
        chain = crc32c::crc32c_append(seed, header);
        put_crc(file, at + 20, chain);
        at = end;
    }
}

const SNAPSHOT: &str = "snapshots";

fn snapshots() -> Vec<Vec<u8>> {
    let file = |records: usize, length: usize| {
        let disk = SimDisk::new();
        let folder = SnapshotFolder::open(Arc::new(disk.clone()), SNAPSHOT).expect("a folder");
        let mut writer = folder.create(7, b"meta").expect("a writer");
        for number in 0..records {
            writer.put(format!("key {number}").as_bytes(), &vec![number as u8; length]).expect("put");
        }
        let info = writer.finish().expect("finished");
        disk.read(&info.path).expect("the file")
    };
    vec![file(0, 0), file(1, 3), file(20, 40)]
}

fn snapshot(bytes: &[u8]) -> Seen {
    let (disk, path) = (SimDisk::new(), Path::new("file.snap"));
    disk.open(path, OpenMode::CreateNew).expect("a new file").write_all_at(bytes, 0).expect("written");
    match SnapshotReader::open(&disk, path).and_then(SnapshotReader::verify) {
        Ok(info) => {
            assert_eq!(info.bytes, bytes.len() as u64);
            Seen::Read(format!("{} records", info.records))
        }
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn repair_snapshot(input: &mut [u8]) {
    let Some(meta) = u32_at(input, 12).map(|length| length as usize) else { return };
    let Some(footer) = input.len().checked_sub(60) else { return };
    let chunks_at = 36 + meta.min(footer.saturating_sub(36));
    let Some(head) = input.get(..32) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), input.get(36..chunks_at).unwrap_or_default());
    put_crc(input, 32, crc);
    let (mut at, mut chunks) = (chunks_at, 0_u32);
    while at + 20 <= footer {
        let end = (at + 20 + u32_at(input, at + 8).unwrap_or_default() as usize).min(footer);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&input[at..at + 16]), &input[at + 20..end]);
        put_crc(input, at + 16, crc);
        (at, chunks) = (end, chunks + 1);
    }
    let hash = Sha256::digest(&input[..footer]);
    input[footer + 4..footer + 8].copy_from_slice(&chunks.to_le_bytes());
    input[footer + 16..footer + 24].copy_from_slice(&(footer as u64).to_le_bytes());
    input[footer + 24..footer + 56].copy_from_slice(&hash);
    let crc = crc32c::crc32c(&input[footer..footer + 56]);
    put_crc(input, footer + 56, crc);
}

const KEY: [u8; 33] = [9; 33];

fn split(disk: &SimDisk) -> SplitTable {
    SplitTable::new(Box::new(store::MemTable::default()), ValueFiles::new(Arc::new(disk.clone()), "values", KEY[0]))
}

fn value_path(disk: &SimDisk) -> std::path::PathBuf {
    disk.files().into_iter().find(|path| path.starts_with("values")).expect("the value's file")
}

/// A disk that holds one value.
fn with_value() -> SimDisk {
    use seams::{Table, TableBatch};
    let disk = SimDisk::new();
    let mut batch = TableBatch::default();
    batch.put(KEY.to_vec(), b"a value".to_vec());
    split(&disk).write(&batch).expect("written");
    disk
}

fn values() -> Vec<Vec<u8>> {
    let disk = with_value();
    vec![disk.read(&value_path(&disk)).expect("the file")]
}

fn value(bytes: &[u8]) -> Seen {
    use seams::Table;
    let disk = with_value();
    let file = disk.open(&value_path(&disk), OpenMode::Write).expect("the file");
    file.set_len(bytes.len() as u64).and_then(|()| file.write_all_at(bytes, 0)).expect("written");
    match split(&disk).get(&KEY) {
        Ok(Some(value)) => {
            assert!(bytes.ends_with(&value), "a value that was never there");
            Seen::Read("value".into())
        }
        Ok(None) => Seen::Refused("no value".into()),
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn repair_value(input: &mut [u8]) {
    let Some(value) = input.get(9..) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&(KEY.len() as u32).to_le_bytes()), &KEY), value);
    put_crc(input, 5, crc);
}

/// A record of a table as sled holds it: length of its key 1, key, what is stored under it.
fn table_records() -> Vec<Vec<u8>> {
    let record = |key: &[u8], value: &[u8]| [&[key.len() as u8][..], key, &store::table::encode_record(key, value)].concat();
    vec![record(b"a", b""), record(&KEY, b"a value"), record(&[0; 200], &[7; 3000])]
}

fn table_record_parts(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn table_record(input: &[u8]) -> Seen {
    let Some((key, stored)) = table_record_parts(input) else { return Seen::Refused("no record".into()) };
    match store::table::decode_record("get", key, stored) {
        Ok(value) => {
            assert_eq!(store::table::encode_record(key, value), stored, "a record has one form");
            Seen::Read("record".into())
        }
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn repair_table_record(input: &mut [u8]) {
    let Some((key, stored)) = table_record_parts(input) else { return };
    let (at, Some(value)) = (1 + key.len(), stored.get(5..)) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&(key.len() as u32).to_le_bytes()), key), value);
    put_crc(input, at + 1, crc);
}

fn chain_marks() -> Vec<Vec<u8>> {
    use types::{Generation, Hash, Position, Revision};
    let mark = |n: u8| (Position::new(Generation::new(3), Revision::new(u64::from(n) * 1024)), Hash::from_bytes([n; 32]));
    vec![feed::encode_marks(&[]).to_vec(), feed::encode_marks(&(1..4).map(mark).collect::<Vec<_>>()).to_vec()]
}

/// A CRC-32C over all before it ends the input.
pub(super) fn repair_last(input: &mut [u8]) {
    if let Some((content, crc)) = input.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(content).to_le_bytes();
    }
}
