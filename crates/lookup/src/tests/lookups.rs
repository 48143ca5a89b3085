use std::time::Duration;

use state::{TypedKey, record::SettingsRecord};
use types::{Scope, SecretId, Version};
use wire::ErrorKind;

use super::world::*;
use crate::{Age, FreshnessTarget, LookupError, Serving, Stage, Stages, WantedTarget, Which};

#[test]
fn lookup_finds_the_current_value_with_version_position_and_age() {
    let mut world = World::new();
    assert_eq!(world.get(), Ok(("first".to_owned(), 1)));
    world.set(world.first(), "second");
    let position = world.publish();
    world.advance(Duration::from_millis(700));
    let found = world.lookup.get(&certified("worker/web"), &wanted("API_KEY"), unbounded()).unwrap();
    assert_eq!((found.value.expose(), found.version.get()), (&b"second"[..], 2));
    assert_eq!((found.position, found.age), (position, Age::Known(Duration::from_millis(700))));
    assert_eq!(world.lookup.served().take()[0].count, 2);
}

#[test]
fn lookup_by_version_finds_previous_and_exact_ones_and_no_candidate() {
    let mut world = World::new();
    let id = world.first();
    let get = |world: &World, which| {
        opened(world.lookup.get(&certified("worker/web"), &WantedTarget { which, ..wanted("API_KEY") }, unbounded()))
    };
    let none = |which| Err(LookupError::NoSuchVersion { binding: binding("API_KEY"), wanted: which });
    assert_eq!(get(&world, Which::Previous), none(Which::Previous));
    world.set(id, "second");
    world.set(id, "third");
    world.edit(id, |record| {
        // As `SetValue` with the stage candidate leaves it.
        record.candidate = Some(Version::new(3));
        (record.current, record.previous) = (Version::new(2), Some(Version::new(1)));
    });
    world.publish();
    assert_eq!(get(&world, Which::Current), Ok(("second".to_owned(), 2)));
    assert_eq!(get(&world, Which::Previous), Ok(("first".to_owned(), 1)));
    assert_eq!(get(&world, Which::Exact(Version::new(1))), Ok(("first".to_owned(), 1)));
    for unseen in [3, 4, u64::MAX] {
        let which = Which::Exact(Version::new(unseen));
        assert_eq!(get(&world, which), none(which), "version {unseen}");
    }
    assert_eq!(none(Which::Current).unwrap_err().kind(), ErrorKind::Absent);
}

#[test]
pub(super) fn lookup_before_the_first_root_says_not_synced_and_never_absent() {
    let world = World::new();
    let empty = Serving::new(world.clock.clone(), world.serving.keys().clone());
    let lookup = crate::Lookup::new(empty.into(), crate::Served::new(1).into(), &"edge-1".parse().unwrap());
    for name in ["API_KEY", "NOTHING"] {
        assert_eq!(opened(lookup.get(&certified("worker/web"), &wanted(name), unbounded())), Err(LookupError::NotSynced));
    }
    assert_eq!(
        lookup.get_many(&certified("worker/web"), &[wanted("API_KEY")], unbounded())[0].as_ref().err(),
        Some(&LookupError::NotSynced)
    );
    assert_eq!(LookupError::NotSynced.kind(), ErrorKind::NotSynced);
}

/// Each row breaks one thing of the good state, and names the error that follows.
#[test]
fn lookup_refusals_are_distinct() {
    type Break = fn(&mut World);
    let (consumer, binding) = (consumer("worker/web"), binding("API_KEY"));
    let deleted = LookupError::Deleted { consumer: consumer.clone(), binding: binding.clone() };
    let cases: [(&str, Break, LookupError, ErrorKind); 8] = [
        (
            "binding removed",
            |world| world.unbind("worker/web", "API_KEY"),
            LookupError::NotBound { consumer: consumer.clone(), binding: binding.clone(), position: at(2) },
            ErrorKind::NotBound,
        ),
        (
            "scope removed",
            |world| world.edit(world.first(), |record| record.scopes = ["dex".parse::<Scope>().unwrap()].into_iter().collect()),
            LookupError::ScopeNotAllowed { consumer: consumer.clone(), binding: binding.clone(), scope: "workers".parse().unwrap() },
            ErrorKind::ScopeNotAllowed,
        ),
        (
            "consumer deleted, its binding forgotten",
            |world| world.remove(TypedKey::Consumer { consumer: super::world::consumer("worker/web") }),
            LookupError::Revoked { what: "worker/web does not exist".to_owned(), position: at(2) },
            ErrorKind::Revoked,
        ),
        (
            "secret marked as deleting",
            |world| world.edit(world.first(), |record| record.deleting = true),
            deleted.clone(),
            ErrorKind::Absent,
        ),
        ("store marked as deleting", mark_store, deleted.clone(), ErrorKind::Absent),
        (
            "secret deleted",
            |world| world.remove(TypedKey::Secret { store: STORE, secret: world.first() }),
            deleted.clone(),
            ErrorKind::Absent,
        ),
        (
            "secret deleted and made again under its name",
            |world| {
                world.remove(TypedKey::Secret { store: STORE, secret: world.first() });
                world.secret("SECRET", "workers", "again");
            },
            deleted.clone(),
            ErrorKind::Absent,
        ),
        (
            "key epoch missing",
            |world| {
                world.serving.keys().remove_kek(&domain(), epoch());
            },
            LookupError::KeyMissing { domain: domain(), epoch: epoch() },
            ErrorKind::Unavailable,
        ),
    ];
    for (what, change, error, kind) in cases {
        let mut world = World::new();
        assert!(world.get().is_ok());
        change(&mut world);
        world.publish();
        assert_eq!(world.get(), Err(error.clone()), "{what}");
        assert_eq!(error.kind(), kind, "{what}");
        assert_eq!(error.public().kind, kind, "{what}");
    }
}

fn mark_store(world: &mut World) {
    let key = TypedKey::Store { store: STORE };
    let mut record = state::record::StoreRecord::decode(&world.records[&key.clone().encode()]).unwrap();
    record.deleting = true;
    world.put(key, record.encode());
}

#[test]
fn lookup_of_a_value_that_was_moved_or_lost_in_this_copy_is_damage_not_absence() {
    let mut world = World::new();
    let (a, b) = (world.first(), world.secret("OTHER", "workers", "other"));
    let value_of = |world: &World, id| {
        let record = state::record::SecretRecord::decode(&world.records[&TypedKey::Secret { store: STORE, secret: id }.encode()]).unwrap();
        TypedKey::Value { secret: id, value: record.current_entry().unwrap().value_id }
    };
    let (of_a, of_b) = (value_of(&world, a), value_of(&world, b));
    let moved = world.records[&of_b.encode()].clone();
    world.put(of_a.clone(), moved);
    world.publish();
    assert_eq!(world.get(), Err(LookupError::Damaged), "another secret's sealed value does not open here");
    world.remove(of_a);
    world.publish();
    assert_eq!(world.get(), Err(LookupError::Damaged));
    world.put(TypedKey::Secret { store: STORE, secret: a }, bytes::Bytes::from_static(b"\x01\xff"));
    world.publish();
    assert_eq!(world.get(), Err(LookupError::Damaged));
    assert_eq!(LookupError::Damaged.kind(), ErrorKind::Internal);
}

#[test]
fn lookup_through_a_store_finds_by_name_and_does_not_tell_what_it_may_not() {
    let mut world = World::new();
    world.bind("worker/web", "STORE", world.to_store());
    world.secret("HIDDEN", "dex", "not for workers");
    world.publish();
    let get = |world: &World, name: &str| {
        let wanted = WantedTarget { secret: Some(name.parse().unwrap()), ..wanted("STORE") };
        opened(world.lookup.get(&certified("worker/web"), &wanted, unbounded()))
    };
    assert_eq!(get(&world, "SECRET"), Ok(("first".to_owned(), 1)));
    let (hidden, unknown) = (get(&world, "HIDDEN").unwrap_err(), get(&world, "UNKNOWN").unwrap_err());
    assert_eq!(hidden.to_string().replace("HIDDEN", "UNKNOWN"), unknown.to_string(), "what may not be read is as if it did not exist");
    assert_eq!((hidden.kind(), unknown.kind()), (ErrorKind::Absent, ErrorKind::Absent));
    world.remove(TypedKey::Store { store: STORE });
    world.publish();
    assert!(matches!(get(&world, "SECRET"), Err(LookupError::Deleted { .. })));
}

#[test]
fn lookup_of_the_wrong_sort_of_binding_says_what_to_send() {
    let mut world = World::new();
    world.bind("worker/web", "STORE", world.to_store());
    world.publish();
    let caller = certified("worker/web");
    let named = WantedTarget { secret: Some("SECRET".parse().unwrap()), ..wanted("API_KEY") };
    let cases = [
        (named, "field `wanted.secret`: API_KEY is bound to one secret: leave this empty"),
        (wanted("STORE"), "field `wanted.secret`: is missing: STORE is bound to a store, so say which of its secrets"),
    ];
    for (wanted, text) in cases {
        let error = opened(world.lookup.get(&caller, &wanted, unbounded())).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (text, ErrorKind::InvalidArgument));
    }
}

#[test]
fn lookup_in_another_account_finds_nothing_through_a_forged_binding() {
    let mut world = World::new();
    let id = world.first();
    let stranger = types::ConsumerRef { account: OTHER_ACCOUNT, ..consumer("worker/web") };
    world.put(TypedKey::Consumer { consumer: stranger.clone() }, state::record::ConsumerRecord { created: START }.encode());
    let key = TypedKey::Binding { consumer: stranger.clone(), name: binding("API_KEY") };
    world.put(key, state::record::BindingRecord { target: world.to_secret(id), created: START }.encode());
    world.publish();
    let connection = crate::Connection { identity: Some(stranger), not_after: None, uid: None };
    let caller = crate::Authenticator::default().caller(&connection, None, None).unwrap();
    assert!(matches!(opened(world.lookup.get(&caller, &wanted("API_KEY"), unbounded())), Err(LookupError::Deleted { .. })));
}

#[test]
pub(super) fn lookup_freshness_is_refused_by_position_by_max_age_and_by_the_cluster() {
    let mut world = World::new();
    let get = |world: &World, freshness| opened(world.lookup.get(&certified("worker/web"), &wanted("API_KEY"), freshness));
    let max_age = |ms| FreshnessTarget { max_age: Some(Duration::from_millis(ms)), ..unbounded() };
    let min_position = |revision| FreshnessTarget { min_position: Some(at(revision)), ..unbounded() };

    assert!(get(&world, min_position(1)).is_ok());
    assert_eq!(get(&world, min_position(2)), Err(LookupError::BehindPosition { position: at(1), wanted: at(2) }));
    world.advance(Duration::from_millis(500));
    assert!(get(&world, max_age(500)).is_ok());
    let stale = |age, allowed, bound| Err(LookupError::TooStale { age: Age::Known(Duration::from_millis(age)), allowed, bound });
    assert_eq!(get(&world, max_age(499)), stale(500, 499, "max_age"));

    let bound = Duration::from_secs(3600);
    world.put(
        TypedKey::Settings,
        SettingsRecord { edge_offline_max_ms: Some(bound.as_millis() as u64), ..SettingsRecord::defaults(CLUSTER) }.encode(),
    );
    world.publish();
    world.advance(bound - Duration::from_millis(500));
    assert!(get(&world, unbounded()).is_ok() && world.serving.fresh_enough());
    world.advance(Duration::from_millis(1));
    assert_eq!(get(&world, unbounded()), stale(3_600_001, 3_600_000, "edge_offline_max"));
    assert!(!world.serving.fresh_enough());
    world.checkpoint();
    assert!(get(&world, unbounded()).is_ok(), "the next checkpoint mends it");

    world.put(TypedKey::Settings, SettingsRecord { edge_offline_max_ms: None, ..SettingsRecord::defaults(CLUSTER) }.encode());
    world.publish();
    world.advance(Duration::from_secs(365 * 86_400));
    assert!(get(&world, unbounded()).is_ok(), "never means never");
}

#[test]
fn lookup_of_unknown_age_is_within_no_bound_but_served_where_there_is_none() {
    let mut world = World::new();
    world.put(TypedKey::Settings, SettingsRecord { edge_offline_max_ms: None, ..SettingsRecord::defaults(CLUSTER) }.encode());
    let root = world.root();
    let restarted = std::sync::Arc::new(Serving::new(world.clock.clone(), world.serving.keys().clone()));
    restarted.publish(root);
    let lookup = crate::Lookup::new(restarted.clone(), crate::Served::new(1).into(), &"edge-1".parse().unwrap());
    let get = |freshness| lookup.get(&certified("worker/web"), &wanted("API_KEY"), freshness);
    let found = get(unbounded()).unwrap();
    assert_eq!((found.age, found.age.millis()), (Age::Unknown, None));
    let demanding = FreshnessTarget { max_age: Some(Duration::MAX), ..unbounded() };
    assert!(matches!(opened(get(demanding)), Err(LookupError::TooStale { age: Age::Unknown, bound: "max_age", .. })));
    restarted.checkpoint(crate::Checkpoint::restored(START, START, &*world.clock));
    assert!(get(demanding).is_ok());
}

#[test]
fn serving_never_goes_back_in_position_or_checkpoint() {
    let mut world = World::new();
    let old = world.root();
    world.publish();
    world.serving.publish(old);
    assert_eq!(world.serving.position(), Some(at(3)));
    world.advance(Duration::from_secs(10));
    world.checkpoint();
    world.serving.checkpoint(crate::Checkpoint::received(START, &*world.clock));
    assert_eq!(world.serving.age(), Age::Known(Duration::ZERO));
}

#[test]
pub(super) fn revoked_node_serves_nothing_more() {
    let world = World::new();
    world.serving.revoke();
    assert_eq!(world.get(), Err(LookupError::NodeRevoked));
}

#[test]
fn get_many_answers_each_in_order_from_one_root() {
    let mut world = World::new();
    let second = world.secret("SECOND", "workers", "2");
    world.bind("worker/web", "TWO", world.to_secret(second));
    world.publish();
    let many = [wanted("TWO"), wanted("NOTHING"), wanted("API_KEY")];
    let outcomes = world.lookup.get_many(&certified("worker/web"), &many, unbounded());
    let outcomes: Vec<_> = outcomes.into_iter().map(opened).collect();
    assert_eq!(outcomes[0], Ok(("2".to_owned(), 1)));
    assert!(matches!(outcomes[1], Err(LookupError::NotBound { .. })));
    assert_eq!(outcomes[2], Ok(("first".to_owned(), 1)));
}

#[test]
fn staged_lookup_finds_the_same_and_sums_its_stages() {
    let world = World::new();
    let mut stages = Stages::default();
    let found = world.lookup.get_staged(&certified("worker/web"), &wanted("API_KEY"), unbounded(), &mut stages).unwrap();
    assert_eq!(found.version.get(), 1);
    assert_eq!(stages.total(), Stage::ALL.iter().map(|stage| stages.of(*stage)).sum());
}

#[test]
fn errors_name_no_secret_that_the_caller_did_not_name_and_no_value() {
    let mut world = World::new();
    let id: SecretId = world.first();
    world.edit(id, |record| record.scopes = ["dex".parse::<Scope>().unwrap()].into_iter().collect());
    world.publish();
    for (caller, name) in [("worker/web", "API_KEY"), ("worker/web", "NOTHING"), ("worker/other", "API_KEY")] {
        let error = opened(world.lookup.get(&certified(caller), &wanted(name), unbounded())).unwrap_err();
        for text in [error.to_string(), format!("{error:?}"), error.public().message] {
            assert!(!text.contains("SECRET") && !text.contains("first") && !text.contains(&id.to_string()), "{text}");
        }
    }
}
