//! What sled holds in memory after it has written much: a process of its own, so that nothing else counts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test: it fails where it stands, and says so")]

use seams::{Table, TableBatch};
use store::{SledOptions, SledTable};

/// MiB of this process that no file backs.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("Linux says so");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn table_written_in_large_batches_frees_what_it_replaced() {
    const BATCHES: u64 = 30;
    const RECORDS: u64 = 5000;
    let folder = tempfile::tempdir().unwrap();
    let mut table = SledTable::open(&folder.path().join("table"), SledOptions::default()).unwrap();
    let before = resident();
    for number in 0..BATCHES {
        let mut batch = TableBatch::default();
        for record in number * RECORDS..(number + 1) * RECORDS {
            // Spread over the whole tree: each write replaces another node.
            let place = record.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            batch.put([&[7; 16][..], &place, &place].concat(), vec![record as u8; 200]);
        }
        table.write(&batch).unwrap();
        table.flush().unwrap();
    }
    // 35 MB of records. Without freeing it has grown by 374.
    let grown = resident() - before;
    assert!(grown < 200, "the process has grown by {grown} MiB");
}
