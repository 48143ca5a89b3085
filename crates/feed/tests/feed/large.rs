//! Large values: not in memory, there for every root that names them, and back after every damage.

use std::sync::Arc;

use feed::{Core, Cut, FeedError};
use seams::{Disk, Entropy, OpenMode, sim::SimEntropy};
use state::{Content, Propagated};
use wire::internal::{SnapshotEnd, subscribe_down::Message};

use crate::harness::{CLUSTER, CONTROL, Edge, Plane, at, batch, checkpoint, delete, down, put, signing_key, take, value_key};

const LARGE: usize = 64 << 10;

/// The bytes of value `number` in its `turn`: like no other's.
fn bytes_of(number: u64, turn: u64, len: usize) -> Vec<u8> {
    let entropy = SimEntropy::new(number << 32 | turn);
    let mut bytes = vec![0; len];
    entropy.fill(&mut bytes);
    bytes
}

/// A plane with large values 0 to `count`, each in a change set of its own; an edge that has them all, with the usual bound.
fn scene(count: u64) -> (Plane, Edge, Core) {
    scene_in(count, false)
}

/// With large values in files, or in the table as in a test's.
fn scene_in(count: u64, files: bool) -> (Plane, Edge, Core) {
    let mut plane = Plane::new();
    for number in 0..count {
        plane.commit(vec![put(number, bytes_of(number, 0, LARGE))]);
    }
    let mut edge = Edge::new(&plane.clock);
    edge.inline_bytes_max = state::LARGE_VALUE_BYTES;
    edge.segment_bytes = 1 << 20;
    edge.files = files;
    let mut core = edge.open();
    follow(&plane, &mut core);
    (plane, edge, core)
}

/// Sends all that the core has not, set by set, and a checkpoint.
fn follow(plane: &Plane, core: &mut Core) {
    let held = core.synced().map_or(0, |synced| synced.position.revision.get());
    for revision in held..plane.position().revision.get() {
        take(core, batch(&plane.sets[revision as usize..=revision as usize], Some(&plane.seal_of(revision + 1))));
    }
    tick(plane, core);
}

fn tick(plane: &Plane, core: &mut Core) {
    plane.clock.advance(std::time::Duration::from_secs(1));
    take(core, checkpoint(&plane.checkpoint(seams::Clock::wall(&*plane.clock).get())));
}

/// What readers see is what the control plane has, byte for byte.
fn assert_serves(plane: &Plane, edge: &Edge) {
    let root = edge.seen.root().unwrap();
    assert_eq!(root.state.state_root(), plane.propagated().state_root());
    assert!(root.state.records().eq(plane.propagated().records()));
}

fn send_snapshot(plane: &Plane, core: &mut Core) {
    let cut = Cut::new(plane.propagated().clone(), plane.seal().encode(), None, 256 << 10);
    take(core, down(Message::SnapshotBegin(cut.begin(0))));
    for index in 0..cut.chunks() {
        take(core, down(Message::SnapshotChunk(cut.chunk(index).unwrap())));
    }
    take(core, down(Message::SnapshotEnd(SnapshotEnd {})));
}

fn large_in(state: &Propagated) -> usize {
    state.records().filter(|(_, content)| matches!(content, Content::Large(_))).count()
}

#[test]
fn large_values_take_no_memory_in_the_copy_and_are_served_from_the_table() {
    let (plane, edge, _core) = scene(40);
    let root = edge.seen.root().unwrap();
    assert_eq!((large_in(&root.state), edge.table.large()), (40, 40));
    assert!(root.state.bytes() < 16 << 10, "{} bytes for 40 values of 64 KiB", root.state.bytes());
    assert!(plane.propagated().bytes() > 40 * LARGE as u64);
    assert_serves(&plane, &edge);
}

#[test]
fn large_values_fit_where_their_sum_does_not() {
    let mut plane = Plane::new();
    for number in 0..64 {
        plane.commit(vec![put(number, bytes_of(number, 0, 32 << 10))]);
    }
    for by_snapshot in [false, true] {
        let mut edge = Edge::new(&plane.clock);
        edge.inline_bytes_max = state::LARGE_VALUE_BYTES;
        let mut core = edge.open_bounded(store::Drive::Inline, 64 << 10);
        if by_snapshot {
            send_snapshot(&plane, &mut core)
        } else {
            follow(&plane, &mut core)
        }
        assert_serves(&plane, &edge);
        // Small ones count with all their bytes.
        let more = plane.next_set((100..150).map(|number| put(number, bytes_of(number, 0, 2000))).collect());
        let mut next = plane.propagated().clone();
        next.accept(&more).unwrap();
        let seal = signing_key().sign(next.seal_statement(CLUSTER), CONTROL, 1);
        let refused = core.handle(vec![batch(&[Arc::new(more)], Some(&seal))]);
        assert_eq!(crate::harness::fault_of(refused), "index_full");
        assert_eq!(core.published(), Some(plane.position()));
    }
}

#[test]
fn large_values_are_found_again_after_a_restart_with_and_without_the_table() {
    for (case, tables, snapshots) in
        [("from the table", true, false), ("from log", false, false), ("from snapshot file and log", false, true)]
    {
        let (mut plane, edge, mut core) = scene(10);
        if snapshots {
            core.snapshot_job().unwrap().run().unwrap();
            plane.commit(vec![put(3, bytes_of(3, 1, LARGE)), delete(4)]);
            follow(&plane, &mut core);
        }
        core.close().unwrap();
        if !tables {
            edge.table.clear();
        }
        let core = edge.open();
        assert_eq!(core.published(), Some(plane.position()), "{case}");
        assert_serves(&plane, &edge);
        assert_eq!(edge.table.large(), large_in(&edge.seen.root().unwrap().state), "{case}");
        core.close().unwrap();
        // What was filled anew carries the next start alone.
        let resets = edge.table.resets();
        edge.remove_files("edge/snapshots");
        let _core = edge.open();
        assert_serves(&plane, &edge);
        assert_eq!(edge.table.resets(), resets, "{case}");
    }
}

#[test]
fn large_values_come_with_a_snapshot_and_its_file_holds_them() {
    let (plane, _, core) = scene(20);
    drop(core);
    let mut edge = Edge::new(&plane.clock);
    edge.inline_bytes_max = state::LARGE_VALUE_BYTES;
    let mut core = edge.open();
    send_snapshot(&plane, &mut core);
    assert_serves(&plane, &edge);
    assert_eq!(edge.table.large(), 20);
    core.close().unwrap();
    edge.table.clear();
    let core = edge.open();
    assert_serves(&plane, &edge);
    assert!(matches!(core.base(), feed::Base::Snapshot(_)));
}

#[test]
fn large_value_deleted_leaves_the_table_when_the_last_reader_lets_go() {
    let (mut plane, edge, mut core) = scene(3);
    edge.seen.forget();
    let reader = edge.seen.root().unwrap();
    plane.commit(vec![delete(1)]);
    follow(&plane, &mut core);
    edge.seen.forget();
    tick(&plane, &mut core);
    assert_eq!(edge.table.large(), 3, "a reader may still ask for it");
    let key = value_key(1);
    assert_eq!(reader.state.get(&key).unwrap().bytes(&key).unwrap(), bytes_of(1, 0, LARGE));
    drop(reader);
    tick(&plane, &mut core);
    assert_eq!(edge.table.large(), 2);
    core.close().unwrap();
    let _core = edge.open();
    assert_serves(&plane, &edge);
}

#[test]
fn large_value_of_a_snapshot_file_in_the_making_stays_until_it_is_written() {
    let (mut plane, mut edge, mut core) = scene(3);
    let before = plane.propagated().clone();
    let job = core.snapshot_job().unwrap();
    plane.commit((0..3).map(delete).collect());
    follow(&plane, &mut core);
    edge.seen.forget();
    tick(&plane, &mut core);
    assert_eq!(edge.table.large(), 3);
    assert_eq!(job.run().unwrap(), before.position());
    tick(&plane, &mut core);
    assert_eq!(edge.table.large(), 0);
    // The file has what was deleted since.
    core.close().unwrap();
    edge.table.clear();
    edge.remove_files("edge/log");
    edge.remove_files("edge/mark");
    edge.seen = Arc::default();
    let _core = edge.open();
    let root = edge.seen.root().unwrap();
    assert_eq!(root.state.position(), before.position());
    assert!(root.state.records().eq(before.records()));
}

#[test]
fn large_value_without_a_name_that_a_crash_left_is_removed_by_the_next_start() {
    let (plane, edge, core) = scene(3);
    core.close().unwrap();
    edge.table.tamper(|records| drop(records.insert([&[2][..], &[9; 32]].concat(), b"nobody's".to_vec())));
    let mut core = edge.open();
    assert_serves(&plane, &edge);
    tick(&plane, &mut core);
    assert_eq!((edge.table.large(), edge.table.resets()), (3, 0));
}

#[test]
fn large_value_damaged_at_rest_is_never_served_and_heals() {
    type Tamper = fn(&mut Vec<u8>);
    let cases: [(&str, Tamper); 3] = [
        ("a flipped bit", |value| value[1000] ^= 1),
        ("cut off", |value| value.truncate(100)),
        ("of another", |value| *value = vec![7; LARGE]),
    ];
    for (case, tamper) in cases {
        let (plane, edge, mut core) = scene(3);
        edge.table.tamper(|records| tamper(records.iter_mut().find(|(key, _)| key[0] == 2).unwrap().1));
        let root = edge.seen.root().unwrap();
        let unread = root.state.records().filter(|(key, content)| content.bytes(key).is_err()).count();
        assert_eq!(unread, 1, "{case}");
        // The follower ends at the next message, or when it looks at its mark, and is opened again.
        assert!(core.mark_due());
        assert!(matches!(core.keep_mark(), Err(error @ FeedError::Table { .. }) if !error.retryable()));
        assert!(matches!(core.handle(vec![]), Err(FeedError::Table { .. })));
        drop(core);
        let core = edge.open();
        assert_eq!((core.published(), edge.table.resets()), (Some(plane.position()), 1), "{case}");
        assert_serves(&plane, &edge);
    }
}

#[test]
fn large_value_in_a_file_that_is_missing_or_cut_short_comes_back_with_the_next_start() {
    type Spoil = fn(&Edge);
    let cases: [(&str, Spoil); 3] = [
        ("missing", |edge| edge.disk.remove_file(&edge.files("edge/values")[1]).unwrap()),
        ("cut short", |edge| edge.disk.open(&edge.files("edge/values")[1], OpenMode::Write).unwrap().set_len(9).unwrap()),
        ("all missing", |edge| edge.remove_files("edge/values")),
    ];
    for (case, spoil) in cases {
        let (plane, edge, mut core) = scene_in(3, true);
        assert_eq!((edge.large(), edge.table.large()), (3, 0), "{case}");
        spoil(&edge);
        let root = edge.seen.root().unwrap();
        assert!(root.state.records().any(|(key, content)| content.bytes(key).is_err()), "{case}");
        assert!(matches!(core.handle(vec![]), Err(FeedError::Table { .. })), "{case}");
        drop(core);
        let core = edge.open();
        assert_eq!((core.published(), edge.table.resets(), edge.large()), (Some(plane.position()), 1, 3), "{case}");
        assert_serves(&plane, &edge);
    }
}

#[test]
fn large_value_damaged_at_rest_is_found_by_a_start_too() {
    let (plane, edge, core) = scene(3);
    core.close().unwrap();
    edge.table.tamper(|records| records.iter_mut().find(|(key, _)| key[0] == 2).unwrap().1[5] ^= 1);
    let _core = edge.open();
    assert_serves(&plane, &edge);
    assert_eq!(edge.table.resets(), 1);
}

#[test]
fn large_values_lost_with_table_log_and_snapshot_files_come_again_from_the_control_plane() {
    let (mut plane, edge, core) = scene(3);
    core.close().unwrap();
    edge.table.clear();
    edge.remove_files("edge/log");
    let mut core = edge.open();
    assert_eq!(core.published(), None, "what readers saw may be missing");
    plane.commit(vec![put(7, bytes_of(7, 0, LARGE))]);
    send_snapshot(&plane, &mut core);
    plane.clock.advance(std::time::Duration::from_secs(60));
    tick(&plane, &mut core);
    assert_serves(&plane, &edge);
    assert_eq!(edge.table.large(), 4);
}

#[test]
fn large_values_of_a_table_that_fails_are_served_again_after_a_new_start() {
    let (mut plane, edge, mut core) = scene(3);
    edge.table.fail();
    plane.commit(vec![put(5, bytes_of(5, 0, LARGE))]);
    let sent = |plane: &Plane| vec![batch(&plane.sets[plane.sets.len() - 1..], Some(&plane.seal()))];
    // The failure shows with the batch or the one after; what was shown stays good.
    let first = core.handle(sent(&plane)).map(drop);
    plane.commit(vec![put(6, bytes_of(6, 0, LARGE))]);
    let failed = first.and_then(|()| core.handle(sent(&plane)).map(drop));
    assert!(matches!(failed, Err(FeedError::Table { .. })), "{failed:?}");
    drop(core);
    let mut core = edge.open();
    follow(&plane, &mut core);
    assert_serves(&plane, &edge);
    assert_eq!(edge.table.large(), 5);
}

#[test]
fn large_values_of_a_snapshot_that_was_given_up_leave_the_table() {
    let (plane, edge, core) = scene(0);
    drop((plane, core));
    let mut plane = Plane::new();
    for number in 0..100 {
        plane.commit(vec![put(number, bytes_of(number, 0, LARGE))]);
    }
    let mut core = edge.open();
    let cut = Cut::new(plane.propagated().clone(), plane.seal().encode(), None, 256 << 10);
    plane.commit(vec![delete(0)]);
    take(&mut core, down(Message::SnapshotBegin(cut.begin(0))));
    for index in 0..cut.chunks() - 1 {
        take(&mut core, down(Message::SnapshotChunk(cut.chunk(index).unwrap())));
    }
    assert!(edge.table.large() > 50, "they are handed over as they come");
    // The same again, another way: nothing is lost for what is named again, and nothing stays for what is not.
    follow(&plane, &mut core);
    edge.seen.forget();
    tick(&plane, &mut core);
    assert_serves(&plane, &edge);
    assert_eq!(edge.table.large(), 99);
}

/// One seed: writes, deletes, snapshots, crashes of all kinds, and damage to the table now and then. In every other one the table is
/// left behind at any batch, among them those between the values and the records that name them. In half of them values lie in files, which
/// lose in a crash what the disk does.
fn run(seed: u64) {
    let entropy = SimEntropy::new(seed);
    let pick = |below: u64| entropy.number() % below;
    let (mut plane, mut edge, core) = scene_in(2, seed / 2 % 2 == 1);
    edge.snapshot_every_bytes = 400 << 10;
    if seed % 2 == 1 {
        edge.table.lag();
    }
    let mut core = Some(core);
    for turn in 1..60 {
        match pick(10) {
            0..=3 => drop(plane.commit(vec![put(pick(8), bytes_of(pick(8), turn, 1000 + pick(LARGE as u64 - 1000) as usize))])),
            4 => drop(plane.commit(vec![delete(pick(8)), put(20 + pick(3), "small")])),
            5 => {
                let open = core.as_mut().unwrap();
                if open.snapshot_due()
                    && let Some(job) = open.begin_snapshot()
                {
                    job.run().unwrap();
                    open.snapshot_written().unwrap();
                }
            }
            6 if core.as_ref().unwrap().synced().map(|synced| synced.position) < Some(plane.position()) => {
                send_snapshot(&plane, core.as_mut().unwrap());
            }
            7 => {
                edge.crash(core.take().unwrap(), &entropy);
                match pick(5) {
                    0 => edge.table.clear(),
                    1 => edge.table.tamper(|records| drop(records.pop_last())),
                    2 => edge.table.tamper(|records| records.values_mut().for_each(|value| value[0] ^= 1)),
                    3 => edge.files("edge/values").iter().step_by(2).for_each(|path| drop(edge.disk.damage(path, pick(300), 1))),
                    _ => {}
                }
                core = Some(edge.open());
                assert!(core.as_ref().unwrap().published() >= edge.seen.position(), "seed {seed}: an undamaged log shows all at once");
            }
            _ => follow(&plane, core.as_mut().unwrap()),
        }
        edge.seen.forget();
    }
    let mut core = core.unwrap();
    follow(&plane, &mut core);
    edge.seen.forget();
    tick(&plane, &mut core);
    assert_serves(&plane, &edge);
    assert_eq!(edge.large(), large_hashes(&edge).len(), "seed {seed}: nothing is left without a name");
}

fn large_hashes(edge: &Edge) -> std::collections::BTreeSet<types::Hash> {
    let root = edge.seen.root().unwrap();
    let large = root.state.records().filter_map(|(_, content)| if let Content::Large(large) = content { Some(large.leaf()) } else { None });
    large.collect()
}

#[test]
fn large_values_survive_crashes_and_damage_to_the_table_by_seed() {
    (0..40).for_each(run);
}

#[test]
fn large_values_behind_a_thread_are_served_at_every_moment() {
    // Real threads: the writer lingers, so that what was just shown is read from memory, then from the table.
    let mut plane = Plane::new();
    let mut edge = Edge::new(&plane.clock);
    edge.inline_bytes_max = state::LARGE_VALUE_BYTES;
    let mut core = edge.open_with(store::Drive::Thread);
    follow(&plane, &mut core);
    for turn in 0..50 {
        plane.commit(vec![put(turn % 5, bytes_of(turn % 5, turn, LARGE))]);
        follow(&plane, &mut core);
        assert_serves(&plane, &edge);
        edge.seen.forget();
    }
    core.close().unwrap();
    let core = edge.open();
    assert_eq!(core.published(), Some(at(51)));
    assert_serves(&plane, &edge);
}

#[test]
fn large_values_in_a_table_that_the_log_has_left_behind_are_taken_from_the_snapshot_file() {
    let (mut plane, edge, mut core) = scene(3);
    let old = edge.table.records();
    for turn in 1..4 {
        plane.commit(vec![put(1, bytes_of(1, turn, LARGE))]);
        follow(&plane, &mut core);
        core.begin_snapshot().unwrap().run().unwrap();
        core.snapshot_written().unwrap();
    }
    core.close().unwrap();
    // The table of before: whole and true, and of no use. Two of its values are in the snapshot file too.
    edge.table.tamper(|records| *records = old);
    let core = edge.open();
    assert_eq!((core.published(), edge.table.resets()), (Some(plane.position()), 1));
    assert_serves(&plane, &edge);
    core.close().unwrap();
    let _core = edge.open();
    assert_serves(&plane, &edge);
    assert_eq!(edge.table.large(), 3);
}
