//! What `feed` reads from its own files, and the chunks of snapshots. What else comes over streams is in `protocol`, and what a stream
//! carries in `replicated`.

use std::{cell::RefCell, sync::OnceLock};

use bytes::Bytes;
use feed::{Cut, SnapshotBuilder};
use state::{SealStatement, Signed};
use types::{ChainId, NodeId};
use wire::internal::{SnapshotBegin, SnapshotChunk};

use super::{
    Seen, Target,
    replicated::{CLUSTER, generation, history, seal},
};

pub(super) const TARGETS: &[Target] = &[
    Target::new(
        "feed_stored",
        &[
            "feed/src/follower/record.rs",
            "feed/src/follower/mark.rs",
            "feed/src/follower/past.rs",
            "feed/src/head.rs",
            "feed/src/follower/table.rs",
        ],
        seeds,
        read,
    )
    .repaired(repair),
    Target::new("snapshot_chunk", &["feed/src/snapshot.rs"], chunks, chunk).up_to(8 << 10, 8 << 20),
];

/// The first byte chooses the form.
fn read(bytes: &[u8]) -> Seen {
    let Some((form, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let form = &feed::FORMS[usize::from(*form) % feed::FORMS.len()];
    match (form.reread)(Bytes::copy_from_slice(bytes)) {
        Ok(written) => {
            assert_eq!((form.reread)(written.clone()).as_ref(), Ok(&written), "{}: what was read and written reads as another", form.name);
            Seen::Read(form.name.to_owned())
        }
        Err(error) => Seen::Refused(format!("{}: {error}", form.name)),
    }
}

fn entry(seal: &[u8]) -> Vec<u8> {
    let set = history().change_sets.first().cloned().unwrap_or_default();
    [&[0, 1][..], &(seal.len() as u16).to_le_bytes(), seal, &set].concat()
}

fn mark(checkpoint: &[u8]) -> Vec<u8> {
    let mut bytes = [&[1][..], b"CMK1", &[1; 76], &(checkpoint.len() as u16).to_le_bytes(), checkpoint, &[0; 4]].concat();
    repair(&mut bytes);
    bytes
}

fn past(generation: &[u8], marks: u8) -> Vec<u8> {
    let length = (generation.len() as u16).to_le_bytes();
    let mut bytes = [&[2][..], b"CINPAST1", &[1], &[8; 32], &length, generation, &[marks]].concat();
    bytes.extend_from_slice(&vec![3; 44 * usize::from(marks)]);
    bytes.extend_from_slice(&[0; 4]);
    repair(&mut bytes);
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let head = [&[3, 1][..], &[5; 56], b"what belongs to it"].concat();
    vec![entry(&[]), entry(&seal()), mark(&[]), mark(&seal()), past(&[], 0), past(&generation(), 2), head]
}

/// A past ends with a CRC over all before it; in a mark it stands behind the checkpoint.
fn repair(input: &mut [u8]) {
    let forms = feed::FORMS.len() as u8;
    let Some((form, bytes)) = input.split_first_mut() else { return };
    let end = match *form % forms {
        1 => {
            let length = bytes.get(80..).and_then(<[u8]>::first_chunk).map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
            bytes.len().min(82 + length + 4)
        }
        2 => bytes.len(),
        _ => return,
    };
    super::logs::repair_last(&mut bytes[..end]);
}

/// Snapshots of what golden logs lead to: how each begins, and its first chunk.
fn cuts() -> &'static [(SnapshotBegin, SnapshotChunk)] {
    /// So few that an input is small, and enough for several buckets.
    const CHUNK_BYTES: usize = 1000;
    static CUTS: OnceLock<Vec<(SnapshotBegin, SnapshotChunk)>> = OnceLock::new();
    CUTS.get_or_init(|| {
        let cut = |state: &state::State| {
            let cut = |seal| Cut::new(state.propagated().clone(), seal, None, CHUNK_BYTES);
            let unsealed = cut(Bytes::new());
            let (chain, position) = (ChainId::new(0), unsealed.position());
            let (chain_hash, state_root) = (unsealed.chain_hash(), unsealed.state_root());
            let statement = SealStatement { cluster: CLUSTER, chain, position, chain_hash, state_root };
            let cut = cut(Signed { statement, signer: NodeId::new(1), signer_set: 1, signature: [5; 64] }.encode());
            Some((cut.begin(0), cut.chunk(0)?))
        };
        history().states.iter().take(3).filter_map(cut).collect()
    })
}

/// The number of the snapshot, the length of the list of buckets 2, the list, the records.
fn chunks() -> Vec<Vec<u8>> {
    let seed = |(number, (_, chunk)): (usize, &(SnapshotBegin, SnapshotChunk))| {
        [&[number as u8][..], &(chunk.proof.len() as u16).to_le_bytes(), &chunk.proof, &chunk.records].concat()
    };
    cuts().iter().enumerate().map(seed).collect()
}

fn begun(number: usize) -> SnapshotBuilder {
    SnapshotBuilder::apart(CLUSTER, &cuts()[number].0, 1 << 20).expect("a snapshot that begins well")
}

fn chunk(input: &[u8]) -> Seen {
    thread_local! {
        /// What is refused leaves a snapshot as it was, so that it serves the next input.
        static BEGUN: RefCell<Vec<Option<SnapshotBuilder>>> = const { RefCell::new(Vec::new()) };
    }
    let Some((number, rest)) = input.split_first() else { return Seen::Refused("empty".into()) };
    let Some((length, rest)) = rest.split_first_chunk() else { return Seen::Refused("no list".into()) };
    let Some((proof, records)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
        return Seen::Refused("a list that is cut off".into());
    };
    let number = usize::from(*number) % cuts().len();
    let sent = SnapshotChunk { index: 0, records: Bytes::copy_from_slice(records), proof: Bytes::copy_from_slice(proof) };
    BEGUN.with_borrow_mut(|all| {
        all.resize_with(cuts().len(), || None);
        let mut snapshot = all[number].take().unwrap_or_else(|| begun(number));
        match snapshot.chunk(&sent) {
            Ok(()) => {
                assert!(snapshot.chunk(&sent).is_err(), "a chunk is taken once");
                Seen::Read(format!("{} buckets", proof.len() / 2))
            }
            Err(fault) => {
                all[number] = Some(snapshot);
                Seen::Refused(fault.to_string())
            }
        }
    })
}
