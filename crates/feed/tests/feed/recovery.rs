//! What an edge does at start with the control plane away: serve what it can prove, set damage aside, and never go back.

use std::{sync::Arc, time::Duration};

use feed::Core;
use seams::{Clock, sim::SimEntropy};
use state::Change;
use types::UnixMillis;

use crate::harness::{Edge, Plane, at, batch, checkpoint, root_of, take};

/// A plane at revision 21; an edge that holds it all in small batches, has seen a checkpoint, and was closed.
fn scene() -> (Plane, Edge) {
    let mut plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    for _ in 0..20 {
        plane.write(1);
        follow(&plane, &mut core);
    }
    take(&mut core, checkpoint(&plane.checkpoint(plane.clock.wall().get())));
    core.close().unwrap();
    (plane, edge)
}

/// Sends the newest change set alone.
fn follow(plane: &Plane, core: &mut Core) {
    take(core, batch(&plane.sets[plane.sets.len() - 1..], Some(&plane.seal())));
}

fn assert_serves_all(plane: &Plane, edge: &Edge, core: &Core) {
    assert_eq!(core.published(), Some(plane.position()));
    assert_eq!(edge.seen.root().map(|root| root_of(&root)), Some((plane.position(), plane.propagated().state_root())));
}

#[test]
fn restart_alone_serves_at_once_with_the_age_of_the_last_checkpoint() {
    let (plane, edge) = scene();
    let wall = plane.clock.wall();
    plane.clock.advance(Duration::from_secs(3600));
    let core = edge.open();
    assert_serves_all(&plane, &edge, &core);
    let seen = edge.seen.checkpoint().unwrap();
    assert_eq!((seen.time, seen.restored_wall), (wall, Some(wall)));
    // A clock set back is told from one that was not by the mark that goes with it.
    core.close().unwrap();
    plane.clock.set_wall(UnixMillis::new(wall.get() - 1));
    edge.open();
    let seen = edge.seen.checkpoint().unwrap();
    assert!(seen.restored_wall.unwrap() > plane.clock.wall());
}

#[test]
fn restart_after_days_alone_and_a_loss_of_power_is_not_fooled_by_a_clock_that_begins_too_early() {
    let (plane, edge) = scene();
    let (mut core, wall) = (edge.open(), plane.clock.wall());
    assert!(!core.mark_due());
    plane.clock.advance(Duration::from_secs(6 * 86_400));
    assert!(core.mark_due());
    // The wall clock is set back before the mark is written: what has passed since the checkpoint is counted all the same.
    plane.clock.set_wall(wall);
    core.keep_mark().unwrap();
    assert!(!core.mark_due());
    edge.crash(core, &SimEntropy::new(3));
    plane.clock.set_wall(wall.plus(Duration::from_secs(3600)));
    edge.open();
    assert_eq!(edge.seen.checkpoint().unwrap().restored_wall, Some(wall.plus(Duration::from_secs(6 * 86_400))));
}

#[test]
fn restart_after_a_crash_soon_after_the_first_checkpoint_knows_its_age() {
    let plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    let time = plane.clock.wall();
    take(&mut core, checkpoint(&plane.checkpoint(time.get())));
    // Not closed, and sooner than the mark's stride.
    edge.crash(core, &SimEntropy::new(1));
    plane.clock.advance(Duration::from_secs(1));
    let core = edge.open();
    assert_serves_all(&plane, &edge, &core);
    assert_eq!(edge.seen.checkpoint().map(|seen| seen.time), Some(time));
}

#[test]
fn restart_with_the_table_gone_or_damaged_serves_at_once_from_the_log() {
    type Tamper = fn(&mut std::collections::BTreeMap<Vec<u8>, Vec<u8>>);
    let cases: [(&str, Tamper); 7] = [
        ("deleted", |records| records.clear()),
        ("one record missing", |records| drop(records.pop_last())),
        ("a record changed", |records| records.values_mut().last().unwrap()[0] ^= 1),
        ("a record moved to another's key", |records| {
            let (_, value) = records.pop_last().unwrap();
            *records.values_mut().last().unwrap() = value;
        }),
        ("a record added", |records| drop(records.insert(crate::harness::value_key(999).as_bytes().to_vec(), b"x".to_vec()))),
        ("the head missing", |records| drop(records.remove(&[0][..]))),
        ("the head of garbage", |records| drop(records.insert(vec![0], b"garbage".to_vec()))),
    ];
    for (case, tamper) in cases {
        let (plane, edge) = scene();
        edge.table.tamper(tamper);
        let core = edge.open();
        assert_serves_all(&plane, &edge, &core);
        core.close().unwrap();
        // The table is whole again: alone it carries the next start.
        let resets = edge.table.resets();
        let core = edge.open();
        assert_serves_all(&plane, &edge, &core);
        assert_eq!(edge.table.resets(), resets, "{case}: nothing was set aside a second time");
    }
}

#[test]
fn restart_with_the_seal_in_the_table_forged_falls_back() {
    // Whoever can write the disk makes records and a root that fit, and signs with a key of his own.
    let (plane, edge) = scene();
    let mut forged = plane.propagated().clone();
    forged.accept(&plane.next_set(vec![crate::harness::put(1, "forged")])).unwrap();
    let seal = crate::harness::other_key().sign(forged.seal_statement(crate::harness::CLUSTER), crate::harness::CONTROL, 1);
    edge.table.tamper(|records| {
        for (key, content) in forged.records() {
            let inline = [&[0], &content.bytes(key).unwrap()[..]].concat();
            records.insert([&[1], key.as_bytes()].concat(), inline);
        }
        let head = records.get_mut(&[0][..]).unwrap();
        head.truncate(57);
        head[9] += 1;
        head[17..49].copy_from_slice(forged.chain_hash().as_bytes());
        head.extend_from_slice(&seal.encode());
    });
    let core = edge.open();
    assert_serves_all(&plane, &edge, &core);
    assert_eq!(edge.table.resets(), 1);
}

#[test]
pub(crate) fn restart_with_table_and_log_lost_shows_nothing_until_all_that_was_shown_is_certainly_back() {
    for lost in ["edge/log", "edge/log and table", "a flipped bit in the log"] {
        let (mut plane, edge) = scene();
        if lost == "a flipped bit in the log" {
            edge.damage_content("edge/log", b"value of revision 10");
            edge.table.clear();
        } else {
            edge.remove_files("edge/log");
        }
        if lost == "edge/log and table" {
            edge.table.clear();
        }
        let mut core = edge.open();
        assert_eq!(core.published(), None, "{lost}: what readers have seen may be missing");
        // Also the next start knows.
        core.close().unwrap();
        core = edge.open();
        assert_eq!(core.published(), None, "{lost}, second start");
        // The same state again proves nothing new by itself; a checkpoint of a later time does.
        let held = core.synced().map_or(0, |synced| synced.position.revision.get());
        if held < 21 {
            take(&mut core, batch(&plane.sets[held as usize..], Some(&plane.seal())));
        }
        assert_eq!(core.published(), None, "{lost}, synced");
        let now = plane.clock.wall().get();
        take(&mut core, checkpoint(&plane.checkpoint(now + 5000)));
        assert_eq!(core.published(), None, "{lost}: not beyond the stride yet");
        let handled = take(&mut core, checkpoint(&plane.checkpoint(now + 5001)));
        assert_eq!(handled.acknowledge.map(|synced| synced.position), Some(at(21)), "{lost}");
        assert_serves_all(&plane, &edge, &core);
        plane.write(1);
        follow(&plane, &mut core);
        core.close().unwrap();
        let core = edge.open();
        assert_serves_all(&plane, &edge, &core);
    }
}

#[test]
fn restart_with_a_damaged_mark_and_an_intact_log_serves_at_once() {
    let (plane, edge) = scene();
    for block in [0, 4096] {
        edge.disk.damage(std::path::Path::new("edge/mark"), block + 30, 1).unwrap();
    }
    let core = edge.open();
    assert_serves_all(&plane, &edge, &core);
    // With the log lost too nothing is known: only what the control plane vouches for from now on is shown.
    core.close().unwrap();
    for block in [0, 4096] {
        edge.disk.damage(std::path::Path::new("edge/mark"), block + 30, 1).unwrap();
    }
    edge.remove_files("edge/log");
    let mut core = edge.open();
    assert_eq!(core.published(), None);
    let handled = take(&mut core, checkpoint(&plane.checkpoint(plane.clock.wall().get() + 1)));
    assert!(handled.acknowledge.is_some());
}

#[test]
fn log_is_cut_only_below_the_older_of_two_verified_snapshots_and_either_carries_a_start() {
    let (mut plane, mut edge) = scene();
    edge.snapshot_every_bytes = 1;
    let mut core = edge.open();
    for _ in 0..3 {
        plane.write(4);
        take(&mut core, batch(&plane.sets[plane.sets.len() - 4..], Some(&plane.seal())));
        assert!(core.snapshot_due());
        core.begin_snapshot().unwrap().run().unwrap();
        core.snapshot_written().unwrap();
        assert!(!core.snapshot_due());
    }
    plane.write(1);
    follow(&plane, &mut core);
    core.close().unwrap();
    let snapshots = edge.files("edge/snapshots");
    assert_eq!(snapshots.len(), 2);
    // Without the table: the newest snapshot and the log.
    edge.table.clear();
    let core = edge.open();
    assert_serves_all(&plane, &edge, &core);
    core.close().unwrap();
    // Without table and newest snapshot: the older one and the log.
    edge.table.clear();
    edge.disk.damage(&snapshots[1], 200, 1).unwrap();
    let core = edge.open();
    assert_serves_all(&plane, &edge, &core);
    core.close().unwrap();
    // Without any of them the log's beginning is missing: nothing is shown.
    edge.table.clear();
    edge.remove_files("edge/snapshots");
    let core = edge.open();
    assert_eq!((core.published(), core.synced()), (None, None));
}

#[test]
fn disk_that_fails_shows_nothing_more_and_a_new_start_goes_on() {
    let (mut plane, edge) = scene();
    let mut core = edge.open();
    plane.commit(vec![Change { key: crate::harness::value_key(1), value: None }]);
    edge.disk.set_faults(seams::sim::DiskFaults { sync_fails: true, ..Default::default() });
    let error = core.handle(vec![batch(&plane.sets[21..], Some(&plane.seal()))]).unwrap_err();
    assert!(!error.retryable(), "{error}");
    assert_eq!(edge.seen.position(), Some(at(21)), "what is not durable is not shown");
    edge.disk.set_faults(Default::default());
    drop(core);
    let mut core = edge.open();
    let held = core.synced().unwrap().position.revision.get();
    if held == 21 {
        follow(&plane, &mut core);
    }
    assert_serves_all(&plane, &edge, &core);
    assert!(Arc::strong_count(&edge.seen) > 1);
}

#[test]
fn core_on_threads_of_its_own_does_the_same() {
    let mut plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open_with(store::Drive::Thread);
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    for _ in 0..30 {
        plane.write(1);
        follow(&plane, &mut core);
    }
    core.begin_snapshot().unwrap().run().unwrap();
    core.snapshot_written().unwrap();
    core.close().unwrap();
    let core = edge.open_with(store::Drive::Thread);
    assert_serves_all(&plane, &edge, &core);
}

#[test]
fn lost_log_is_not_made_up_for_by_a_node_that_lags() {
    let mut plane = Plane::new();
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    for _ in 0..30 {
        plane.tick();
        plane.write(1);
        follow(&plane, &mut core);
    }
    assert_eq!(edge.seen.position(), Some(at(31)));
    drop(core);
    edge.remove_files("edge/log");
    edge.table.clear();
    // A node that stands anywhere before what was shown vouches, truly, for old ticks: none of them may be shown.
    let mut core = edge.open();
    for (to, (revision, time)) in (1..31).zip(plane.ticks.clone()) {
        assert_eq!(revision, to);
        take(&mut core, batch(&plane.sets[to as usize - 1..to as usize], Some(&plane.seal_of(to))));
        take(&mut core, checkpoint(&plane.checkpoint_of(revision, time)));
        assert_eq!(core.published(), None, "at {to}");
    }
    take(&mut core, batch(&plane.sets[30..], Some(&plane.seal())));
    for _ in 0..6 {
        plane.tick();
        take(&mut core, checkpoint(&plane.checkpoint(plane.clock.wall().get())));
    }
    assert_serves_all(&plane, &edge, &core);
}
