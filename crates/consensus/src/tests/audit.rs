//! The audit log by itself: what it keeps, what it cuts, and where it goes on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use seams::{
    Disk, OpenMode,
    sim::{DiskFaults, SimDisk, SimEntropy},
};
use state::{AuditEntry, AuditOutcome, AuditPrincipal, CommandKind, Origin};
use types::{ClusterId, Hash, LogIndex, NodeId, Position, UnixMillis};

use crate::{AuditCut, AuditFault, AuditLog, AuditOptions, AuditSink, CutSigner, verify_entries};

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
        detail: None,
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
    let hash = AuditEntry::hash_of(&last.encode());
    let expected = AuditCut { sequence: kept[0] - 1, hash, index: last.index, time: last.time, signature: None };
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
fn entries_are_read_from_either_end_and_found_by_their_time_across_parts_and_gaps() {
    let disk = SimDisk::new();
    let log = open(&disk, Some(Duration::from_secs(16 * 3600)));
    assert_eq!((log.bounds(), log.seek(UnixMillis::new(5)).unwrap()), ((0, 0), 0));
    for entry in chain(1..5).iter().chain(&chain(8..15)) {
        emit(&log, std::slice::from_ref(entry));
        log.settle().unwrap();
    }
    emit(&log, &chain(15..16));
    log.settle().unwrap();
    assert_eq!(log.bounds(), (1, 16), "what waited is stored, too");
    let last = |range: std::ops::Range<u64>, count| -> Vec<u64> {
        log.read_last(range, count).unwrap().into_iter().map(|(sequence, _)| sequence).collect()
    };
    // A part holds an hour's entries here: one.
    assert_eq!((last(0..u64::MAX, 9), last(0..8, 9), last(0..4, 9), last(5..8, 9)), (vec![15], vec![4], vec![3], vec![]));
    let times = [(0, 1), (1, 1), (4, 4), (5, 8), (8, 8), (15, 15), (16, 16)];
    for (hour, sequence) in times {
        let found = log.seek(UnixMillis::new(hour * HOUR)).unwrap();
        let next = log.read(found..u64::MAX, 1).unwrap().first().map_or(16, |(sequence, _)| *sequence);
        assert_eq!(next, sequence, "at hour {hour}");
    }
    // In one part they come together, and are searched within it.
    let disk = SimDisk::new();
    let log = open(&disk, None);
    emit(&log, &chain(1..40));
    log.settle().unwrap();
    assert_eq!(log.read_last(0..31, 9).unwrap().iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), (22..31).collect::<Vec<_>>());
    assert_eq!((1..50).map(|hour| log.seek(UnixMillis::new(hour * HOUR - 1)).unwrap()).collect::<Vec<_>>(), {
        (1..50).map(|hour| hour.min(40)).collect::<Vec<_>>()
    });
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

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
const NODE: NodeId = NodeId::new(7);

/// What stands for a signature here: the bytes' own sum, which whoever verifies makes too.
struct Sums;

fn sum(bytes: &[u8]) -> [u8; 64] {
    let hash = AuditEntry::hash_of(bytes);
    std::array::from_fn(|place| hash.as_bytes()[place % 32])
}

impl CutSigner for Sums {
    fn cluster(&self) -> ClusterId {
        CLUSTER
    }

    fn node(&self) -> NodeId {
        NODE
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        sum(bytes)
    }
}

#[test]
fn log_that_was_cut_is_verified_from_the_signed_record_to_the_head_and_no_change_is_missed() {
    let disk = SimDisk::new();
    let options = AuditOptions { bytes_max: 4 << 20, age_max: Some(Duration::from_secs(16 * 3600)), ..AuditOptions::new("audit") };
    let open = || AuditLog::open_signing(Arc::new(disk.clone()), options.clone(), Some(Arc::new(Sums))).unwrap();
    let log = open();
    let entries = chain(1..41);
    for entry in &entries {
        emit(&log, std::slice::from_ref(entry));
        log.sync().unwrap();
    }
    drop(log);
    // Read back from the files, as somebody would who has nothing else.
    let log = open();
    let (cut, kept) = (log.cut().unwrap(), log.read(0..u64::MAX, usize::MAX).unwrap());
    let by_node = |node: NodeId, bytes: &[u8], signature: &[u8; 64]| node == NODE && *signature == sum(bytes);
    cut.verify(CLUSTER, by_node).unwrap();
    let head = (40, AuditEntry::hash_of(&entries[39].encode()));
    let from = Some((cut.sequence, cut.hash));
    assert_eq!(verify_entries(from, kept.clone(), Some(head)), Ok(Some(head)));

    // Of the record at the cut nothing may be changed, nor may another cluster's be shown.
    let signed = cut.signature.unwrap();
    let forged = [
        AuditCut { sequence: cut.sequence + 1, ..cut },
        AuditCut { hash: Hash::ZERO, ..cut },
        AuditCut { index: LogIndex::new(0), ..cut },
        AuditCut { time: UnixMillis::new(0), ..cut },
        AuditCut { signature: Some(crate::CutSignature { node: NodeId::new(8), ..signed }), ..cut },
    ];
    for (number, forged) in forged.into_iter().enumerate() {
        assert!(matches!(forged.verify(CLUSTER, by_node), Err(AuditFault::Signature { .. })), "{number}");
    }
    assert!(cut.verify(ClusterId::from_bytes([4; 16]), by_node).is_err());
    let unsigned = AuditCut { signature: None, ..cut };
    assert_eq!(unsigned.verify(CLUSTER, by_node), Err(AuditFault::Unsigned { sequence: cut.sequence }));

    // Of the entries none may be left out at the front, in the middle or at the end, or be changed.
    let (first, middle) = (kept[0].0, kept.len() / 2);
    let fault = |kept: Vec<(u64, bytes::Bytes)>| verify_entries(from, kept, Some(head)).unwrap_err();
    assert_eq!(fault(kept[1..].to_vec()), AuditFault::Gap { expected: first, found: first + 1 });
    let mut without = kept.clone();
    let (left_out, _) = without.remove(middle);
    assert_eq!(fault(without), AuditFault::Gap { expected: left_out, found: left_out + 1 });
    assert_eq!(fault(kept[..kept.len() - 1].to_vec()), AuditFault::Head { last: 39, head: 40 });
    let mut changed = kept.clone();
    let mut entry = AuditEntry::decode(&changed[middle].1).unwrap();
    entry.action = CommandKind::RevokeNode;
    changed[middle].1 = entry.encode();
    assert_eq!(fault(changed), AuditFault::Broken { sequence: left_out + 1 });
    assert_eq!(verify_entries(Some((cut.sequence, Hash::ZERO)), kept, None), Err(AuditFault::Broken { sequence: first }));
}
