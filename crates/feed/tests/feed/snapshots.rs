//! A snapshot is proven chunk by chunk, resumed where it stopped, and never shown before all of it is proven.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use feed::{Core, Cut};
use seams::sim::SimEntropy;
use state::{Signed, bucket_of};
use types::ClusterId;
use wire::internal::{SnapshotBegin, SnapshotChunk, SnapshotEnd, SubscribeDown, subscribe_down::Message};

use crate::harness::{CLUSTER, CONTROL, Edge, Plane, at, batch, delete, down, fault_of, other_key, root_of, signing_key, take, value_key};

fn begin(begin: SnapshotBegin) -> SubscribeDown {
    down(Message::SnapshotBegin(begin))
}

fn chunk(chunk: SnapshotChunk) -> SubscribeDown {
    down(Message::SnapshotChunk(chunk))
}

fn end() -> SubscribeDown {
    down(Message::SnapshotEnd(SnapshotEnd {}))
}

fn cut(plane: &Plane) -> Cut {
    Cut::new(plane.propagated().clone(), plane.seal().encode(), None, 2000)
}

/// Sends all of a cut.
fn send(core: &mut Core, cut: &Cut) -> feed::Handled {
    take(core, begin(cut.begin(0)));
    for index in 0..cut.chunks() {
        take(core, chunk(cut.chunk(index).unwrap()));
    }
    take(core, end())
}

/// A plane at revision 41 and an empty edge.
fn scene() -> (Plane, Edge, Core) {
    let mut plane = Plane::new();
    plane.write(40);
    let edge = Edge::new(&plane.clock);
    let core = edge.open();
    (plane, edge, core)
}

#[test]
fn snapshot_is_installed_shown_acknowledged_and_there_after_a_restart() {
    let (mut plane, edge, mut core) = scene();
    let cut = cut(&plane);
    assert!(cut.chunks() > 2, "the scene has several chunks: {}", cut.chunks());
    let handled = send(&mut core, &cut);
    assert_eq!(handled.acknowledge.map(|synced| synced.position), Some(at(41)));
    assert_eq!(edge.seen.root().map(|root| root_of(&root)), Some((at(41), plane.propagated().state_root())));
    // The tail follows behind it.
    plane.write(1);
    take(&mut core, batch(&plane.sets[41..], Some(&plane.seal())));
    edge.crash(core, &SimEntropy::new(1));
    let core = edge.open();
    assert_eq!(core.published(), Some(at(42)), "an empty log behind a snapshot is not a lost one");
}

#[test]
pub(crate) fn snapshot_chunk_that_is_not_proven_is_refused_by_name_and_healed() {
    let (plane, edge, mut core) = scene();
    let cut = cut(&plane);
    let good = cut.chunk(1).unwrap();
    let records = records_of(&good);
    let encode = |records: &[(Vec<u8>, Vec<u8>)]| SnapshotChunk { records: encode(records), ..good.clone() };
    let lacking = encode(&records[1..]);
    let changed = {
        let mut records = records.clone();
        records[0].1[0] ^= 1;
        encode(&records)
    };
    let moved = {
        // Two records that change their contents.
        let mut records = records.clone();
        let (one, other) = (records[0].1.clone(), records[1].1.clone());
        (records[0].1, records[1].1) = (other, one);
        encode(&records)
    };
    let added = {
        let key = (0..).map(value_key).find(|key| good.proof[..2] == bucket_of(key).to_le_bytes()).unwrap();
        let mut records = records.clone();
        records.push((key.as_bytes().to_vec(), b"added".to_vec()));
        encode(&records)
    };
    let elsewhere = {
        let mut records = records.clone();
        records.extend(records_of(&cut.chunk(2).unwrap()).into_iter().take(1));
        encode(&records)
    };
    let twice = {
        let mut records = records.clone();
        records.push(records[0].clone());
        encode(&records)
    };
    let cases = [
        ("a record missing", lacking),
        ("a record changed", changed),
        ("two records moved", moved),
        ("a record added", added),
        ("a record of another chunk", elsewhere),
        ("a record twice", twice),
        ("a bucket's records and its listing missing", without_first_bucket(&good, &records)),
        ("cut off", SnapshotChunk { records: good.records.slice(..good.records.len() - 1), ..good.clone() }),
        ("a listing cut off", SnapshotChunk { proof: good.proof.slice(1..), ..good.clone() }),
        ("out of order", SnapshotChunk { index: 2, ..good.clone() }),
        ("beyond the last", SnapshotChunk { index: 1000, ..good.clone() }),
    ];
    for (case, bad) in cases {
        take(&mut core, begin(cut.begin(0)));
        take(&mut core, chunk(cut.chunk(0).unwrap()));
        // A chunk that lacks a whole bucket is proven for what it lists; the whole is refused at the end.
        let name = if case == "a bucket's records and its listing missing" {
            take(&mut core, chunk(bad));
            for index in 2..cut.chunks() {
                take(&mut core, chunk(cut.chunk(index).unwrap()));
            }
            assert_eq!(fault_of(core.handle(vec![end()])), "snapshot_whole", "{case}");
            continue;
        } else {
            fault_of(core.handle(vec![chunk(bad)]))
        };
        assert_eq!(name, "snapshot_chunk", "{case}");
        assert_eq!(core.resume(), None, "{case}: what that sender sent is not gone on with");
        assert!(edge.seen.root().is_none() && core.synced().is_none(), "{case}");
    }
    send(&mut core, &cut);
    assert_eq!(edge.seen.position(), Some(at(41)));
}

fn without_first_bucket(good: &SnapshotChunk, records: &[(Vec<u8>, Vec<u8>)]) -> SnapshotChunk {
    let first = u16::from_le_bytes([good.proof[0], good.proof[1]]);
    let rest: Vec<_> = records.iter().filter(|(key, _)| bucket_of(&state::Key::from_bytes(key)) != first).cloned().collect();
    SnapshotChunk { records: encode(&rest), proof: good.proof.slice(2..), ..good.clone() }
}

#[test]
fn snapshot_whose_whole_is_wrong_is_refused_by_name() {
    let (plane, edge, mut core) = scene();
    let cut = cut(&plane);
    let good = cut.begin(0);
    let with_seal = |seal: Bytes| SnapshotBegin { seal_encoded: seal, ..good.clone() };
    let statement = plane.seal().statement;
    let with_meta = |place: usize| {
        let mut meta = BytesMut::from(&good.meta[..]);
        meta[place] ^= 1;
        SnapshotBegin { meta: meta.freeze(), ..good.clone() }
    };
    let other_cluster = state::SealStatement { cluster: ClusterId::from_bytes([1; 16]), ..statement };
    let cases = [
        ("no seal", with_seal(Bytes::new()), "malformed"),
        ("another cluster", with_seal(signing_key().sign(other_cluster, CONTROL, 1).encode()), "wrong_cluster"),
        ("a bucket's hash changed", with_meta(57 + 32 * 100), "snapshot_whole"),
        ("another head", with_meta(20), "snapshot_whole"),
        ("another position", with_meta(9), "snapshot_whole"),
        ("an unknown format", with_meta(0), "malformed"),
        ("hashes missing", SnapshotBegin { meta: good.meta.slice(..500), ..good.clone() }, "malformed"),
        ("begun in the middle", cut.begin(2), "protocol"),
    ];
    for (case, bad, fault) in cases {
        assert_eq!(fault_of(core.handle(vec![begin(bad)])), fault, "{case}");
    }
    let unsigned = [
        ("another key", other_key().sign(statement, CONTROL, 1), "bad_signature"),
        ("a stranger", other_key().sign(statement, types::NodeId::new(9), 1), "unknown_signer"),
        ("another signer set", signing_key().sign(statement, CONTROL, 4), "wrong_signer_set"),
    ];
    for (case, seal, fault) in unsigned {
        take(&mut core, begin(with_seal(seal.encode())));
        for index in 0..cut.chunks() {
            take(&mut core, chunk(cut.chunk(index).unwrap()));
        }
        assert_eq!(fault_of(core.handle(vec![end()])), fault, "{case}");
        assert!(edge.seen.root().is_none(), "{case}");
    }
    take(&mut core, begin(cut.begin(0)));
    assert_eq!(fault_of(core.handle(vec![end()])), "snapshot_whole", "ended before its chunks");
    send(&mut core, &cut);
    assert_eq!(edge.seen.position(), Some(at(41)));
}

#[test]
fn snapshot_of_another_first_signer_set_is_refused() {
    // A whole forged history, well-formed and signed by its own signer: not what was pinned.
    let (_, edge, mut core) = scene();
    let forged = {
        let mut state = state::Propagated::empty();
        let mut set = crate::harness::first_set();
        set.keys[0].key = other_key().public();
        let change = |key: state::TypedKey, value| state::Change { key: key.encode(), value: Some(value) };
        let changes = vec![
            change(state::TypedKey::Settings, state::record::SettingsRecord::defaults(CLUSTER).encode()),
            change(state::TypedKey::SignerSet { version: 1 }, set.encode()),
        ];
        state.accept(&crate::harness::next_set(&state, 1, changes)).unwrap();
        state
    };
    let seal = other_key().sign(forged.seal_statement(CLUSTER), CONTROL, 1);
    let cut = Cut::new(forged, Signed::encode(&seal), None, 2000);
    take(&mut core, begin(cut.begin(0)));
    for index in 0..cut.chunks() {
        take(&mut core, chunk(cut.chunk(index).unwrap()));
    }
    assert_eq!(fault_of(core.handle(vec![end()])), "untrusted_signer_set");
    assert!(edge.seen.root().is_none());
}

#[test]
fn snapshot_is_gone_on_with_after_the_stream_was_lost() {
    let (plane, edge, mut core) = scene();
    let cut = cut(&plane);
    take(&mut core, begin(cut.begin(0)));
    take(&mut core, chunk(cut.chunk(0).unwrap()));
    take(&mut core, chunk(cut.chunk(1).unwrap()));
    core.disconnected();
    let resume = core.resume().unwrap();
    assert_eq!(resume.next_chunk, 2);
    assert_eq!(resume.state_root, cut.state_root().as_bytes()[..]);
    take(&mut core, begin(cut.begin(2)));
    for index in 2..cut.chunks() {
        take(&mut core, chunk(cut.chunk(index).unwrap()));
    }
    take(&mut core, end());
    assert_eq!(edge.seen.position(), Some(at(41)));
}

#[test]
fn snapshot_after_a_snapshot_sends_only_what_differs() {
    let (mut plane, edge, mut core) = scene();
    let first = cut(&plane);
    send(&mut core, &first);
    plane.commit(vec![delete(3), delete(4), crate::harness::put(60, "new")]);
    let second = Cut::new(plane.propagated().clone(), plane.seal().encode(), Some((first.position(), first.state())), 2000);
    assert_eq!(second.chunks(), 1);
    send(&mut core, &second);
    assert_eq!(edge.seen.root().map(|root| root_of(&root)), Some((at(42), plane.propagated().state_root())));
    // The table took over the difference too.
    core.close().unwrap();
    edge.remove_files("edge/snapshots");
    assert_eq!(edge.open().published(), Some(at(42)));
    assert_eq!(edge.table.resets(), 0);
}

#[test]
pub(crate) fn snapshot_complete_takes_away_what_was_deleted_since() {
    // Found by the simulation, seed 1: whoever held a record in a bucket that is empty by now could never take a complete snapshot.
    let (mut plane, edge, mut core) = scene();
    send(&mut core, &cut(&plane));
    plane.commit((0..20).map(delete).collect());
    send(&mut core, &cut(&plane));
    assert_eq!(edge.seen.root().map(|root| root_of(&root)), Some((at(42), plane.propagated().state_root())));
}

#[test]
fn snapshot_that_would_go_back_is_refused() {
    let (mut plane, edge, mut core) = scene();
    let old = cut(&plane);
    plane.write(1);
    send(&mut core, &cut(&plane));
    assert_eq!(fault_of(core.handle(vec![begin(old.begin(0))])), "snapshot_back");
    assert_eq!(edge.seen.position(), Some(at(42)));
    assert_eq!(core.resume(), None);
}

#[test]
fn snapshot_that_batches_have_passed_is_given_up() {
    let (mut plane, edge, mut core) = scene();
    take(&mut core, batch(&plane.sets[..1], Some(&plane.seal_of(1))));
    let cut = cut(&plane);
    take(&mut core, begin(cut.begin(0)));
    plane.write(2);
    take(&mut core, batch(&plane.sets[1..], Some(&plane.seal())));
    assert_eq!(core.resume(), None);
    assert_eq!(fault_of(core.handle(vec![chunk(cut.chunk(0).unwrap())])), "protocol");
    assert_eq!(fault_of(core.handle(vec![end()])), "protocol");
    assert_eq!(edge.seen.position(), Some(at(43)));
    core.close().unwrap();
    assert_eq!(edge.open().published(), Some(at(43)));
}

#[test]
fn snapshot_end_after_a_batch_in_one_run_of_messages_leaves_the_log_whole() {
    let (plane, edge, mut core) = scene();
    let whole = cut(&plane);
    let mut messages = vec![begin(whole.begin(0))];
    messages.extend((0..whole.chunks()).map(|index| chunk(whole.chunk(index).unwrap())));
    messages.extend([batch(&plane.sets[..1], Some(&plane.seal_of(1))), end()]);
    assert_eq!(fault_of(core.handle(messages)), "protocol");
    assert_eq!(edge.seen.position(), Some(at(1)), "what was good before it is shown");
    core.close().unwrap();
    assert_eq!(edge.open().published(), Some(at(1)));
}

#[test]
fn snapshot_head_with_a_time_far_ahead_holds_no_edge_back_after_damage() {
    let (plane, edge, mut core) = scene();
    let cut = cut(&plane);
    let mut forged = cut.begin(0);
    let mut meta = BytesMut::from(&forged.meta[..]);
    meta[49..57].copy_from_slice(&u64::MAX.to_le_bytes());
    forged.meta = meta.freeze();
    take(&mut core, begin(forged));
    for index in 0..cut.chunks() {
        take(&mut core, chunk(cut.chunk(index).unwrap()));
    }
    take(&mut core, end());
    let now = crate::harness::START_MS;
    take(&mut core, crate::harness::checkpoint(&plane.checkpoint(now + 1)));
    core.close().unwrap();
    edge.remove_files("edge/log");
    edge.remove_files("edge/snapshots");
    edge.table.clear();
    let mut core = edge.open();
    assert_eq!(core.published(), None);
    // A checkpoint of an older position, however late, does not say that all that was shown is back.
    take(&mut core, batch(&plane.sets[..40], Some(&plane.seal_of(40))));
    take(&mut core, crate::harness::checkpoint(&plane.checkpoint_of(40, now + 6000)));
    assert_eq!(core.published(), None);
    take(&mut core, batch(&plane.sets[40..], Some(&plane.seal())));
    assert_eq!(core.published(), Some(at(41)));
}

#[test]
fn snapshot_too_large_is_refused_at_its_beginning_or_at_the_first_chunk_too_many() {
    let (plane, edge, core) = scene();
    drop(core);
    let cut = cut(&plane);
    let mut core = edge.open_bounded(store::Drive::Inline, 1500);
    assert_eq!(fault_of(core.handle(vec![begin(cut.begin(0))])), "index_full");
    take(&mut core, begin(SnapshotBegin { memory_bytes: 10, ..cut.begin(0) }));
    assert_eq!(fault_of(core.handle(vec![chunk(cut.chunk(0).unwrap())])), "index_full", "it announced less than it sends");
    assert_eq!(core.resume(), None);
}

#[test]
fn snapshot_signed_by_nobody_known_is_refused_at_its_beginning_and_a_stale_one_dropped() {
    let (mut plane, edge, mut core) = scene();
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    plane.write(1);
    let cut = cut(&plane);
    let seal = other_key().sign(plane.seal().statement, CONTROL, 1);
    assert_eq!(fault_of(core.handle(vec![begin(SnapshotBegin { seal_encoded: seal.encode(), ..cut.begin(0) })])), "bad_signature");
    take(&mut core, begin(cut.begin(0)));
    core.disconnected();
    assert!(core.resume().is_some());
    take(&mut core, crate::harness::checkpoint(&plane.checkpoint_of(41, crate::harness::START_MS + 1)));
    assert_eq!(core.resume(), None, "the next stream went on without it");
    assert_eq!(edge.seen.position(), Some(at(41)));
}

#[test]
fn snapshot_files_from_the_network_are_kept_two_at_a_time() {
    let (mut plane, edge, mut core) = scene();
    for _ in 0..4 {
        send(&mut core, &cut(&plane));
        plane.write(1);
    }
    assert_eq!(edge.files("edge/snapshots").len(), 2);
    assert_eq!(edge.seen.position(), Some(at(44)));
}

#[test]
fn snapshot_of_an_empty_window_is_shared_by_subscribers_and_follows_the_window() {
    let mut plane = Plane::new();
    plane.write(40);
    let cut = Arc::new(cut(&plane));
    let total: usize = (0..cut.chunks()).map(|index| records_of(&cut.chunk(index).unwrap()).len()).sum();
    assert_eq!(total, plane.propagated().len());
    assert!(cut.chunk(cut.chunks()).is_none());
}

fn records_of(chunk: &SnapshotChunk) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rest = &chunk.records[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let key_len = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        let (key, after) = rest[2..].split_at(key_len);
        let value_len = u32::from_le_bytes(after[..4].try_into().unwrap()) as usize;
        let (value, after) = after[4..].split_at(value_len);
        records.push((key.to_vec(), value.to_vec()));
        rest = after;
    }
    records
}

fn encode(records: &[(Vec<u8>, Vec<u8>)]) -> Bytes {
    let mut bytes = BytesMut::new();
    for (key, value) in records {
        bytes.put_u16_le(key.len() as u16);
        bytes.put_slice(key);
        bytes.put_u32_le(value.len() as u32);
        bytes.put_slice(value);
    }
    bytes.freeze()
}
