//! What must not be taken: forged change sets, logs that this build cannot follow, damaged copies.

use bytes::Bytes;
use state::{
    ChainError, Change, ChangeSet, CommandBody, FEATURE_LEVEL_MAX, Halt, Key, LoadError, Principal, Propagated, RefusalKind, SealingDek,
    State, TypedKey,
    limits::{BINDINGS_PER_CONSUMER_MAX, REQUESTS_MAX},
    record::{BoundTo, HeadRecord, SettingsRecord, StoreRecord, TotalsRecord},
};
use types::{ChainId, ConsumerRef, FeatureLevel, Generation, Hash, KekEpoch, LogIndex, Position, Revision, UnixMillis};

use super::world::{World, account, dek, id, new_dek, new_secret, operator, request, sealed, store, token};

/// A world with an account and a store, and a follower that lacks the last set.
fn chain() -> (World, Propagated) {
    let mut world = World::new();
    world.root(CommandBody::CreateAccount { account: account("acme"), name: "x".parse().unwrap() });
    let follower = world.follower.clone();
    world.root(CommandBody::CreateStore { account: account("acme"), store: store("main"), name: "main".parse().unwrap() });
    (world, follower)
}

fn record() -> Bytes {
    let record = StoreRecord {
        account: account("acme"),
        name: "x".parse().unwrap(),
        created: UnixMillis::new(0),
        modified: UnixMillis::new(0),
        deleting: false,
    };
    record.encode()
}

fn put(key: TypedKey, value: Bytes) -> Change {
    Change { key: key.encode(), value: Some(value) }
}

/// The set that would follow, with these changes.
fn next(follower: &Propagated, changes: Vec<Change>) -> ChangeSet {
    let position = Position::new(follower.generation(), follower.position().revision.next().unwrap());
    ChangeSet::new(ChainId::new(0), position, UnixMillis::new(0), follower.chain_hash(), changes)
}

/// What is forged, how, and what it must be called.
type Case = (&'static str, ChangeSet, fn(&ChainError) -> bool);

#[test]
pub(crate) fn accept_refuses_each_kind_of_forgery_by_name_and_whole() {
    let (world, follower) = chain();
    let good = world.sets.last().unwrap().as_ref().clone();
    let claims = |change: &dyn Fn(&mut ChangeSet)| {
        let mut set = good.clone();
        change(&mut set);
        set
    };
    // A claim with a hash to match, as someone would make it who can hash but not sign.
    let rehashed = |change: &dyn Fn(&mut ChangeSet)| {
        let set = claims(change);
        ChangeSet::from_claims(set.header, set.changes.clone(), set.header.hash())
    };
    let a = put(TypedKey::Store { store: store("a") }, record());
    let b = put(TypedKey::Store { store: store("b") }, record());
    let settings = SettingsRecord {
        feature_level: FEATURE_LEVEL_MAX.next().unwrap(),
        ..SettingsRecord::defaults(types::ClusterId::from_bytes(id("cluster")))
    };
    let cases: Vec<Case> = vec![
        ("a repeat", world.sets[1].as_ref().clone(), |e| matches!(e, ChainError::Repeat { .. })),
        ("the first again", world.sets[0].as_ref().clone(), |e| matches!(e, ChainError::Repeat { .. })),
        ("a gap", rehashed(&|set| set.header.position.revision = Revision::new(4)), |e| matches!(e, ChainError::Gap { .. })),
        ("another chain", rehashed(&|set| set.header.chain = ChainId::new(1)), |e| matches!(e, ChainError::Chain { .. })),
        ("a later generation", rehashed(&|set| set.header.position.generation = Generation::new(2)), |e| {
            matches!(e, ChainError::Generation { .. })
        }),
        ("a fork", rehashed(&|set| set.header.previous = Hash::from_bytes([1; 32])), |e| matches!(e, ChainError::Previous { .. })),
        ("another time", claims(&|set| set.header.time = UnixMillis::new(9)), |e| matches!(e, ChainError::OwnHash { .. })),
        ("another hash", claims(&|set| set.hash = Hash::from_bytes([1; 32])), |e| matches!(e, ChainError::OwnHash { .. })),
        ("a changed value", claims(&|set| set.changes[0].value = Some(record())), |e| matches!(e, ChainError::ChangesRoot { .. })),
        ("a lacking change", claims(&|set| drop(set.changes.pop())), |e| matches!(e, ChainError::ChangesRoot { .. })),
        ("another count", rehashed(&|set| set.header.count += 1), |e| matches!(e, ChainError::ChangesRoot { .. })),
        ("wrong order", next(&follower, vec![b.clone(), a.clone()]), |e| matches!(e, ChainError::Order { .. })),
        ("a key twice", next(&follower, vec![a.clone(), a.clone()]), |e| matches!(e, ChainError::Order { .. })),
        ("control only", next(&follower, vec![a.clone(), put(TypedKey::Totals, record())]), |e| {
            matches!(e, ChainError::ControlOnly { keyspace: 0x8c, .. })
        }),
        (
            "an unknown control-only key",
            next(&follower, vec![Change { key: Key::from_bytes(Bytes::from_static(&[0xff])), value: None }]),
            |e| matches!(e, ChainError::ControlOnly { .. }),
        ),
        ("an unknown key", next(&follower, vec![Change { key: Key::from_bytes(Bytes::from_static(&[0x7f])), value: None }]), |e| {
            matches!(e, ChainError::Key { .. })
        }),
        ("a long record", next(&follower, vec![put(TypedKey::Store { store: store("a") }, vec![1; 96 * 1024].into())]), |e| {
            matches!(e, ChainError::Oversize { .. })
        }),
        ("a newer level", next(&follower, vec![put(TypedKey::Settings, settings.encode())]), |e| matches!(e, ChainError::Level { .. })),
        ("broken settings", next(&follower, vec![put(TypedKey::Settings, Bytes::from_static(&[1]))]), |e| {
            matches!(e, ChainError::Settings { .. })
        }),
    ];
    for (what, set, expected) in cases {
        let mut follower = follower.clone();
        let before = (follower.head(), follower.state_root(), follower.len());
        let error = follower.accept(&set).expect_err(what);
        assert!(expected(&error), "{what}: {error:?}");
        assert_eq!((follower.head(), follower.state_root(), follower.len()), before, "{what}");
        follower.accept(&good).unwrap();
        assert_eq!(follower.state_root(), world.state.state_root());
    }
}

#[test]
fn accept_of_too_many_changes_or_bytes_is_refused() {
    let follower = chain().1;
    let many = |count: u32, bytes: usize| {
        let change = |n: u32| put(TypedKey::SignerSet { version: n }, vec![1; bytes].into());
        next(&follower, (0..count).map(change).collect())
    };
    for set in [many(4097, 1), many(90, 95_000)] {
        let error = follower.clone().accept(&set).unwrap_err();
        assert!(matches!(error, ChainError::Oversize { .. }), "{error}");
    }
    follower.clone().accept(&many(4096, 1)).unwrap();
}

#[test]
fn accept_from_empty_takes_the_first_set_of_any_generation() {
    let world = World::new();
    let mut set = world.sets[0].as_ref().clone();
    set.header.position.generation = Generation::new(7);
    let set = ChangeSet::from_claims(set.header, set.changes.clone(), set.header.hash());
    let mut follower = Propagated::empty();
    follower.accept(&set).unwrap();
    assert_eq!(follower.position().to_string(), "7.1");
    // Not a later one: that would leave out what came before.
    assert!(matches!(Propagated::empty().accept(&chain().0.sets[1]), Err(ChainError::Gap { .. })));
}

#[test]
fn apply_of_a_newer_level_halts_and_changes_nothing() {
    let mut world = World::new();
    let before: Vec<_> = world.state.records().collect();
    let index = LogIndex::new(2);
    let mut newer = world.command(operator("root"), None, CommandBody::Tick);
    let (level, known) = (FEATURE_LEVEL_MAX.next().unwrap(), FEATURE_LEVEL_MAX);
    newer.level = level;
    assert_eq!(world.state.apply(index, &newer).unwrap_err(), Halt::Level { index, level, known });
    // A level that does not follow is refused, which takes no knowledge of it.
    let raise = |to| world.command(operator("root"), None, CommandBody::RaiseFeatureLevel { to });
    assert_eq!(world.state.may_follow(index, &raise(FeatureLevel::new(9)), known), Ok(()));
    // A node that is held below its build stops where an older build would.
    let held = FeatureLevel::new(1);
    let edit = CommandBody::EditQuota { account: account("acme"), stores: None, secrets: Some(1), value_bytes: None };
    let second = FeatureLevel::new(2);
    for (command, level) in [(raise(second), second), (world.command(operator("root"), None, edit), second)] {
        assert_eq!(world.state.may_follow(index, &command, held), Err(Halt::Level { index, level, known: held }));
        assert_eq!(world.state.may_follow(index, &command, known), Ok(()));
    }
    assert!(world.state.records().eq(before));
}

#[test]
pub(crate) fn apply_out_of_order_halts() {
    let mut world = World::new();
    let tick = world.command(Principal::System, None, CommandBody::Tick);
    for index in [0, 1] {
        let index = LogIndex::new(index);
        assert_eq!(world.state.apply(index, &tick).unwrap_err(), Halt::Order { index, applied: LogIndex::new(1) });
    }
    // Indexes have gaps: entries of the log that are no commands.
    world.state.apply(LogIndex::new(9), &tick).unwrap();
    assert_eq!(world.state.applied_index(), LogIndex::new(9));
}

#[test]
fn apply_on_a_damaged_record_halts() {
    let (world, _) = chain();
    let damaged = TypedKey::Usage { account: account("acme") }.encode();
    let records = world.state.records().map(|(key, value)| if key == damaged { (key, Bytes::from_static(&[1, 0])) } else { (key, value) });
    let mut state = State::from_records(records).unwrap();
    let create = CommandBody::CreateStore { account: account("acme"), store: store("b"), name: "b".parse().unwrap() };
    let command = world.command(operator("root"), None, create);
    let halt = state.apply(LogIndex::new(100), &command).unwrap_err();
    assert!(matches!(halt, Halt::Damaged(_)), "{halt:?}");
}

#[test]
fn apply_of_more_than_a_change_set_holds_is_refused_whole() {
    let mut world = chain().0;
    world.root(CommandBody::MintDek { account: account("acme"), dek: new_dek(dek("k"), KekEpoch::new(1), None), grace: true });
    let quota = state::limits::Quota { secrets: 10_000, ..Default::default() };
    world.root(CommandBody::SetQuota { account: account("acme"), quota: Some(quota) });
    let (before, root) = (world.state.position(), world.state.state_root());
    // In the log this would not fit one command either; apply does not rely on that.
    let items: Vec<_> = (0..130).map(|n| new_secret(&format!("S{n}"), "workers", sealed(world.value_id(), dek("k"), 65_536))).collect();
    let create = CommandBody::CreateSecrets { account: account("acme"), store: store("main"), items, new_dek: None };
    let command = world.command(operator("root"), None, create);
    let applied = world.state.apply(LogIndex::new(100), &command).unwrap();
    let refusal = applied.result.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::TooLarge, "{refusal}");
    assert_eq!((world.state.position(), world.state.state_root()), (before, root));
    assert_eq!(world.state.usage(account("acme")).unwrap().secrets, 0);
}

#[test]
fn load_of_records_that_are_no_state_is_refused() {
    let (world, _) = chain();
    let head = TypedKey::Head.encode();
    let without = |left_out: &Key| State::from_records(world.state.records().filter(|(key, _)| key != left_out));
    assert!(matches!(without(&head), Err(LoadError::NoHead { .. })));
    assert!(matches!(without(&TypedKey::Store { store: store("main") }.encode()), Err(LoadError::Root { .. })));
    // A record moved under another key does not have the root either.
    let moved = world.state.records().map(|(key, value)| {
        let from = TypedKey::Store { store: store("main") }.encode();
        if key == from { (TypedKey::Store { store: store("gone") }.encode(), value) } else { (key, value) }
    });
    assert!(matches!(State::from_records(moved), Err(LoadError::Root { .. })));
    let unknown = (Key::from_bytes(Bytes::from_static(&[0x70, 1])), Bytes::new());
    assert!(matches!(State::from_records(world.state.records().chain([unknown])), Err(LoadError::Key(_))));
    let torn = world.state.records().map(|(key, value)| if key == head { (key, value.slice(..5)) } else { (key, value) });
    assert!(matches!(State::from_records(torn), Err(LoadError::Head(_))));
    let unapplied = world.state.records().map(|(key, value)| {
        let read = |value: &Bytes| HeadRecord::decode(value).unwrap();
        if key == head { (key, HeadRecord { applied: LogIndex::new(0), ..read(&value) }.encode()) } else { (key, value) }
    });
    assert!(matches!(State::from_records(unapplied), Err(LoadError::Unapplied { .. })));
    assert_eq!(State::from_records([]).unwrap().applied_index(), LogIndex::new(0));
}

#[test]
fn request_beyond_the_bound_makes_the_oldest_forgotten_first() {
    let mut world = chain().0;
    let name = |n: u64, content: &str| request(&format!("r{n}"), content);
    // Refused each time, and remembered.
    let taken = || CommandBody::CreateAccount { account: account("acme"), name: "x".parse().unwrap() };
    for n in 0..3 {
        world.apply(operator("root"), Some(name(n, "a")), taken());
    }
    // As if there were a full memory behind these three.
    let key = TypedKey::Totals.encode();
    let totals = TotalsRecord { requests: REQUESTS_MAX + 1, ..world.state.totals().unwrap() };
    let records = world.state.records().map(|(k, value)| if k == key { (k, totals.encode()) } else { (k, value) });
    world.state = State::from_records(records).unwrap();
    world.root(CommandBody::RevokeOperatorToken { token: token("none") });
    assert_eq!(world.state.totals().unwrap().requests, REQUESTS_MAX);
    // The first is forgotten, and may be used anew; the second is remembered.
    let again = |world: &mut World, n| world.apply(operator("root"), Some(name(n, "b")), taken()).result.unwrap_err().kind;
    assert_eq!(again(&mut world, 0), RefusalKind::AlreadyExists);
    assert_eq!(again(&mut world, 2), RefusalKind::RequestReused);
}

#[test]
fn request_for_what_is_missing_is_judged_anew_under_the_same_id() {
    let mut world = chain().0;
    let missing = CommandBody::RevokeOperatorToken { token: token("none") };
    let before = world.state.totals().unwrap().requests;
    let refused = world.apply(operator("root"), Some(request("r", "old state")), missing).result.unwrap_err();
    assert_eq!((refused.kind, world.state.totals().unwrap().requests), (RefusalKind::NotFound, before));
    // The same request, with the name looked up anew: its command is another one.
    let body = CommandBody::CreateAccount { account: account("new"), name: "new".parse().unwrap() };
    world.apply(operator("root"), Some(request("r", "newest state")), body).result.unwrap();
}

#[test]
fn value_beyond_the_use_limit_of_its_data_key_is_to_be_resealed() {
    let mut world = World::empty();
    let mut init = super::world::init();
    init.settings.dek_uses_max = 2;
    world.apply(Principal::System, None, CommandBody::InitCluster(Box::new(init))).result.unwrap();
    let (acme, main) = (account("acme"), store("main"));
    world.root(CommandBody::CreateAccount { account: acme, name: "x".parse().unwrap() });
    world.root(CommandBody::CreateStore { account: acme, store: main, name: "main".parse().unwrap() });
    world.root(CommandBody::MintDek { account: acme, dek: new_dek(dek("k"), KekEpoch::new(1), None), grace: true });
    let create = |world: &mut World, names: &[&str]| {
        let items = names.iter().map(|name| new_secret(name, "workers", sealed(world.value_id(), dek("k"), 8))).collect();
        world.root(CommandBody::CreateSecrets { account: acme, store: main, items, new_dek: None }).result.map_err(|refusal| refusal.kind)
    };
    assert_eq!(create(&mut world, &["A", "B", "C"]), Err(RefusalKind::Reseal));
    assert!(create(&mut world, &["A", "B"]).is_ok());
    assert_eq!(create(&mut world, &["C"]), Err(RefusalKind::Reseal));
    // What was refused has used nothing, and sealers are told to mint.
    assert_eq!(world.state.dek_uses(acme, dek("k")).unwrap(), 2);
    let now = world.state.last_time();
    assert_eq!(world.state.sealing_dek(acme, now).unwrap(), SealingDek::Mint { replaces: Some(dek("k")) });
}

#[test]
fn consumer_with_all_it_may_have_is_deleted_in_one_change_set() {
    let mut world = chain().0;
    let (acme, main) = (account("acme"), store("main"));
    let web = ConsumerRef::parse(acme, "worker/web").unwrap();
    world.root(CommandBody::CreateConsumer { consumer: web.clone() });
    let mut index = 100;
    let mut apply = |world: &mut World, body| {
        index += 1;
        let command = world.command(operator("root"), None, body);
        world.state.apply(LogIndex::new(index), &command).unwrap()
    };
    for n in 0..=BINDINGS_PER_CONSUMER_MAX {
        let name = format!("{}{n}", "B".repeat(250)).parse().unwrap();
        let bind = CommandBody::Bind { consumer: web.clone(), name, store: main, target: BoundTo::Store(main), replace: false };
        let result = apply(&mut world, bind).result;
        assert_eq!(result.is_err_and(|refusal| refusal.kind == RefusalKind::QuotaExceeded), n == BINDINGS_PER_CONSUMER_MAX, "{n}");
    }
    let applied = apply(&mut world, CommandBody::DeleteConsumer { consumer: web.clone() });
    assert_eq!(applied.change_set.unwrap().changes.len(), BINDINGS_PER_CONSUMER_MAX as usize + 1);
    assert!(world.state.bound_by(BoundTo::Store(main)).is_empty());
}

#[test]
fn state_crosses_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<State>();
    crosses::<Propagated>();
    crosses::<state::Applied>();
}

#[test]
fn epoch_more_than_a_node_can_hold_is_refused_before_any_node_meets_it() {
    let mut world = World::new();
    let domain = types::KeyDomain::global;
    let mut step = |epoch: u32, step| world.root(CommandBody::KekEpoch { domain: domain(), epoch: KekEpoch::new(epoch), step }).result;
    let announce = |epoch: u32| state::KekStep::Announce { commitment: [epoch as u8; 32], envelopes: Vec::new() };
    let most = state::limits::OPEN_EPOCHS_MAX as u32;
    for epoch in 2..=most {
        step(epoch, announce(epoch)).unwrap();
        step(epoch, state::KekStep::Activate).unwrap();
    }
    let refusal = step(most + 1, announce(most + 1)).unwrap_err();
    assert!(refusal.kind == RefusalKind::Precondition && refusal.message.contains("destroy"), "{refusal}");
    step(1, state::KekStep::Destroy).unwrap();
    step(most + 1, announce(most + 1)).unwrap();
}
