use seams::sim::DiskFaults;

use super::*;

fn cause(error: &LogError) -> &LogError {
    match error {
        LogError::Stopped(cause) => cause,
        other => other,
    }
}

#[test]
fn log_on_a_full_disk_says_so_and_stops() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    disk.set_faults(DiskFaults { capacity: Some(20_000), ..DiskFaults::default() });
    let mut durable = 0;
    let error = loop {
        match append(&log, durable, vec![entry(durable, 300)]) {
            Ok(()) => durable += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(cause(&error), LogError::Full { .. }), "{error:?}");
    assert!(cause(&error).to_string().contains("disk is full"));
    disk.set_faults(DiskFaults::default());
    assert!(append(&log, durable, entries(0, 1, 1)).is_err(), "it stays stopped");
    assert!(vote(&log, b"v").is_err());
    assert!(reader.read(0..1, 1).is_err());
    assert!(log.close().is_err());
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    assert_eq!(reader.next_index(), durable);
    append(&log, durable, entries(0, 1, 300)).unwrap();
}

#[test]
fn log_whose_sync_failed_stops_and_tells_all_who_wait() {
    let disk = SimDisk::new();
    let (log, _reader) = open(&disk, Drive::Manual).unwrap();
    now(log.append(0, entries(0, 1, 10), ignore())).unwrap();
    while log.run_pending() {}
    disk.set_faults(DiskFaults { sync_fails: true, ..DiskFaults::default() });
    let waits: Vec<_> = (1..30)
        .map(|index| {
            let (done, durable) = completion();
            now(log.append(index, entries(index, index + 1, 300), done)).unwrap();
            durable
        })
        .collect();
    assert!(log.run_pending(), "the group is smaller than what waits");
    disk.set_faults(DiskFaults::default());
    for durable in waits {
        let error = now(durable).unwrap_err();
        assert!(matches!(cause(&error), LogError::Io { operation: "sync", .. }), "{error:?}");
    }
    assert!(!log.run_pending());
    assert!(now(log.append(30, Vec::new(), ignore())).is_err());
}

#[test]
fn log_on_a_read_only_disk_does_not_open() {
    let disk = SimDisk::new();
    disk.set_faults(DiskFaults { read_only: true, ..DiskFaults::default() });
    assert!(matches!(open(&disk, Drive::Inline), Err(LogError::Io { .. })));
}

#[test]
fn log_options_out_of_range_are_refused() {
    let options = LogOptions { segment_bytes: 100, ..options() };
    let Err(error) = LogWriter::open(Arc::new(SimDisk::new()), options, Drive::Inline) else { panic!("opened") };
    assert!(error.to_string().contains("segment_bytes must be 4 KiB to 2 GiB"));
}

#[test]
fn log_spare_that_does_not_fit_is_no_failure_yet() {
    let disk = SimDisk::new();
    let (log, reader) = open(&disk, Drive::Inline).unwrap();
    append(&log, 0, entries(0, 1, 1)).unwrap();
    disk.set_faults(DiskFaults { capacity: Some(13_000), ..DiskFaults::default() });
    for index in 1..7 {
        append(&log, index, entries(index, index + 1, 1)).unwrap();
    }
    assert_eq!(reader.durable_index(), 7);
    assert!(append(&log, 7, entries(7, 8, 1)).is_err(), "now there is no room");
}
