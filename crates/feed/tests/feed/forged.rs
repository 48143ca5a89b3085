//! Everything that a bad stream can bring is refused by a name of its own, never published, and healed by the good stream after it.

use std::sync::Arc;

use bytes::Bytes;
use feed::{Core, FeedError};
use state::{ChangeSet, CheckpointStatement, Propagated, SealStatement, Signed, TypedKey, record::SettingsRecord};
use types::{ChainId, ClusterId, Generation, Hash, NodeId, Position, Revision, UnixMillis};
use wire::internal::{SubscribeDown, subscribe_down::Message};

use crate::harness::{
    CLUSTER, CONTROL, Edge, Plane, START_MS, at, batch, checkpoint, delete, fault_of, next_set, other_key, put, root_of, signing_key, take,
};

/// A plane at revision 5 and an edge that follows up to 3.
fn scene() -> (Plane, Edge, Core) {
    let mut plane = Plane::new();
    plane.write(2);
    let edge = Edge::new(&plane.clock);
    let mut core = edge.open();
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    assert_eq!(edge.seen.position(), Some(at(3)));
    plane.write(2);
    (plane, edge, core)
}

/// The state with `set` accepted, and a good seal of it.
fn sealed(state: &Propagated, set: &ChangeSet) -> Signed<SealStatement> {
    let mut next = state.clone();
    next.accept(set).unwrap();
    signing_key().sign(next.seal_statement(CLUSTER), CONTROL, 1)
}

fn resealed(seal: Signed<SealStatement>, change: impl FnOnce(&mut SealStatement)) -> Signed<SealStatement> {
    let mut statement = seal.statement;
    change(&mut statement);
    signing_key().sign(statement, CONTROL, 1)
}

#[test]
pub(crate) fn stream_that_is_wrong_is_refused_by_name_never_shown_and_healed() {
    let (plane, edge, mut core) = scene();
    let (four, five) = (&plane.sets[3..4], &plane.sets[4..5]);
    let both = &plane.sets[3..5];
    let good = plane.seal();
    let held = plane.history[3].clone();
    let forged_hash = {
        let set = &plane.sets[3];
        Arc::new(ChangeSet::from_claims(set.header, set.changes.clone(), Hash::from_bytes([9; 32])))
    };
    let changed_record = {
        let set = &plane.sets[3];
        Arc::new(ChangeSet::from_claims(set.header, vec![put(1, "another")], set.hash))
    };
    let left_out = Arc::new(ChangeSet::from_claims(plane.sets[3].header, vec![], plane.sets[3].hash));
    let other_branch =
        Arc::new(ChangeSet::new(ChainId::new(0), at(4), UnixMillis::new(START_MS), Hash::from_bytes([8; 32]), vec![put(1, "x")]));
    let control_only =
        Arc::new(next_set(&held, START_MS, vec![state::Change { key: TypedKey::Totals.encode(), value: Some(Bytes::from_static(b"1")) }]));
    let other_chain = Arc::new(ChangeSet::new(ChainId::new(3), at(4), UnixMillis::new(START_MS), held.chain_hash(), vec![put(1, "x")]));
    let generation = Position::new(Generation::new(2), Revision::new(4));
    let other_generation =
        Arc::new(ChangeSet::new(ChainId::new(0), generation, UnixMillis::new(START_MS), held.chain_hash(), vec![put(1, "x")]));
    let no_settings = Arc::new(next_set(&held, START_MS, vec![state::Change { key: TypedKey::Settings.encode(), value: None }]));
    let set_two = {
        let mut settings = SettingsRecord::defaults(CLUSTER);
        settings.signer_set = 2;
        Arc::new(next_set(&held, START_MS, vec![state::Change { key: TypedKey::Settings.encode(), value: Some(settings.encode()) }]))
    };
    let mut bad_bit = good;
    bad_bit.signature[10] ^= 1;
    let by_other_key = other_key().sign(good.statement, CONTROL, 1);
    let by_stranger = other_key().sign(good.statement, NodeId::new(99), 1);
    let other_set = signing_key().sign(good.statement, CONTROL, 2);
    let wrong = Hash::from_bytes([7; 32]);
    let cases: Vec<(&str, SubscribeDown, &str)> = vec![
        ("a gap", batch(five, Some(&good)), "gap"),
        ("a repeat", batch(&plane.sets[2..5], Some(&good)), "repeat"),
        ("out of order", batch(&[plane.sets[4].clone(), plane.sets[3].clone()], Some(&good)), "gap"),
        ("a wrong own hash", batch(&[forged_hash, plane.sets[4].clone()], Some(&good)), "wrong_hash"),
        ("a changed record", batch(&[changed_record, plane.sets[4].clone()], Some(&good)), "wrong_hash"),
        ("a record left out", batch(&[left_out, plane.sets[4].clone()], Some(&good)), "malformed"),
        ("another branch", batch(&[other_branch], Some(&good)), "wrong_previous"),
        ("a control-only record", batch(&[control_only], Some(&good)), "bad_change_set"),
        ("another chain", batch(&[other_chain], Some(&good)), "wrong_chain"),
        ("another generation", batch(&[other_generation], Some(&good)), "wrong_generation"),
        ("no seal bytes", down_with_seal(both, Bytes::from_static(b"no seal")), "malformed"),
        ("a change set cut off", cut_off(both, &good), "malformed"),
        ("a flipped bit in the signature", batch(both, Some(&bad_bit)), "bad_signature"),
        ("another key", batch(both, Some(&by_other_key)), "bad_signature"),
        ("a stranger's signature", batch(both, Some(&by_stranger)), "unknown_signer"),
        ("another signer set", batch(both, Some(&other_set)), "wrong_signer_set"),
        ("the seal of a later position", batch(four, Some(&good)), "seal_elsewhere"),
        ("another cluster's seal", batch(both, Some(&resealed(good, |s| s.cluster = ClusterId::from_bytes([1; 16])))), "wrong_cluster"),
        ("another chain's seal", batch(both, Some(&resealed(good, |s| s.chain = ChainId::new(1)))), "wrong_chain"),
        ("another chain hash", batch(both, Some(&resealed(good, |s| s.chain_hash = wrong))), "sealed_chain_hash"),
        ("another state root", batch(both, Some(&resealed(good, |s| s.state_root = wrong))), "sealed_state_root"),
        ("no change sets", batch(&[], Some(&good)), "protocol"),
        ("a signer set from nowhere", batch(std::slice::from_ref(&set_two), Some(&sealed(&held, &set_two))), "untrusted_signer_set"),
        ("no settings any more", batch(std::slice::from_ref(&no_settings), Some(&sealed(&held, &no_settings))), "untrusted_signer_set"),
        ("a message without content", SubscribeDown { message: None }, "protocol"),
        ("a chunk from nowhere", crate::harness::down(Message::SnapshotChunk(Default::default())), "protocol"),
    ];
    let before = edge.seen.root().map(|root| root_of(&root));
    for (case, message, fault) in cases {
        assert_eq!(fault_of(core.handle(vec![message])), fault, "{case}");
        core.disconnected();
        assert_eq!(edge.seen.root().map(|root| root_of(&root)), before, "{case}: nothing is shown");
        assert_eq!(core.synced().map(|synced| synced.position), Some(at(3)), "{case}: nothing is held");
    }
    // The good stream heals it.
    let handled = take(&mut core, batch(both, Some(&good)));
    assert_eq!(handled.acknowledge.map(|synced| synced.position), Some(at(5)));
    assert_eq!(edge.seen.root().map(|root| root_of(&root)), Some((at(5), plane.propagated().state_root())));
    // And the disk agrees after a restart.
    core.close().unwrap();
    assert_eq!(edge.open().synced().map(|synced| synced.position), Some(at(5)));
}

fn down_with_seal(sets: &[Arc<ChangeSet>], seal: Bytes) -> SubscribeDown {
    let mut message = batch(sets, None);
    if let Some(Message::Batch(batch)) = &mut message.message {
        batch.seal_encoded = seal;
    }
    message
}

fn cut_off(sets: &[Arc<ChangeSet>], seal: &Signed<SealStatement>) -> SubscribeDown {
    let mut message = batch(sets, Some(seal));
    if let Some(Message::Batch(batch)) = &mut message.message {
        batch.change_sets_encoded[0].truncate(40);
    }
    message
}

#[test]
fn unsigned_change_sets_wait_for_their_seal_and_are_dropped_with_the_stream() {
    let (plane, edge, mut core) = scene();
    let handled = take(&mut core, batch(&plane.sets[3..4], None));
    assert!(handled.acknowledge.is_none() && !handled.fresh);
    assert_eq!(edge.seen.position(), Some(at(3)), "nothing is shown without a seal");
    core.disconnected();
    // Had they stayed, this would be a repeat.
    take(&mut core, batch(&plane.sets[3..4], None));
    let handled = take(&mut core, batch(&plane.sets[4..5], Some(&plane.seal())));
    assert_eq!(handled.acknowledge.map(|synced| synced.position), Some(at(5)), "parts of one batch are sealed by its last");
}

#[test]
fn good_batches_before_a_bad_one_are_kept_and_what_follows_it_is_not_looked_at() {
    let (mut plane, edge, mut core) = scene();
    let good = batch(&plane.sets[3..5], Some(&plane.seal()));
    plane.write(1);
    let mut forged = plane.seal();
    forged.signature[0] ^= 1;
    let bad = batch(&plane.sets[5..6], Some(&forged));
    let after = batch(&plane.sets[5..6], Some(&plane.seal()));
    assert_eq!(fault_of(core.handle(vec![good, bad, after])), "bad_signature");
    assert_eq!(edge.seen.position(), Some(at(5)));
}

#[test]
pub(crate) fn checkpoint_forged_is_refused_older_is_passed_over_and_only_a_newer_one_counts() {
    let (mut plane, edge, mut core) = scene();
    take(&mut core, batch(&plane.sets[3..5], Some(&plane.seal())));
    let good = plane.checkpoint(START_MS + 2000);
    let handled = take(&mut core, checkpoint(&good));
    assert!(handled.fresh);
    assert_eq!(edge.seen.checkpoint().map(|seen| (seen.time.get(), seen.restored_wall)), Some((START_MS + 2000, None)));
    let change = |change: fn(&mut CheckpointStatement)| {
        let mut statement = good.statement;
        statement.time = UnixMillis::new(START_MS + 9000);
        change(&mut statement);
        signing_key().sign(statement, CONTROL, 1)
    };
    let mut flipped = change(|_| {});
    flipped.signature[3] ^= 1;
    let mut later = change(|_| {});
    // The time is under the signature: a relay cannot make an old one look new.
    later.statement.time = UnixMillis::new(START_MS + 10_000);
    plane.write(1);
    let cases = [
        ("a flipped bit", flipped, "bad_signature"),
        ("another time", later, "bad_signature"),
        ("a stranger's", other_key().sign(good.statement, NodeId::new(5), 1), "unknown_signer"),
        ("another cluster's", change(|s| s.cluster = ClusterId::from_bytes([0; 16])), "wrong_cluster"),
        ("another chain's", change(|s| s.chain = ChainId::new(9)), "wrong_chain"),
        ("another root", change(|s| s.state_root = Hash::from_bytes([1; 32])), "checkpoint_fork"),
        ("another hash", change(|s| s.chain_hash = Hash::from_bytes([1; 32])), "checkpoint_fork"),
        ("another generation", change(|s| s.position = Position::new(Generation::new(2), Revision::new(5))), "wrong_generation"),
        ("a position not sent", plane.checkpoint(START_MS + 9000), "checkpoint_ahead"),
    ];
    for (case, forged, fault) in cases {
        assert_eq!(fault_of(core.handle(vec![checkpoint(&forged)])), fault, "{case}");
    }
    for (case, old) in [("the same again", good), ("an older one", change(|s| s.time = UnixMillis::new(START_MS + 1000)))] {
        let handled = take(&mut core, checkpoint(&old));
        assert_eq!(handled.passed_over.iter().map(feed::Fault::name).collect::<Vec<_>>(), ["old_checkpoint"], "{case}");
        assert!(!handled.fresh, "{case} is no sign of life");
    }
    assert_eq!(edge.seen.checkpoint().map(|seen| seen.time.get()), Some(START_MS + 2000));
    take(&mut core, checkpoint(&change(|_| {})));
    assert_eq!(edge.seen.checkpoint().map(|seen| seen.time.get()), Some(START_MS + 9000));
}

#[test]
fn seal_for_a_change_set_with_a_fork_in_it_is_refused_though_signed() {
    // A control node that signs another history than the one held: the chain decides, not the signature.
    let (plane, edge, mut core) = scene();
    let branch = Arc::new(next_set(&plane.history[2], START_MS, vec![delete(1), put(2, "other")]));
    let seal = sealed(&plane.history[2], &branch);
    assert_eq!(fault_of(core.handle(vec![batch(&[branch], Some(&seal))])), "repeat");
    assert_eq!(edge.seen.position(), Some(at(3)));
}

#[test]
fn refusal_of_the_server_is_told_apart() {
    let (_, _, mut core) = scene();
    let refused = |kind: wire::internal::RefusedKind| {
        crate::harness::down(Message::Refused(wire::internal::Refused { kind: kind.into(), message: "because".into(), retry_after_ms: 7 }))
    };
    assert_eq!(fault_of(core.handle(vec![refused(wire::internal::RefusedKind::Fork)])), "fork");
    let error = core.handle(vec![refused(wire::internal::RefusedKind::Behind)]).unwrap_err();
    assert!(matches!(error, FeedError::Refused { kind: "REFUSED_KIND_BEHIND", retry_after_ms: 7, .. }), "{error}");
}

/// The change that makes `set` the one in force.
fn set_changes(set: &state::record::SignerSetRecord) -> Vec<state::Change> {
    let mut settings = SettingsRecord::defaults(CLUSTER);
    settings.signer_set = set.version;
    vec![
        state::Change { key: TypedKey::Settings.encode(), value: Some(settings.encode()) },
        state::Change { key: TypedKey::SignerSet { version: set.version }.encode(), value: Some(set.encode()) },
    ]
}

#[test]
fn signer_set_that_its_predecessor_signed_takes_over_also_through_a_snapshot_and_a_restart() {
    let (mut plane, edge, mut core) = scene();
    take(&mut core, batch(&plane.sets[3..5], Some(&plane.seal_by(&signing_key(), 1))));
    let mut second = crate::harness::first_set();
    (second.version, second.keys[0].key) = (2, other_key().public());
    let unsigned = plane.next_set(set_changes(&second));
    let seal = |plane: &Plane, set: &ChangeSet| {
        let mut next = plane.propagated().clone();
        next.accept(set).unwrap();
        other_key().sign(next.seal_statement(CLUSTER), CONTROL, 2)
    };
    assert_eq!(fault_of(core.handle(vec![batch(&[Arc::new(unsigned.clone())], Some(&seal(&plane, &unsigned)))])), "untrusted_signer_set");
    second.signatures = vec![feed::sign_signer_set(&signing_key(), CONTROL, CLUSTER, &second)];
    plane.commit(set_changes(&second));
    let old = plane.seal_by(&signing_key(), 1);
    assert_eq!(fault_of(core.handle(vec![batch(&plane.sets[5..], Some(&old))])), "wrong_signer_set", "the old set seals no more");
    take(&mut core, batch(&plane.sets[5..], Some(&plane.seal_by(&other_key(), 2))));
    assert_eq!(edge.seen.position(), Some(at(6)));
    assert_eq!(fault_of(core.handle(vec![checkpoint(&plane.checkpoint(START_MS + 1))])), "wrong_signer_set");
    core.close().unwrap();
    assert_eq!(edge.open().published(), Some(at(6)), "after a restart the set is reached from the pinned one again");
    // An edge that begins with a snapshot finds both sets in it.
    let fresh = Edge::new(&plane.clock);
    let mut core = fresh.open();
    let cut = feed::Cut::new(plane.propagated().clone(), plane.seal_by(&other_key(), 2).encode(), None, 1 << 20);
    let chunks = (0..cut.chunks()).map(|index| crate::harness::down(Message::SnapshotChunk(cut.chunk(index).unwrap())));
    let begin = crate::harness::down(Message::SnapshotBegin(cut.begin(0)));
    let end = crate::harness::down(Message::SnapshotEnd(wire::internal::SnapshotEnd {}));
    core.handle([begin].into_iter().chain(chunks).chain([end]).collect()).unwrap();
    assert_eq!(fresh.seen.position(), Some(at(6)));
}

#[test]
fn index_full_keeps_the_last_position_and_goes_on_once_something_was_deleted() {
    let mut plane = Plane::new();
    plane.write(2);
    let mut edge = Edge::new(&plane.clock);
    edge.inline_bytes_max = usize::MAX;
    let room = plane.propagated().bytes() + 1000;
    let mut core = edge.open_bounded(store::Drive::Inline, room);
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));
    let held = plane.position();
    plane.commit(vec![put(500, vec![1; 2000])]);
    let refused = core.handle(vec![batch(&plane.sets[plane.sets.len() - 1..], Some(&plane.seal()))]);
    assert_eq!(fault_of(refused), "index_full");
    assert_eq!(edge.seen.position(), Some(held), "the last position that fitted stays in service");
    // The control plane makes room: what waits passes as a whole, since its result fits.
    plane.commit(vec![delete(500)]);
    core.disconnected();
    take(&mut core, batch(&plane.sets[plane.sets.len() - 2..], Some(&plane.seal())));
    assert_eq!(edge.seen.position(), Some(plane.position()));
}

#[test]
fn signer_whose_node_is_revoked_seals_and_checkpoints_no_more_though_it_stands_in_the_set() {
    let (plane, edge, mut core) = scene();
    take(&mut core, batch(&plane.sets[3..5], Some(&plane.seal())));
    let key = TypedKey::Node { node: CONTROL }.encode();
    let mut record = plane.propagated().node(CONTROL).unwrap().unwrap();
    record.revoked = Some(UnixMillis::new(START_MS));
    let revoked = plane.next_set(vec![state::Change { key, value: Some(record.encode()) }]);
    let mut next = plane.propagated().clone();
    next.accept(&revoked).unwrap();
    let own_seal = signing_key().sign(next.seal_statement(CLUSTER), CONTROL, 1);
    assert_eq!(fault_of(core.handle(vec![batch(&[Arc::new(revoked)], Some(&own_seal))])), "revoked_signer");
    let cut = feed::Cut::new(next, own_seal.encode(), None, 1 << 20);
    let fresh = Edge::new(&plane.clock);
    let chunks = (0..cut.chunks()).map(|index| crate::harness::down(Message::SnapshotChunk(cut.chunk(index).unwrap())));
    let begin = crate::harness::down(Message::SnapshotBegin(cut.begin(0)));
    let end = crate::harness::down(Message::SnapshotEnd(wire::internal::SnapshotEnd {}));
    let all = [begin].into_iter().chain(chunks).chain([end]).collect();
    assert_eq!(fault_of(fresh.open().handle(all)), "revoked_signer");
    assert_eq!(edge.seen.position(), Some(at(5)));
}

#[test]
fn change_sets_of_no_bytes_count_against_the_bound() {
    let (_, _, mut core) = scene();
    let empty = wire::internal::Batch { change_sets_encoded: vec![Bytes::new(); (64 << 20) / 64 + 1], seal_encoded: Bytes::new() };
    assert_eq!(fault_of(core.handle(vec![crate::harness::down(Message::Batch(empty))])), "too_large");
}
