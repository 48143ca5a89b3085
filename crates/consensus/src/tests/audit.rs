//! The audit log by itself: what it keeps, what it cuts, and where it goes on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use seams::{
    Disk, OpenMode,
    sim::{DiskFaults, SimDisk, SimEntropy},
};
use state::{AuditEntry, AuditOutcome, AuditPrincipal, CommandKind, Origin};
use types::{Hash, LogIndex, Position, UnixMillis};

use crate::{AuditCut, AuditLog, AuditOptions, AuditSink};

const HOUR: u64 = 3_600_000;

fn entry(sequence: u64, previous: Hash, time: u64) -> AuditEntry {
    AuditEntry {
        sequence,
        previous,
        index: LogIndex::new(sequence + 100),
        time: UnixMillis::new(time),
        principal: AuditPrincipal::System,
        action: CommandKind::CreateAccount,
        target: Default::default(),
        outcome: AuditOutcome::Done { position: Position::default() },
        request: None,
        origin: Origin::default(),
    }
}

/// Entries in a chain, one an hour from the first on.
fn chain(sequences: std::ops::Range<u64>) -> Vec<AuditEntry> {
    let mut previous = Hash::ZERO;
    let entries = sequences.map(|sequence| {
        let entry = entry(sequence, previous, sequence * HOUR);
        previous = AuditEntry::hash_of(&entry.encode());
        entry
    });
    entries.collect()
}

fn open(disk: &SimDisk, age_max: Option<Duration>) -> AuditLog {
    AuditLog::open(Arc::new(disk.clone()), AuditOptions { bytes_max: 4 << 20, age_max, ..AuditOptions::new("audit") }).unwrap()
}

fn emit(log: &AuditLog, entries: &[AuditEntry]) -> bool {
    let now = entries.last().map_or(UnixMillis::default(), |last| last.time);
    log.emit(entries.to_vec(), now).unwrap()
}

fn sequences(log: &AuditLog) -> Vec<u64> {
    log.read(0..u64::MAX, usize::MAX).unwrap().into_iter().map(|(sequence, _)| sequence).collect()
}

#[test]
fn entries_are_stored_by_a_sync_and_once_however_often_they_come() {
    let disk = SimDisk::new();
    let log = open(&disk, None);
    let entries = chain(1..6);
    assert!(!emit(&log, &entries[..1]), "nothing is due yet");
    assert!(sequences(&log).is_empty());
    assert!(emit(&log, &entries[1..3]), "it has waited for an hour of log time");
    log.sync().unwrap();
    assert_eq!(sequences(&log), [1, 2, 3]);
    emit(&log, &entries);
    let syncs = disk.syncs();
    log.sync().unwrap();
    assert_eq!((sequences(&log), disk.syncs() - syncs), (vec![1, 2, 3, 4, 5], 1), "one fdatasync for all that waited");
    emit(&log, &chain(1..8)[5..]);
    disk.crash(&SimEntropy::new(1));

    let log = open(&disk, None);
    assert_eq!(log.held(), 5, "what was not synced is gone, and replay brings it again");
    emit(&log, &chain(1..8));
    log.close().unwrap();
    assert_eq!(sequences(&open(&disk, None)), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn log_goes_on_after_a_gap_that_a_snapshot_leaves() {
    let disk = SimDisk::new();
    let log = open(&disk, None);
    emit(&log, &chain(1..4));
    emit(&log, &chain(10..13));
    log.sync().unwrap();
    assert_eq!(sequences(&log), [1, 2, 3, 10, 11, 12]);
    drop(log);
    let log = open(&disk, None);
    assert_eq!((log.held(), log.read(3..11, usize::MAX).unwrap().len()), (12, 2));
}

#[test]
fn entries_that_are_too_old_are_cut_and_the_record_of_the_cut_names_the_last() {
    let disk = SimDisk::new();
    let log = open(&disk, Some(Duration::from_secs(16 * 3600)));
    let entries = chain(1..41);
    for entry in &entries {
        emit(&log, std::slice::from_ref(entry));
        log.sync().unwrap();
    }
    let (kept, cut) = (sequences(&log), log.cut().unwrap());
    assert!((16..=18).contains(&kept.len()) && kept.last() == Some(&40), "{kept:?}");
    let last = &entries[cut.sequence as usize - 1];
    let expected = AuditCut { sequence: kept[0] - 1, hash: AuditEntry::hash_of(&last.encode()), index: last.index, time: last.time };
    assert_eq!(cut, expected);
    assert_eq!(entries[kept[0] as usize - 1].previous, cut.hash, "the first that is kept goes on from it");

    // Nothing comes any more, but time goes on: it is cut all the same, and the count goes on.
    assert!(log.emit(Vec::new(), UnixMillis::new(100 * HOUR)).unwrap(), "a cut is due");
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!((sequences(&log), log.cut().unwrap().sequence), (vec![], 40));
    drop(log);
    let log = open(&disk, None);
    assert_eq!(log.held(), 40);
    emit(&log, &chain(41..42));
    log.sync().unwrap();
    assert_eq!(sequences(&log), [41]);
}

#[test]
fn part_that_was_half_removed_is_gone_at_the_next_start() {
    let disk = SimDisk::new();
    let log = open(&disk, Some(Duration::from_secs(16 * 3600)));
    for entry in &chain(1..5) {
        emit(&log, std::slice::from_ref(entry));
        log.sync().unwrap();
    }
    drop(log);
    let (first, text) = (
        disk.files()[0].clone(),
        "format 1\nsequence 1\nhash 0000000000000000000000000000000000000000000000000000000000000000\nindex 101\ntime 1\nend\n",
    );
    let cut = disk.open(&PathBuf::from("audit/cut"), OpenMode::CreateNew).unwrap();
    cut.write_all_at(text.as_bytes(), 0).unwrap();
    disk.remove_file(&first).unwrap();
    assert_eq!(sequences(&open(&disk, None)), [2, 3, 4]);
    cut.write_all_at(b"nonsense", 0).unwrap();
    let options = AuditOptions::new("audit");
    assert!(AuditLog::open(Arc::new(disk), options).is_err(), "a record of a cut that cannot be read is not passed over");
}

#[test]
fn log_whose_disk_failed_says_so_to_everybody_from_then_on() {
    let disk = SimDisk::new();
    let log = open(&disk, None);
    emit(&log, &chain(1..2));
    disk.set_faults(DiskFaults { sync_fails: true, ..DiskFaults::default() });
    assert!(log.sync().is_err());
    disk.set_faults(DiskFaults::default());
    assert!(log.sync().is_err(), "it is not known what is durable");
    let error = log.emit(Vec::new(), UnixMillis::default()).unwrap_err().to_string();
    assert!(error.starts_with("the audit log has stopped: "), "{error}");
}
