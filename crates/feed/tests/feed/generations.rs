//! A control plane that was recovered in a new generation, and what an edge takes and refuses of it.

use feed::{Anchor, Core, Cut};
use seams::sim::SimEntropy;
use state::{Signed, SignedGeneration};
use types::{Generation, NodeId, Position, Revision};
use wire::internal::{GenerationBegun, SnapshotEnd, SubscribeDown, subscribe_down::Message};

use crate::harness::{CLUSTER, Edge, Plane, at, batch, down, fault_of, other_key, put, recovery_key, take};

const NEW: NodeId = NodeId::new(2);

fn begun(signed: &SignedGeneration) -> SubscribeDown {
    down(Message::Generation(GenerationBegun { signed_encoded: signed.encode() }))
}

fn snapshot(plane: &Plane) -> Vec<SubscribeDown> {
    let cut = Cut::new(plane.propagated().clone(), plane.seal().encode(), None, 1 << 20);
    let chunks = (0..cut.chunks()).map(|index| down(Message::SnapshotChunk(cut.chunk(index).unwrap())));
    let end = down(Message::SnapshotEnd(SnapshotEnd {}));
    [down(Message::SnapshotBegin(cut.begin(0)))].into_iter().chain(chunks).chain([end]).collect()
}

/// A plane that has named its recovery key, and an edge that holds all of it, at revision 8.
fn scene() -> (Plane, Edge, Core) {
    let mut plane = Plane::new();
    plane.name_recovery_key(&recovery_key());
    plane.write(6);
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    assert_eq!(edge.seen.position(), Some(at(8)));
    (plane, edge, core)
}

fn second(revision: u64) -> Position {
    Position::new(Generation::new(2), Revision::new(revision))
}

#[test]
fn generation_is_taken_by_its_statement_and_stays_over_a_crash() {
    for seed in 0..20 {
        let (mut plane, edge, mut core) = scene();
        let signed = plane.recover(5, 40, NEW, &recovery_key());
        assert_eq!((signed.statement.begins, signed.statement.restored), (second(41), at(5)));
        take(&mut core, begun(&signed));
        assert_eq!(edge.seen.position(), Some(at(8)), "what is held is served until the new state is proven");
        core.handle(snapshot(&plane)).unwrap();
        assert_eq!(edge.seen.position(), Some(second(42)));
        edge.crash(core, &SimEntropy::new(seed));
        let mut core = edge.open();
        assert_eq!(core.published(), Some(second(42)), "seed {seed}");
        let set = plane.commit(vec![put(3, "later")]);
        take(&mut core, batch(&[set], Some(&plane.seal())));
        assert_eq!(edge.seen.position(), Some(second(43)));
    }
}

#[test]
fn generations_that_were_missed_are_taken_at_once() {
    let (mut plane, edge, mut core) = scene();
    let first = plane.recover(5, 40, NEW, &recovery_key());
    plane.write(3);
    let then = plane.recover(43, 60, NodeId::new(3), &recovery_key());
    let third = Position::new(Generation::new(3), Revision::new(62));
    assert_eq!((then.statement.restored, plane.position()), (second(43), third));
    core.handle([begun(&first), begun(&then)].into_iter().chain(snapshot(&plane)).collect()).unwrap();
    assert_eq!(edge.seen.position(), Some(third));
    // The statement of the one in between is no news any more, and takes nobody back.
    take(&mut core, begun(&first));
    core.close().unwrap();
    assert_eq!(edge.open().published(), Some(third));
}

#[test]
fn generation_of_before_is_never_taken_again() {
    let (mut plane, edge, mut core) = scene();
    let mut old = Plane::new();
    old.name_recovery_key(&recovery_key());
    old.write(20);
    let signed = plane.recover(5, 40, NEW, &recovery_key());
    take(&mut core, begun(&signed));
    core.handle(snapshot(&plane)).unwrap();
    assert_eq!(fault_of(core.handle(vec![batch(&old.sets[8..], Some(&old.seal()))])), "wrong_generation");
    assert_eq!(fault_of(core.handle(snapshot(&old))), "wrong_generation");
    // With all that it held gone, it still knows whom it followed.
    drop(core);
    edge.remove_files("edge/log/");
    edge.remove_files("edge/snapshots");
    edge.table.clear();
    let mut core = edge.open();
    assert_eq!((core.synced(), core.published()), (None, None));
    assert_eq!(fault_of(core.handle(snapshot(&old))), "untrusted_generation");
    core.handle(snapshot(&plane)).unwrap();
    assert_eq!(core.synced().map(|synced| synced.position), Some(second(42)));
}

#[test]
fn generation_is_refused_where_anything_is_less_than_it_must_be() {
    let statement = |plane: &mut Plane, key: &feed::SigningKey| plane.recover(5, 40, NEW, key);
    let (mut plane, edge, mut core) = scene();
    let bad = statement(&mut plane, &other_key());
    assert_eq!(fault_of(core.handle(vec![begun(&bad)])), "untrusted_generation", "of another key");
    assert_eq!(fault_of(core.handle(snapshot(&plane))), "wrong_generation", "without a statement");
    assert_eq!(fault_of(core.handle(vec![batch(&plane.sets[40..], Some(&plane.seal()))])), "wrong_generation", "as change sets");
    let cut_off = GenerationBegun { signed_encoded: bad.encode().slice(..100) };
    assert_eq!(fault_of(core.handle(vec![down(Message::Generation(cut_off))])), "malformed");

    // The statement is good, and the state that follows keeps another.
    let (mut plane, ..) = scene();
    let good = statement(&mut plane, &recovery_key());
    let (mut forged, ..) = scene();
    statement(&mut forged, &other_key());
    take(&mut core, begun(&good));
    assert_eq!(fault_of(core.handle(snapshot(&forged))), "untrusted_generation");

    // A stream that was lost takes what it announced with it.
    take(&mut core, begun(&good));
    core.disconnected();
    assert_eq!(fault_of(core.handle(snapshot(&plane))), "wrong_generation");

    // Below what the edge holds: its log could not go on there.
    let (mut plane, ..) = scene();
    let below = plane.recover(5, 5, NEW, &recovery_key());
    assert_eq!(below.statement.begins, second(6));
    assert_eq!(fault_of(core.handle(vec![begun(&below)])), "untrusted_generation");
    assert_eq!(edge.seen.position(), Some(at(8)), "what is held stays");
    core.handle(vec![begun(&good)]).unwrap();
}

#[test]
fn recovery_key_is_the_first_that_a_verified_state_named() {
    let (mut plane, edge, mut core) = scene();
    plane.name_recovery_key(&other_key());
    take(&mut core, batch(&plane.sets[8..], Some(&plane.seal())));
    core.close().unwrap();
    let mut core = edge.open();
    let usurped = plane.recover(9, 40, NEW, &other_key());
    assert_eq!(fault_of(core.handle(vec![begun(&usurped)])), "untrusted_generation");
    let (mut plane, ..) = scene();
    let good = plane.recover(5, 40, NEW, &recovery_key());
    take(&mut core, begun(&good));
    core.handle(snapshot(&plane)).unwrap();
    assert_eq!(edge.seen.position(), Some(second(42)));
}

#[test]
fn new_edge_believes_a_later_generation_by_the_set_or_the_key_that_it_has_pinned() {
    let (mut plane, ..) = scene();
    let signed = plane.recover(5, 40, NEW, &recovery_key());
    plane.adopt(&[NEW, NodeId::new(3)], &[NEW]);
    let set = plane.propagated().signer_set_of(signed.statement.signer_set).unwrap().unwrap();
    let first = Edge::new(&plane.clock).anchor;
    let cases = [
        ("the first set", first, None),
        ("the first set and the recovery key", Anchor { recovery: Some(recovery_key().public()), ..first }, Some(second(43))),
        ("the first set and another key", Anchor { recovery: Some(other_key().public()), ..first }, None),
        ("the generation's own set", Anchor::of(CLUSTER, &set), Some(second(43))),
    ];
    for (case, anchor, shown) in cases {
        let mut edge = Edge::new(&plane.clock);
        edge.anchor = anchor;
        let mut core = edge.open();
        let taken = core.handle(snapshot(&plane));
        assert_eq!(taken.is_ok(), shown.is_some(), "{case}: {taken:?}");
        assert_eq!(edge.seen.position(), shown, "{case}");
        core.close().unwrap();
        assert_eq!(edge.open().published(), shown, "{case}, after a restart");
    }
}

#[test]
fn seal_of_another_generation_does_not_stand_in_for_this_ones() {
    let (mut plane, _, mut core) = scene();
    let old = plane.seal();
    let signed = plane.recover(5, 40, NEW, &recovery_key());
    take(&mut core, begun(&signed));
    core.handle(snapshot(&plane)).unwrap();
    let set = plane.commit(vec![put(1, "new")]);
    assert_eq!(fault_of(core.handle(vec![batch(&[set], Some(&Signed { ..old }))])), "seal_elsewhere");
}
