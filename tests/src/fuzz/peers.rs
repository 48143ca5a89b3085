//! What `consensus` reads: records of the Raft log, its slots, the labels of states, and all that voters say to each other.

use std::sync::OnceLock;

use bytes::Bytes;
use consensus::Form;
use openraft_rt_sim::SimRuntime;

use super::{Seen, Target, replicated::history};

pub(super) const TARGETS: &[Target] = &[
    Target::new("raft_stored", &["consensus/src/format.rs", "consensus/src/snapshot.rs"], || seeds(0..4), |bytes| read(bytes, 0..4)),
    Target::new(
        "raft_sent",
        &["consensus/src/network/calls.rs", "consensus/src/network/forwards.rs"],
        || seeds(4..forms().len()),
        |bytes| read(bytes, 4..forms().len()),
    ),
];

fn forms() -> &'static [Form] {
    static FORMS: OnceLock<Vec<Form>> = OnceLock::new();
    FORMS.get_or_init(consensus::forms::<SimRuntime>)
}

/// The first byte chooses the form.
fn read(bytes: &[u8], of: std::ops::Range<usize>) -> Seen {
    let Some((form, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let form = &forms()[of.start + usize::from(*form) % of.len()];
    match (form.reread)(Bytes::copy_from_slice(bytes)) {
        Ok(written) => {
            assert_eq!((form.reread)(written.clone()).as_ref(), Ok(&written), "{}: what was read and written reads as another", form.name);
            Seen::Read(form.name.to_owned())
        }
        Err(error) => Seen::Refused(format!("{}: {error}", form.name)),
    }
}

const VOTE: [u8; 17] = [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1];
const LOG_ID: [u8; 16] = [3, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];

fn some_log_id() -> Vec<u8> {
    [&[1][..], &LOG_ID].concat()
}

/// Two configurations, two nodes.
fn membership() -> Vec<u8> {
    let mut bytes = vec![2, 0, 2, 0];
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, b'a', b':', b'1', 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, b'b', b':', b'2']);
    bytes
}

fn records() -> Vec<Vec<u8>> {
    let record = |kind: u8, body: &[u8]| [&[1, kind, 3, 0, 0, 0, 0, 0, 0, 0][..], body].concat();
    let command = history().commands.first().cloned().unwrap_or_default();
    vec![record(0, &[]), record(1, &command), record(1, &[]), record(2, &membership())]
}

fn append(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [&[1][..], &VOTE, &some_log_id(), &[0], &(records.len() as u32).to_le_bytes()].concat();
    for (index, record) in (9_u64..).zip(records) {
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

/// Samples that any form may read; each form takes those that it does read.
fn samples() -> Vec<Vec<u8>> {
    let id = some_log_id();
    let mut samples = records();
    samples.push([&[1][..], &VOTE].concat());
    samples.push([&[1][..], &LOG_ID].concat());
    // A label; a stored membership is its log id and the membership.
    samples.push([&[1][..], &id, &id, &membership(), &[9, 0, 0, 0, 0, 0, 0, 0]].concat());
    samples.push(append(&[]));
    samples.push(append(&records()));
    samples.extend([vec![1, 0], [&[1, 1][..], &id].concat(), vec![1, 2], [&[1, 3][..], &VOTE].concat()]);
    samples.extend([[&[1, 0][..], &id].concat(), [&[1, 1][..], &LOG_ID].concat(), [&[1, 2][..], &VOTE].concat()]);
    samples.push([&[1][..], &VOTE, &id, &[1]].concat());
    samples.push([&[1][..], &VOTE, &[1], &id].concat());
    samples.push([&[1][..], &VOTE, &id, &id, &membership(), &[100, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0], b"chunk"].concat());
    samples.push([&[1][..], &VOTE, &[9, 0, 0, 0, 0, 0, 0, 0]].concat());
    samples.push([&[1][..], &VOTE, &[2, 0, 0, 0, 0, 0, 0, 0], &id].concat());
    samples.extend([[&[1, 1][..], &VOTE, &VOTE].concat(), [&[1, 2][..], &id, &id].concat()]);
    samples.push([&[1, 0x88, 0x13, 0, 0][..], b"command"].concat());
    // Postcard: within 5 s, add node 4 at "c:3"; the question alone; answers of all kinds.
    samples.extend([vec![1, 0x88, 0x27, 0, 4, 3, b'c', b':', b'3'], vec![1, 0x88, 0x27, 2, 4, 1], vec![1, 0x88, 0x27]]);
    samples.extend([vec![1, 0, 9], vec![1, 1, 1, 2, 3, b'b', b':', b'2'], vec![1, 2, 3, b'w', b'h', b'y'], vec![1, 5, 1, 3, 0]]);
    samples.push(vec![1, 0, 2, 3, 1, 9, 2, 1, 1, 9, 1, 0, 2, 0, 1, 7]);
    samples
}

fn seeds(of: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for form in 0..of.len() {
        let fitting = samples().into_iter().map(|sample| [vec![form as u8], sample].concat());
        let before = seeds.len();
        seeds.extend(fitting.filter(|seed| matches!(read(seed, of.clone()), Seen::Read(_))));
        assert!(seeds.len() > before, "no sample of {}", forms()[of.start + form].name);
    }
    seeds
}
