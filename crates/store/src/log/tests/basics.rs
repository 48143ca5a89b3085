use proptest::prelude::*;

use super::*;
use crate::log::format::{BLOCK_HEADER_BYTES, BlockBuilder, BlockHeader, Cursor, Record};

#[test]
fn log_reopened_holds_what_was_appended() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!((reader.first_index(), reader.next_index(), reader.slot(Slot::Vote)), (0, 0, None));
    for index in 0..60 {
        append(&log, index, vec![entry(index, 200)]).unwrap();
    }
    vote(&log, b"term 7").unwrap();
    assert!(segments(&disk).len() > 5, "it spans segments");
    let before = all(&reader);
    assert_eq!(before.len(), 60);
    drop((log, reader));

    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(all(&reader), before);
    assert_eq!(reader.slot(Slot::Vote).unwrap(), "term 7");
    assert_eq!((reader.next_index(), reader.durable_index()), (60, 60));
    assert_eq!(log.cut(), None);
    append(&log, 60, entries(60, 62, 10)).unwrap();
    assert_eq!(reader.next_index(), 62);
}

#[test]
fn log_read_keeps_to_range_and_bytes() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 40, 100)).unwrap();
    let indexes = |range, bytes| reader.read(range, bytes).unwrap().into_iter().map(|(index, _)| index).collect::<Vec<_>>();
    assert_eq!(indexes(3..5, usize::MAX), [3, 4]);
    assert_eq!(indexes(3..40, 250), [3, 4]);
    assert_eq!(indexes(3..40, 1), [3], "at least one");
    assert_eq!(indexes(39..80, usize::MAX), [39]);
    assert_eq!(indexes(40..80, usize::MAX), [0; 0]);
    for (index, bytes) in all(&reader) {
        assert_eq!(bytes, entry(index, 100));
    }
    assert!(reader.cached(0..2, usize::MAX).unwrap().is_none(), "the cache holds 300 bytes");
    assert_eq!(reader.cached(38..40, usize::MAX).unwrap().unwrap().len(), 2);
}

#[test]
fn log_append_with_a_gap_is_refused_and_changes_nothing() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 3, 10)).unwrap();
    for wrong in [0, 2, 4] {
        assert!(matches!(*append(&log, wrong, vec![entry(9, 9)]).unwrap_err(), LogError::Gap { expected: 3, .. }));
    }
    assert!(matches!(*now(log.truncate_from(4, ignore())).unwrap_err(), LogError::Gap { .. }));
    let huge = Bytes::from(vec![0; crate::log::ENTRY_BYTES_MAX + 1]);
    assert!(matches!(*append(&log, 3, vec![huge]).unwrap_err(), LogError::TooLarge { .. }));
    assert!(matches!(*vote(&log, &[0; 1025]).unwrap_err(), LogError::TooLarge { .. }));
    append(&log, 3, entries(3, 4, 10)).unwrap();
    assert_eq!(all(&reader).len(), 4);
}

#[test]
fn log_truncated_while_waiting_keeps_the_later_entries() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Manual).unwrap();
    now(log.append(0, entries(0, 6, 20), ignore())).unwrap();
    now(log.truncate_from(2, ignore())).unwrap();
    now(log.append(2, entries(102, 104, 20), ignore())).unwrap();
    let expected = vec![(0, entry(0, 20)), (1, entry(1, 20)), (2, entry(102, 20)), (3, entry(103, 20))];
    assert_eq!(all(&reader), expected, "visible at once");
    assert_eq!(reader.durable_index(), 0);
    while log.run_pending() {}
    assert_eq!((all(&reader), reader.durable_index()), (expected.clone(), 4));
    now(log.truncate_from(3, ignore())).unwrap();
    now(log.append(3, entries(203, 206, 20), ignore())).unwrap();
    while log.run_pending() {}
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    let indexes: Vec<_> = all(&reader).into_iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(indexes, [0, 1, 102, 203, 204, 205].map(|number: u64| entry(number, 1)[0]));
}

#[test]
fn log_purge_unlinks_whole_segments_and_keeps_its_note() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    vote(&log, b"v").unwrap();
    for index in 0..60 {
        append(&log, index, vec![entry(index, 200)]).unwrap();
    }
    let before = segments(&disk).len();
    purge(&log, 50, b"log id 49").unwrap();
    assert!(segments(&disk).len() < before / 2);
    assert_eq!(reader.bounds(), (50..60, "log id 49".into()));
    assert!(matches!(*now(log.truncate_from(49, ignore())).unwrap_err(), LogError::Purged { index: 49, first: 50 }));
    purge(&log, 50, b"again").unwrap();
    drop((log, reader));
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.bounds(), (50..60, "log id 49".into()));
    assert_eq!(reader.read(0..100, usize::MAX).unwrap().len(), 10);
    assert_eq!(reader.slot(Slot::Vote).unwrap(), "v", "carried into later segments");
}

#[test]
fn log_purged_past_its_end_goes_on_there() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 5, 10)).unwrap();
    purge(&log, 1000, b"snapshot").unwrap();
    assert_eq!((reader.bounds().0, all(&reader).len()), (1000..1000, 0));
    append(&log, 1000, entries(1000, 1003, 10)).unwrap();
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!((reader.bounds().0, all(&reader).len()), (1000..1003, 3));
}

#[test]
fn log_group_takes_one_sync_for_all_that_waits() {
    let disk = SimDisk::new();
    let (log, _reader) = open(&disk, Drive::Manual).unwrap();
    now(log.append(0, entries(0, 1, 10), ignore())).unwrap();
    while log.run_pending() {}
    let waits: Vec<_> = (1..9)
        .map(|index| {
            let (done, durable) = completion();
            now(log.append(index, entries(index, index + 1, 10), done)).unwrap();
            durable
        })
        .collect();
    let before = disk.syncs();
    assert!(log.run_pending());
    assert_eq!(disk.syncs() - before, 1);
    waits.into_iter().for_each(|durable| now(durable).unwrap());
}

#[test]
fn log_committed_hint_costs_no_sync_and_survives_with_the_next_group() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 1, 10)).unwrap();
    let before = disk.syncs();
    let (done, written) = completion();
    now(log.write_slot(Slot::Committed, "0".into(), done)).unwrap();
    now(written).unwrap();
    assert_eq!(disk.syncs(), before);
    drop(log);
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.slot(Slot::Committed).unwrap(), "0", "a killed process loses no hint");
    append(&log, 1, entries(1, 2, 10)).unwrap();
    disk.crash(&seams::sim::SimEntropy::new(1));
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.slot(Slot::Committed).unwrap(), "0");
}

#[test]
fn log_queue_full_makes_the_sender_wait() {
    let disk = SimDisk::new();
    let options = LogOptions { queue_bytes_max: 1000, ..options() };
    let (log, reader) = LogWriter::open(Arc::new(disk), options, Drive::Manual).unwrap();
    now(log.append(0, entries(0, 1, 900), ignore())).unwrap();
    let mut second = pin!(log.append(1, entries(1, 2, 900), ignore()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert_eq!(reader.next_index(), 1);
    assert!(log.run_pending());
    assert!(matches!(second.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    assert_eq!(reader.next_index(), 2);
}

#[test]
fn log_entry_larger_than_queue_group_and_segment_goes_through() {
    let disk = SimDisk::new();
    let options = LogOptions { queue_bytes_max: 1000, ..options() };
    let (log, reader) = LogWriter::open(Arc::new(disk.clone()), options, Drive::Inline).unwrap();
    append(&log, 0, vec![entry(0, 50_000), entry(1, 10)]).unwrap();
    append(&log, 2, vec![entry(2, 10)]).unwrap();
    assert_eq!(all(&reader), [(0, entry(0, 50_000)), (1, entry(1, 10)), (2, entry(2, 10))]);
    let (_, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(all(&reader).len(), 3);
}

#[test]
fn log_closed_refuses_and_reports() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Thread).unwrap();
    now(log.append(0, entries(0, 5, 10), ignore())).unwrap();
    log.close().unwrap();
    log.close().unwrap();
    assert_eq!(reader.durable_index(), 5);
    assert!(matches!(*now(log.append(5, entries(5, 6, 10), ignore())).unwrap_err(), LogError::Closed));
    assert_eq!(all(&reader).len(), 5, "still readable");
}

#[test]
fn log_thread_makes_groups_of_what_many_append() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Thread).unwrap();
    let (done, last) = completion();
    for index in 0..500 {
        now(log.append(index, entries(index, index + 1, 50), ignore())).unwrap();
    }
    now(log.append(500, entries(500, 501, 50), done)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(last).unwrap();
    assert_eq!(reader.durable_index(), 501);
    assert_eq!(all(&reader).len(), 501);
    log.close().unwrap();
}

#[test]
fn log_append_here_is_written_by_its_caller_while_nobody_else_writes() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Thread).unwrap();
    let (sender, written_by) = std::sync::mpsc::sync_channel(1);
    for index in 0..50 {
        let sender = sender.clone();
        let done: Done = Box::new(move |result| sender.send((result.is_ok(), std::thread::current().id())).unwrap());
        now(log.append_here(index, entries(index, index + 1, 100), done)).unwrap();
        let (durable, thread) = written_by.recv().unwrap();
        assert!(durable);
        // The thread may be preparing a segment, and then goes on with what waits.
        assert!(index > 0 || thread == std::thread::current().id());
        assert_eq!(reader.durable_index(), index + 1);
    }
    log.close().unwrap();
    assert!(segments(&disk).len() > 1);
    assert_eq!(open(&disk, Drive::Inline).unwrap().1.next_index(), 50);
}

#[test]
fn log_appends_here_and_by_the_thread_go_on_beside_each_other() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Thread).unwrap();
    let next = std::sync::Mutex::new(0_u64);
    std::thread::scope(|scope| {
        for here in [true, true, false, false] {
            let (log, next) = (log.clone(), &next);
            scope.spawn(move || {
                for _ in 0..200 {
                    let (done, durable) = completion();
                    let mut index = next.lock().unwrap();
                    // Made visible in turn; written as it comes.
                    if here && index.is_multiple_of(3) {
                        now(log.append_here(*index, entries(*index, *index + 1, 100), done)).unwrap();
                    } else {
                        now(log.append(*index, entries(*index, *index + 1, 100), done)).unwrap();
                    }
                    *index += 1;
                    drop(index);
                    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(durable).unwrap();
                }
            });
        }
    });
    assert_eq!(reader.durable_index(), 800);
    log.close().unwrap();
    assert_eq!(open(&disk, Drive::Inline).unwrap().1.next_index(), 800);
}

#[test]
fn log_append_here_that_fails_is_told_and_the_log_can_be_closed() {
    let disk = SimDisk::new();
    let (log, _reader) = open(&disk, Drive::Thread).unwrap();
    disk.set_faults(seams::sim::DiskFaults { sync_fails: true, ..Default::default() });
    let (done, durable) = completion();
    now(log.append_here(0, entries(0, 1, 100), done)).unwrap();
    assert!(now(durable).is_err());
    assert!(log.close().is_err());
}

#[test]
fn log_empty_append_is_done_after_what_came_before() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Manual).unwrap();
    now(log.append(0, entries(0, 2, 10), ignore())).unwrap();
    let (done, mut durable) = completion();
    now(log.append(2, Vec::new(), done)).unwrap();
    assert!(std::pin::Pin::new(&mut durable).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    while log.run_pending() {}
    now(durable).unwrap();
    assert_eq!(reader.next_index(), 2);
}

proptest! {
    #[test]
    fn block_round_trips_and_knows_its_place(
        records in prop::collection::vec((0u8..5, any::<u64>(), prop::collection::vec(any::<u8>(), 0..300)), 1..20),
        segment in any::<u64>(), offset in any::<u64>(), chain in any::<u32>(),
    ) {
        let mut block = BlockBuilder::default();
        block.clear();
        for (kind, number, bytes) in &records {
            match kind {
                0 => { block.entry(*number, bytes); }
                1 => block.truncate(*number),
                2 => block.purge(*number, bytes),
                3 => block.slot(Slot::Committed, *number, bytes),
                _ => block.carry(*number, 7, bytes),
            }
        }
        let (bytes, crc) = block.seal(segment, offset, chain);
        prop_assert_eq!(bytes.len() % 512, 0);
        let header = BlockHeader::decode(bytes, segment, offset).unwrap();
        prop_assert_eq!((header.crc, header.chain, header.records as usize), (crc, chain, records.len()));
        prop_assert!(BlockHeader::decode(bytes, segment, offset ^ 1).is_none());
        prop_assert!(BlockHeader::decode(bytes, segment ^ 1, offset).is_none());
        let mut fields = Cursor::new(&bytes[BLOCK_HEADER_BYTES..][..header.payload_len as usize]);
        for (kind, number, bytes) in records {
            let bytes = Bytes::from(bytes);
            let expected = match kind {
                0 => Record::Entry { index: number, at: fields.position() + 17, len: bytes.len() as u32 },
                1 => Record::Truncate { from: number },
                2 => Record::Purge { before: number, note: bytes },
                3 => Record::Slot { slot: Slot::Committed, sequence: number, bytes },
                _ => Record::Carry { next: number, first: 7, note: bytes },
            };
            prop_assert_eq!(Record::decode(&mut fields), Some(expected));
        }
        prop_assert_eq!(fields.position(), header.payload_len as usize);
    }

    #[test]
    fn record_decode_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut fields = Cursor::new(&bytes);
        while Record::decode(&mut fields).is_some() {}
    }
}
