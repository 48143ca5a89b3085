//! The log, tables and snapshot files on real files, and in a process that is killed.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use seams::{Disk, DiskFile, OpenMode, Table as _, TableBatch};
use store::{
    Drive, LogOptions, LogReader, LogWriter, SledOptions, SledTable, Slot, SnapshotFolder, WriteBehind, WriteBehindOptions, completion,
    open_or_set_aside,
};

/// Files as they are: the real disk of production lives in a crate that this one does not know.
struct Files;

struct OpenFile(File);

impl Disk for Files {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        Ok(Box::new(OpenFile(options.open(path)?)))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }
    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn open(folder: &Path) -> (LogWriter, LogReader) {
    let options = LogOptions { segment_bytes: 256 << 10, cache_bytes_max: 64 << 10, ..LogOptions::new(folder.join("log")) };
    LogWriter::open(Arc::new(Files), options, Drive::Thread).unwrap()
}

fn entry(index: u64) -> Bytes {
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.resize(8 + (index * 37 % 900) as usize, index as u8);
    bytes.into()
}

#[tokio::test]
async fn log_on_real_files_takes_concurrent_reads_and_purges() {
    let folder = tempfile::tempdir().unwrap();
    let (log, reader) = open(folder.path());
    let follower = {
        let reader = reader.clone();
        tokio::task::spawn_blocking(move || {
            let mut next = 0;
            while next < 5000 {
                for (index, bytes) in reader.read(next..u64::MAX, 64 << 10).unwrap() {
                    assert!(index >= next, "purged entries may be missing, none comes twice");
                    assert_eq!(bytes, entry(index));
                    next = index + 1;
                }
                std::thread::yield_now();
            }
        })
    };
    let mut last = None;
    for index in 0..5000 {
        let (done, durable) = completion();
        log.append(index, vec![entry(index)], done).await.unwrap();
        last = Some(durable);
        if index % 1000 == 999 {
            log.purge_before(index - 500, index.to_string().into(), Box::new(|result| result.unwrap())).await.unwrap();
            log.write_slot(Slot::Vote, index.to_string().into(), Box::new(|result| result.unwrap())).await.unwrap();
        }
    }
    last.unwrap().await.unwrap();
    follower.await.unwrap();
    log.close().unwrap();
    drop((log, reader));
    let (log, reader) = open(folder.path());
    assert_eq!(reader.bounds(), (4499..5000, "4999".into()));
    assert_eq!(reader.slot(Slot::Vote).unwrap(), "4999");
    assert_eq!(log.cut(), None);
    let held = reader.read(0..5000, usize::MAX).unwrap();
    assert!(held.len() == 501 && held.iter().all(|(index, bytes)| *bytes == entry(*index)));
    let files = std::fs::read_dir(folder.path().join("log")).unwrap().count();
    assert!(files < 8, "purged segments are gone: {files}");
}

#[test]
fn snapshot_on_real_files_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = SnapshotFolder::open(Arc::new(Files), folder.path().join("snapshots")).unwrap();
    let mut writer = snapshots.create(3, b"meta").unwrap();
    (0..3000).for_each(|index| writer.put(&index.to_string().into_bytes(), &entry(index)).unwrap());
    let info = writer.finish().unwrap();
    assert_eq!(std::fs::metadata(&info.path).unwrap().len(), info.bytes);
    let snapshots = SnapshotFolder::open(Arc::new(Files), folder.path().join("snapshots")).unwrap();
    assert_eq!(snapshots.newest_valid().unwrap().0.unwrap(), info);
}

const CHILD: &str = "STORE_TEST_FOLDER";

/// What the killed process does; in the suite itself it returns at once.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (log, reader) = open(folder);
        let table = open_or_set_aside(&folder.join("table"), SledOptions::default(), &mut |_, _| Ok(())).unwrap().table;
        let behind = WriteBehind::start(
            Box::new(table),
            WriteBehindOptions { linger: Duration::ZERO, ..WriteBehindOptions::default() },
            Drive::Thread,
        )
        .unwrap();
        loop {
            let index = reader.next_index();
            let (done, durable) = completion();
            log.append(index, (index..index + 1 + index % 5).map(entry).collect(), done).await.unwrap();
            let end = reader.next_index();
            if index % 7 == 0 {
                log.write_slot(Slot::Vote, index.to_string().into(), Box::new(drop)).await.unwrap();
            }
            if index % 50 == 0 && index > 300 {
                log.purge_before(index - 300, Bytes::new(), Box::new(drop)).await.unwrap();
            }
            let mut batch = TableBatch::default();
            batch.put("position", end.to_le_bytes());
            (0..20u64).for_each(|key| batch.put((end * 3 + key).to_le_bytes()[..1].to_vec(), end.to_le_bytes().repeat(40)));
            batch.put("copy", end.to_le_bytes());
            behind.push(end, batch).await.unwrap();
            if index % 3 == 0 {
                durable.await.unwrap();
                writeln!(io::stdout(), "acknowledged {end} {}", behind.durable().mark).unwrap();
            }
        }
    });
}

#[test]
fn log_and_table_of_a_killed_process_keep_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut acknowledged, mut written, mut seen) = (0, 0, 0);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            let Some(numbers) = line.split_once("acknowledged ").and_then(|(_, numbers)| numbers.split_once(' ')) else { continue };
            acknowledged = numbers.0.parse::<u64>().unwrap();
            written = numbers.1.parse::<u64>().unwrap();
            seen += 1;
            if seen > 100 + round * 13 {
                break;
            }
        }
        assert!(seen > 100, "the child ended early");
        child.kill().unwrap();
        child.wait().unwrap();
        let (log, reader) = open(folder.path());
        assert!(reader.next_index() >= acknowledged);
        let held = reader.read(0..u64::MAX, usize::MAX).unwrap();
        assert!(held.iter().all(|(index, bytes)| *bytes == entry(*index)));
        log.close().unwrap();

        let opened = open_or_set_aside(&folder.path().join("table"), SledOptions::default(), &mut |_, _| Ok(())).unwrap();
        assert!(opened.set_aside.is_none(), "{:?}", opened.set_aside);
        let table: SledTable = opened.table;
        let number =
            |key: &str| table.reader().get(key.as_bytes()).unwrap().map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        assert_eq!(number("position"), number("copy"));
        assert!(number("position") >= written && number("position") <= reader.next_index());
    }
}
