use std::time::Duration;

use seams::Clock;
use state::TypedKey;
use types::AccountName;
use wire::{ErrorKind, parse::IdOrName};

use super::world::*;
use crate::{Authenticator, Caller, Connection, ConsumerTarget, FreshnessTarget, LookupError, PeerPattern, PeerRule, PeerRules};

fn get(world: &World, caller: &Caller) -> Result<(String, u64), LookupError> {
    opened(world.lookup.get(caller, &wanted("API_KEY"), unbounded()))
}

#[test]
fn token_reads_until_it_is_removed() {
    let mut world = World::new();
    let token = world.token("worker/web", None);
    world.publish();
    let caller = bearer(&token);
    assert_eq!(get(&world, &caller), Ok(("first".to_owned(), 1)));
    world.remove(TypedKey::ConsumerToken { hash: token.hash() });
    let position = world.publish();
    assert_eq!(get(&world, &caller), Err(LookupError::Revoked { what: "this token is unknown".to_owned(), position }));
}

#[test]
pub(super) fn token_ends_by_the_later_of_wall_clock_and_checkpoint() {
    let mut world = World::new();
    let token = world.token("worker/web", Some(START.plus(Duration::from_secs(60))));
    world.publish();
    let caller = bearer(&token);
    world.advance(Duration::from_secs(59));
    assert!(get(&world, &caller).is_ok());
    world.advance(Duration::from_secs(1));
    assert!(matches!(get(&world, &caller), Err(LookupError::Revoked { what, .. }) if what == "this token has expired"));
    world.checkpoint();
    world.clock.set_wall(START);
    assert!(get(&world, &caller).is_err(), "a clock set back revives nothing that a checkpoint has seen end");
    assert_eq!(world.clock.wall(), START);
}

#[test]
fn token_newer_than_the_copy_is_not_synced_when_the_request_demands_its_position() {
    let mut world = World::new();
    let token = world.token("worker/web", None);
    let caller = bearer(&token);
    let freshness = FreshnessTarget { min_position: Some(at(2)), ..unbounded() };
    let before = opened(world.lookup.get(&caller, &wanted("API_KEY"), freshness));
    assert_eq!(before, Err(LookupError::NotSynced), "revoked is claimed only from a copy that could know");
    assert!(matches!(get(&world, &caller), Err(LookupError::Revoked { .. })));
    world.publish();
    assert!(opened(world.lookup.get(&caller, &wanted("API_KEY"), freshness)).is_ok());
}

#[test]
fn token_of_a_bad_form_is_refused_without_repeating_it() {
    for text in ["", "cbc_", "cbc_aaaa", "cbo_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "hunter2"] {
        let error = Authenticator::default().caller(&Connection::default(), Some(text), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{text}");
        assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("aaaa"), "{error}");
    }
}

#[test]
fn caller_without_any_proof_is_unauthenticated() {
    let error = Authenticator::default().caller(&Connection::default(), None, Some(target("worker/web"))).unwrap_err();
    assert_eq!(error, LookupError::Unauthenticated);
}

#[test]
fn token_that_is_sent_decides_alone() {
    let connection = Connection { identity: Some(consumer("worker/web")), not_after: None, uid: Some(0) };
    assert!(Authenticator::default().caller(&connection, Some("cbc_bad"), None).is_err());
}

#[test]
fn certificate_reads_while_its_consumer_exists() {
    let mut world = World::new();
    assert!(get(&world, &certified("worker/web")).is_ok());
    assert!(matches!(get(&world, &certified("worker/unknown")), Err(LookupError::Revoked { .. })));
    world.remove(TypedKey::Consumer { consumer: consumer("worker/web") });
    world.publish();
    assert!(matches!(get(&world, &certified("worker/web")), Err(LookupError::Revoked { .. })));
}

#[test]
fn certificate_reads_no_longer_than_it_lasts_though_its_connection_does() {
    let world = World::new();
    let not_after = Some(START.plus(Duration::from_secs(60)));
    let connection = Connection { identity: Some(consumer("worker/web")), not_after, uid: None };
    let caller = Authenticator::default().caller(&connection, None, None).unwrap();
    assert!(get(&world, &caller).is_ok());
    assert_eq!(world.lookup.whoami(&caller).unwrap().1, not_after);
    world.advance(Duration::from_secs(60));
    assert!(matches!(get(&world, &caller), Err(LookupError::Revoked { .. })));
}

#[test]
fn caller_named_in_the_request_must_be_whom_the_credential_proves() {
    let mut world = World::new();
    world.consumer("worker/other");
    let token = world.token("worker/web", None);
    let name = AccountName::new("Acme").unwrap();
    let account = state::record::AccountRecord { name: name.clone(), created: START, current_dek: None, previous_dek: None };
    world.put(TypedKey::Account { account: ACCOUNT }, account.encode());
    world.publish();
    let get_as = |act_as: ConsumerTarget| {
        let text = token.text();
        let caller = Authenticator::default().caller(&Connection::default(), Some(text.expose()), Some(act_as)).unwrap();
        get(&world, &caller)
    };
    let by_id = |account| Some(IdOrName { id: Some(account), name: None });
    let by_name = |name: &str| Some(IdOrName { id: None, name: Some(AccountName::new(name).unwrap()) });
    assert!(get_as(target("worker/web")).is_ok());
    assert!(get_as(ConsumerTarget { account: by_id(ACCOUNT), ..target("worker/web") }).is_ok());
    assert!(get_as(ConsumerTarget { account: by_name("Acme"), ..target("worker/web") }).is_ok());
    for other in [
        target("worker/other"),
        target("gateway/web"),
        ConsumerTarget { account: by_id(OTHER_ACCOUNT), ..target("worker/web") },
        ConsumerTarget { account: by_name("Ajax"), ..target("worker/web") },
    ] {
        let error = get_as(other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[test]
fn uid_acts_as_the_consumers_that_the_rules_allow() {
    let world = World::new();
    let rule = |uid, account, pattern| PeerRule { uid, account, pattern };
    let one = |text: &str| PeerPattern::One(consumer(text).kind, consumer(text).name);
    let authenticator = Authenticator::new(PeerRules::new(vec![
        rule(1000, ACCOUNT, one("worker/web")),
        rule(1001, ACCOUNT, PeerPattern::Kind(types::ConsumerKind::Worker)),
        rule(1002, ACCOUNT, PeerPattern::Any),
        rule(1002, OTHER_ACCOUNT, PeerPattern::Any),
        rule(1003, ACCOUNT, one("worker/web")),
        rule(1003, ACCOUNT, one("worker/other")),
    ]));
    let act = |uid, wanted: Option<ConsumerTarget>| {
        let caller = authenticator.caller(&Connection { identity: None, not_after: None, uid: Some(uid) }, None, wanted)?;
        get(&world, &caller).map(|_| ())
    };
    let in_account =
        |account, text: &str| Some(ConsumerTarget { account: Some(IdOrName { id: Some(account), name: None }), ..target(text) });
    let kind = |outcome: Result<(), LookupError>| outcome.map_err(|error| error.kind());
    let cases = [
        (1000, None, Ok(())),
        (1000, Some(target("worker/web")), Ok(())),
        (1000, in_account(ACCOUNT, "worker/web"), Ok(())),
        (1000, in_account(OTHER_ACCOUNT, "worker/web"), Err(ErrorKind::Denied)),
        (1000, Some(target("worker/other")), Err(ErrorKind::Denied)),
        (1001, Some(target("worker/web")), Ok(())),
        (1001, Some(target("gateway/web")), Err(ErrorKind::Denied)),
        (1001, None, Err(ErrorKind::InvalidArgument)),
        (1002, Some(target("worker/web")), Err(ErrorKind::InvalidArgument)),
        (1002, in_account(ACCOUNT, "worker/web"), Ok(())),
        (1003, None, Err(ErrorKind::InvalidArgument)),
        (1003, Some(target("worker/web")), Ok(())),
        (1004, None, Err(ErrorKind::Denied)),
        (0, Some(target("worker/web")), Err(ErrorKind::Denied)),
    ];
    for (uid, wanted, expected) in cases {
        assert_eq!(kind(act(uid, wanted.clone())), expected, "{uid} as {wanted:?}");
    }
}

#[test]
fn caller_debug_shows_no_hash_of_a_token() {
    let mut world = World::new();
    let token = world.token("worker/web", None);
    assert_eq!(format!("{:?}", bearer(&token)), "Caller(token)");
    assert_eq!(format!("{:?}", certified("worker/web")), "Caller(worker/web)");
}
