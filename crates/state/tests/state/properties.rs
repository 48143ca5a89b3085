//! Properties over random logs: whatever the commands, equal logs give equal states, and followers hold what leaders do.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use state::{
    ChangeSet, Command, CommandBody, FEATURE_LEVEL_MAX, JobId, KekStep, Key, LimitsEdit, PointerMove, Principal, Propagated, ReminderEdit,
    SealStatement, Stage, State, TypedKey, bucket_hash, bucket_of,
    record::{BoundTo, DeletedRecord},
    root_of_buckets,
};
use types::{ClusterId, Comment, ConsumerRef, FeatureLevel, KekEpoch, KeyDomain, LogIndex, NodeId, UnixMillis, Version};

use super::world::{World, account, dek, envelope, hash, id, new_dek, new_secret, operator, request, scopes, sealed, secret, store, token};

/// One random step: which kind of command, and numbers to choose its arguments by.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: u8,
    a: u8,
    b: u8,
    c: u8,
    wait: u32,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Mostly soon after one another, now and then past the grace of a data key or the memory of a request.
    let wait = prop_oneof![6 => 0..2_000_u32, 2 => 290_000..310_000_u32, 1 => 80_000_000..90_000_000_u32];
    let step = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), wait).prop_map(|(kind, a, b, c, wait)| Step { kind, a, b, c, wait });
    vec(step, 1..80)
}

/// The command of a step. The universe is small, so that commands meet each other.
fn body(world: &mut World, step: Step) -> CommandBody {
    let Step { kind, a, b, c, .. } = step;
    let owner = account(["acme", "rival"][usize::from(a % 8 == 0)]);
    let shelf = store(["main", "side", "other"][usize::from(b % 3)]);
    let names = ["A", "B", "C", "D", "E"];
    let (one, two) = (names[usize::from(c % 5)], names[usize::from(a % 5)]);
    let consumer = ConsumerRef::parse(owner, ["worker/web", "access/site", "container/job"][usize::from(b % 3)]).unwrap();
    let key = world.current_dek(owner).unwrap_or(dek("first"));
    let key = if c % 16 == 0 { dek(&format!("k{}", a % 4)) } else { key };
    let value = sealed(world.value_id(), key, usize::from(a) * 8);
    match kind % 32 {
        0 => CommandBody::CreateAccount { account: owner, name: "x".parse().unwrap() },
        1 | 2 => {
            CommandBody::CreateStore { account: owner, store: shelf, name: ["main", "side", "other"][usize::from(b % 3)].parse().unwrap() }
        }
        3 => CommandBody::DeleteStore { account: owner, store: shelf, force: c % 2 == 0 },
        4..=7 => {
            let brings = world.current_dek(owner).is_none() || c % 8 == 0;
            let brought = new_dek(dek(&format!("n{}", world.log.len())), KekEpoch::new(1), world.current_dek(owner));
            let value = if brings { sealed(world.value_id(), brought.id, 16) } else { value };
            CommandBody::CreateSecrets {
                account: owner,
                store: shelf,
                items: vec![new_secret(one, ["workers", "workers,access", "containers"][usize::from(a % 3)], value)],
                new_dek: brings.then_some(brought),
            }
        }
        8..=10 => CommandBody::SetValue {
            account: owner,
            store: shelf,
            secret: secret(one),
            value,
            expect: (a % 4 == 0).then_some(Version::new(u64::from(b % 4))),
            stage: if a % 3 == 0 { Stage::Candidate } else { Stage::Current },
            scopes: (a % 5 == 0).then(|| scopes("workers")),
            comment: None,
            new_dek: None,
        },
        11 => CommandBody::EditSecret {
            account: owner,
            store: shelf,
            secret: secret(one),
            scopes: Some(scopes(["workers", "access", ""][usize::from(a % 3)])),
            comment: Some(Comment::new("comment").unwrap()),
        },
        12 => CommandBody::DeleteSecrets { account: owner, store: shelf, secrets: vec![secret(one), secret(two)], force: a % 2 == 0 },
        13 => CommandBody::DuplicateSecret {
            account: owner,
            store: shelf,
            source: secret(one),
            source_version: Version::new(u64::from(a % 4)),
            item: new_secret(two, "workers", value),
            new_dek: None,
        },
        14 | 15 => {
            let to = match a % 4 {
                0 => PointerMove::Rollback { to: Version::new(u64::from(c % 4)) },
                1 => PointerMove::Promote,
                2 => PointerMove::Revert,
                _ => PointerMove::DropCandidate,
            };
            CommandBody::MovePointer { account: owner, store: shelf, secret: secret(one), to, expect: None }
        }
        16 => CommandBody::CreateConsumer { consumer },
        17 => CommandBody::DeleteConsumer { consumer },
        18 => CommandBody::CreateConsumerToken { consumer, token: token(one), hash: hash(one), expires: None },
        19 => CommandBody::RevokeConsumerToken { consumer, token: token(one) },
        20 | 21 => CommandBody::Bind {
            consumer,
            name: two.parse().unwrap(),
            store: shelf,
            target: if c % 4 == 0 { BoundTo::Store(shelf) } else { BoundTo::Secret(secret(one)) },
            replace: a % 2 == 0,
        },
        22 => CommandBody::Unbind { consumer, name: two.parse().unwrap() },
        23 => {
            let epoch = KekEpoch::new(1 + u32::from(c % 2));
            CommandBody::MintDek {
                account: owner,
                dek: new_dek(dek(&format!("k{}", a % 4)), epoch, world.current_dek(owner)),
                grace: b % 2 == 0,
            }
        }
        24 => {
            let step = match a % 3 {
                0 => KekStep::Announce { commitment: [b; 32], envelopes: vec![envelope(1)] },
                1 => KekStep::Activate,
                _ => KekStep::Destroy,
            };
            CommandBody::KekEpoch { domain: KeyDomain::global(), epoch: KekEpoch::new(1 + u32::from(b % 3)), step }
        }
        25 | 26 => CommandBody::Undelete { account: owner, store: shelf, secret: secret(one) },
        27 => CommandBody::Destroy {
            account: owner,
            store: shelf,
            secret: secret(one),
            version: (a % 2 == 0).then_some(Version::new(u64::from(b % 4))),
        },
        28 => CommandBody::EditWithReminder {
            account: owner,
            store: shelf,
            secret: secret(one),
            scopes: None,
            comment: None,
            reminder: ReminderEdit {
                expires: (a % 2 == 0).then_some((b % 4 > 0).then_some(UnixMillis::new(u64::from(c) * 1_000_000))),
                rotate_every_ms: (b % 2 == 0).then_some((a % 4 > 0).then_some(60_000 * (1 + u64::from(c)))),
            },
        },
        29 => {
            let edit = LimitsEdit {
                undelete_window_ms: Some(u64::from(a) * 400_000),
                undelete_secrets: Some(u32::from(b % 4)),
                undelete_bytes: Some(u64::from(c) * 16),
                ..LimitsEdit::default()
            };
            CommandBody::EditLimits { account: (a % 3 > 0).then_some(owner), edit }
        }
        _ => match world.state.next_job() {
            Some(job) if a % 2 == 0 => CommandBody::Step { job },
            _ => CommandBody::Tick,
        },
    }
}

/// Runs the steps in a new world.
fn run(steps: &[Step]) -> World {
    let mut world = World::new();
    for (account_name, key) in [("acme", "k1"), ("rival", "r1")] {
        let owner = account(account_name);
        world.root(CommandBody::CreateAccount { account: owner, name: "x".parse().unwrap() });
        world.root(CommandBody::MintDek { account: owner, dek: new_dek(dek(key), KekEpoch::new(1), None), grace: true });
    }
    // Half of the logs rise to the newest level first.
    for level in (2..=FEATURE_LEVEL_MAX.get()).map(FeatureLevel::new).filter(|_| steps.len().is_multiple_of(2)) {
        let (node, feature_level) = (NodeId::new(1), level);
        world.apply(Principal::Node { node }, None, CommandBody::UpdateNode { node, address: None, feature_level });
        world.root(CommandBody::RaiseFeatureLevel { to: level }).result.unwrap();
    }
    for step in steps {
        world.clock += u64::from(step.wait);
        // Leaders change, and the next one's clock may be behind.
        let ahead = world.clock;
        world.clock -= u64::from(step.c).min(world.clock);
        let body = body(&mut world, *step);
        let housekeeping = matches!(body, CommandBody::Tick | CommandBody::Step { .. });
        let principal = if housekeeping { Principal::Node { node: NodeId::new(1) } } else { operator("root") };
        let request = (step.b % 4 == 0).then(|| request(&format!("r{}", step.a % 8), &format!("c{}", step.b % 3)));
        world.apply(principal, request, body);
        world.clock = ahead;
    }
    world
}

fn replay(log: &[Command]) -> (State, Vec<state::Applied>) {
    let mut state = State::empty();
    let applied = log.iter().zip(1..).map(|(command, index)| state.apply(LogIndex::new(index), command).unwrap()).collect();
    (state, applied)
}

fn same(one: &State, other: &State) {
    assert!(one.records().eq(other.records()), "records differ");
    assert_eq!(one.head(), other.head());
    assert_eq!(one.state_root(), other.state_root());
    assert_eq!((one.applied_index(), one.last_time()), (other.applied_index(), other.last_time()));
}

/// What the state says of itself agrees: pointers, names, counts and reverse indexes.
fn is_sound(state: &State) {
    let (mut secrets, mut bindings, mut bound_by, mut stores) = (BTreeMap::new(), 0, 0, BTreeMap::new());
    let mut uses: BTreeMap<(KeyDomain, KekEpoch), u64> = BTreeMap::new();
    let mut values = 0;
    let (mut deleted, mut copies, mut indexed, mut reminders) = (BTreeMap::<_, (u32, u64)>::new(), 0, 0, 0);
    for (key, bytes) in state.records() {
        match key.decode().unwrap() {
            TypedKey::Secret { store, secret } => {
                let record = state.secret_even_deleting(store, secret).unwrap().unwrap();
                assert!(record.versions.is_sorted_by(|one, next| one.version < next.version));
                assert!(record.versions.iter().all(|entry| entry.version <= record.newest));
                for pointer in [Some(record.current), record.previous, record.candidate].into_iter().flatten() {
                    assert!(record.version(pointer).is_some(), "a pointer names a version that is gone");
                }
                for entry in &record.versions {
                    let value = state.value(secret, entry.value_id).unwrap().expect("a version has no value");
                    assert!(state.dek(record.account, value.dek).unwrap().is_some(), "a value has no data key");
                }
                values += record.versions.len();
                if !record.deleting {
                    assert_eq!(state.secret_id(store, &record.name).unwrap(), Some(secret));
                    *secrets.entry(record.account).or_insert(0) += 1;
                }
            }
            TypedKey::Store { store } => {
                let record = state.store_even_deleting(store).unwrap().unwrap();
                if !record.deleting {
                    assert_eq!(state.store_id(record.account, &record.name).unwrap(), Some(store));
                    *stores.entry(record.account).or_insert(0) += 1;
                }
            }
            TypedKey::Value { .. } => values -= 1,
            TypedKey::Deleted { store, .. } => {
                let record = DeletedRecord::decode(&bytes).unwrap();
                assert!(state.store_even_deleting(store).unwrap().is_some(), "a deleted secret without its store");
                assert!(record.secret.version(record.secret.current).is_some() && !record.secret.deleting);
                let held = deleted.entry(record.secret.account).or_default();
                *held = (held.0 + 1, held.1 + record.bytes);
                copies += record.secret.versions.len();
                indexed += 2;
            }
            TypedKey::DeletedValue { .. } => copies -= 1,
            TypedKey::DeletedUntil { .. } | TypedKey::DeletedOf { .. } => indexed -= 1,
            TypedKey::Reminder { store, secret } => {
                let record = state.reminder(store, secret).unwrap().unwrap();
                let of = state.secret_even_deleting(store, secret).unwrap().expect("a reminder of a secret that is gone");
                let since = of.current_entry().unwrap().created;
                let due = record.reminder.rotate_every_ms.map(|every| since.plus(std::time::Duration::from_millis(every)));
                assert_eq!(record.rotate_due, due);
                reminders += usize::from(record.reminder.expires.is_some()) + usize::from(due.is_some());
            }
            TypedKey::Due { .. } => reminders -= 1,
            TypedKey::Binding { consumer, name } => {
                let target = state.binding(&consumer, &name).unwrap().unwrap().target;
                assert!(state.bound_by(target.bound_to()).contains(&(consumer, name)));
                bindings += 1;
            }
            TypedKey::BoundBy { .. } => bound_by += 1,
            TypedKey::Dek { account, dek } => {
                for wrap in state.dek(account, dek).unwrap().unwrap().wraps {
                    *uses.entry((wrap.domain, wrap.epoch)).or_default() += 1;
                }
            }
            TypedKey::EpochUses { domain, epoch } => {
                let count = u64::from_str_radix(&bytes.iter().skip(1).map(|b| format!("{b:02x}")).collect::<String>(), 16).unwrap();
                assert!(count < 128, "counts of this test fit one byte");
                let seen = uses.remove(&(domain, epoch));
                assert_eq!(seen, Some(count));
            }
            _ => {}
        }
    }
    assert!(uses.is_empty(), "data keys that no epoch counts");
    assert_eq!(bindings, bound_by);
    assert_eq!(values, 0, "values that no version names");
    assert_eq!((copies, indexed, reminders), (0, 0, 0), "copies, and what finds them and reminders by time, belong together");
    for owner in ["acme", "rival"].map(account) {
        let usage = state.usage(owner).unwrap();
        assert_eq!(usage.secrets, secrets.get(&owner).copied().unwrap_or(0));
        let (held, own) = (state.holdings(owner).unwrap(), deleted.get(&owner).copied().unwrap_or_default());
        assert_eq!((held.deleted_secrets, held.deleted_bytes), own);
        assert_eq!(usage.stores, stores.get(&owner).copied().unwrap_or(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn log_equal_gives_equal_state_hashes_and_replies(steps in steps()) {
        let world = run(&steps);
        let (state, applied) = replay(&world.log);
        same(&state, &world.state);
        is_sound(&state);
        // Each set is the one that the first run made, byte for byte, and revisions are dense.
        let sets: Vec<_> = applied.iter().filter_map(|applied| applied.change_set.clone()).collect();
        prop_assert_eq!(sets.len(), world.sets.len());
        for ((one, other), revision) in sets.iter().zip(&world.sets).zip(1..) {
            prop_assert_eq!(one.encoded(), other.encoded());
            prop_assert_eq!(one.position().revision.get(), revision);
        }
        // Audit entries make one chain that ends at the head.
        let mut previous = types::Hash::ZERO;
        for entry in applied.iter().filter_map(|applied| applied.audit.as_ref()) {
            prop_assert_eq!(entry.previous, previous);
            previous = state::AuditEntry::hash_of(&entry.encode());
        }
        prop_assert_eq!(state.audit_head().unwrap().hash, previous);
    }

    #[test]
    fn state_of_its_records_is_itself(steps in steps()) {
        let world = run(&steps);
        same(&State::from_records(world.state.records()).unwrap(), &world.state);
        // Neither the order of records nor their history shows.
        let mut records: Vec<_> = world.state.records().collect();
        records.reverse();
        same(&State::from_records(records).unwrap(), &world.state);
        let of_records = Propagated::from_records(world.follower.head(), world.follower.records().map(|(k, v)| (k.clone(), v.clone())));
        prop_assert_eq!(of_records.state_root(), world.follower.state_root());
    }

    #[test]
    fn writes_applied_to_a_table_give_the_state(steps in steps()) {
        let world = run(&steps);
        let mut table = BTreeMap::new();
        for applied in replay(&world.log).1 {
            assert!(applied.writes.is_sorted_by(|one, next| one.key < next.key));
            for write in applied.writes {
                match write.value {
                    Some(value) => { table.insert(write.key, value); }
                    None => { table.remove(&write.key); }
                }
            }
        }
        assert!(world.state.records().eq(table));
    }

    #[test]
    fn state_goes_on_from_its_records_as_if_it_had_never_stopped(steps in steps(), cut in any::<prop::sample::Index>()) {
        let world = run(&steps);
        let cut = cut.index(world.log.len());
        let (before, _) = replay(&world.log[..cut]);
        let mut state = State::from_records(before.records()).unwrap();
        for (command, index) in world.log.iter().zip(1..).skip(cut) {
            state.apply(LogIndex::new(index), command).unwrap();
        }
        same(&state, &world.state);
    }

    #[test]
    fn buckets_prove_every_record(steps in steps()) {
        let world = run(&steps);
        let state = world.state.propagated();
        let hashes = state.bucket_hashes();
        prop_assert_eq!(root_of_buckets(&hashes), Some(state.state_root()));
        let mut seen = 0;
        for bucket in 0..state::BUCKETS {
            let records: Vec<_> = state.bucket_records(bucket..bucket + 1).collect();
            prop_assert!(records.iter().all(|(key, _)| bucket_of(key) == bucket));
            let inline = records.iter().filter_map(|(key, content)| content.inline().map(|bytes| (*key, bytes)));
            prop_assert_eq!(bucket_hash(inline), hashes[usize::from(bucket)]);
            seen += records.len();
        }
        prop_assert_eq!(seen, state.len());
    }

    #[test]
    fn set_with_a_changed_byte_is_refused_and_leaves_no_trace(steps in steps(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let world = run(&steps);
        let last = world.sets.last().unwrap();
        let mut follower = Propagated::empty();
        for set in &world.sets[..world.sets.len() - 1] {
            follower.accept(set).unwrap();
        }
        let before = follower.clone();
        let mut bytes = last.encoded().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(forged) = ChangeSet::decode(bytes.into()) {
            prop_assert!(follower.accept(&forged).is_err(), "byte {} of {:?}", at, last);
        }
        prop_assert_eq!(follower.head(), before.head());
        prop_assert_eq!(follower.state_root(), before.state_root());
        prop_assert!(follower.records().eq(before.records()));
        follower.accept(last).unwrap();
        let cluster = ClusterId::from_bytes(id("cluster"));
        let seal: SealStatement = follower.seal_statement(cluster);
        prop_assert_eq!(seal, world.state.seal_statement(cluster));
    }
}

/// A clone keeps what it saw, whatever happens to the original.
#[test]
fn clone_does_not_see_later_changes() {
    let mut world = World::new();
    world.root(CommandBody::CreateAccount { account: account("acme"), name: "x".parse().unwrap() });
    let before = world.state.clone();
    let records: Vec<(Key, _)> = before.records().collect();
    world.root(CommandBody::CreateStore { account: account("acme"), store: store("main"), name: "main".parse().unwrap() });
    assert!(before.records().eq(records));
    assert_ne!(before.state_root(), world.state.state_root());
    assert_eq!(before.next_job(), None::<JobId>);
}
