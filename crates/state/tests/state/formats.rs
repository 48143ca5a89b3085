//! Encodings: they round-trip, keys keep their order, and no bytes make a decoder panic.

use bytes::Bytes;
use proptest::prelude::*;
use state::{
    Change, ChangeSet, Command, CommandBody, CommandError, JobId, Key, Keyspace, MemberRef, Principal, Recipient, ReminderKind, TypedKey,
    record::{BoundTo, RequestOwner, SecretRecord, StoreRecord},
};
use types::{
    AccountId, BindingName, ChainId, ConsumerKind, ConsumerName, ConsumerRef, DekId, FeatureLevel, Hash, KekEpoch, KeyDomain, LogIndex,
    NodeId, Position, PrincipalName, RequestId, RootKeyId, SecretId, SecretName, StoreId, StoreName, TokenId, UnixMillis, ValueId,
};

use super::world::World;

fn bytes16() -> impl Strategy<Value = [u8; 16]> {
    // Few different bytes, so that keys share prefixes.
    prop::collection::vec(prop::sample::select(&[0_u8, 1, 255][..]), 3).prop_map(|few| {
        let mut bytes = [few[0]; 16];
        bytes[7] = few[1];
        bytes[15] = few[2];
        bytes
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-b-]{1,3}"
}

fn consumer() -> impl Strategy<Value = ConsumerRef> {
    (bytes16(), 0..6_u8, "[a-b][a-b.]{0,2}").prop_map(|(account, kind, name)| ConsumerRef {
        account: AccountId::from_bytes(account),
        kind: ConsumerKind::try_from(kind).unwrap(),
        name: ConsumerName::new(name).unwrap(),
    })
}

fn recipient() -> impl Strategy<Value = Recipient> {
    prop_oneof![
        bytes16().prop_map(|root| Recipient::Root(RootKeyId::from_bytes(root))),
        any::<u64>().prop_map(|node| Recipient::Node(NodeId::new(node))),
        Just(Recipient::Recovery),
    ]
}

fn owner() -> impl Strategy<Value = RequestOwner> {
    prop_oneof![
        bytes16().prop_map(|token| RequestOwner::Token(TokenId::from_bytes(token))),
        any::<u64>().prop_map(|node| RequestOwner::Node(NodeId::new(node))),
    ]
}

fn bound_to() -> impl Strategy<Value = BoundTo> {
    prop_oneof![
        bytes16().prop_map(|secret| BoundTo::Secret(SecretId::from_bytes(secret))),
        bytes16().prop_map(|store| BoundTo::Store(StoreId::from_bytes(store))),
    ]
}

prop_compose! {
    fn key()(
        keyspace in prop::sample::select(&Keyspace::ALL[..]),
        (one, two) in (bytes16(), bytes16()),
        hash in any::<[u8; 16]>().prop_map(|half| std::array::from_fn(|place| half[place / 2])),
        name in name(),
        domain in "[a-b-]{1,3}",
        consumer in consumer(),
        (small, large) in (any::<u32>(), any::<u64>()),
        recipient in recipient(),
        owner in owner(),
        target in bound_to(),
    ) -> TypedKey {
        let (account, store, secret) = (AccountId::from_bytes(one), StoreId::from_bytes(one), SecretId::from_bytes(two));
        let (dek, token, domain, epoch) = (DekId::from_bytes(two), TokenId::from_bytes(two), KeyDomain::new(domain).unwrap(), KekEpoch::new(small));
        let home = (small % 4 > 0).then_some(account);
        let member = MemberRef { account: home, name: PrincipalName::new(format!("{name}@a")).unwrap() };
        let binding = || BindingName::new(name.replace('-', "_")).unwrap();
        match keyspace {
            Keyspace::Settings => TypedKey::Settings,
            Keyspace::SignerSet => TypedKey::SignerSet { version: small },
            Keyspace::Generation => TypedKey::Generation { generation: types::Generation::new(small) },
            Keyspace::Node => TypedKey::Node { node: NodeId::new(large) },
            Keyspace::KekEpoch => TypedKey::KekEpoch { domain, epoch },
            Keyspace::Account => TypedKey::Account { account },
            Keyspace::Dek => TypedKey::Dek { account, dek },
            Keyspace::Store => TypedKey::Store { store },
            Keyspace::StoreName => TypedKey::StoreName { account, name: StoreName::new(name).unwrap() },
            Keyspace::Secret => TypedKey::Secret { store, secret },
            Keyspace::SecretName => TypedKey::SecretName { store, name: SecretName::new(name).unwrap() },
            Keyspace::Value => TypedKey::Value { secret: SecretId::from_bytes(one), value: ValueId::from_bytes(two) },
            Keyspace::Consumer => TypedKey::Consumer { consumer },
            Keyspace::ConsumerToken => TypedKey::ConsumerToken { hash },
            Keyspace::Binding => TypedKey::Binding { consumer, name: binding() },
            Keyspace::Recovery => TypedKey::Recovery,
            Keyspace::Trust => TypedKey::Trust,
            Keyspace::Head => TypedKey::Head,
            Keyspace::OperatorToken => TypedKey::OperatorToken { hash },
            Keyspace::OperatorTokenId => TypedKey::OperatorTokenId { token },
            Keyspace::AuditHead => TypedKey::AuditHead,
            Keyspace::Request => TypedKey::Request { owner, request: RequestId::from_bytes(two) },
            Keyspace::RequestAge => TypedKey::RequestAge { index: LogIndex::new(large) },
            Keyspace::Envelope => TypedKey::Envelope { domain, epoch, recipient },
            Keyspace::DekUses => TypedKey::DekUses { account, dek },
            Keyspace::EpochUses => TypedKey::EpochUses { domain, epoch },
            Keyspace::Job => TypedKey::Job { job: JobId::new(LogIndex::new(large)) },
            Keyspace::Quota => TypedKey::Quota { account },
            Keyspace::Usage => TypedKey::Usage { account },
            Keyspace::Totals => TypedKey::Totals,
            Keyspace::BoundBy => TypedKey::BoundBy { target, consumer, name: binding() },
            Keyspace::ConsumerUsage => TypedKey::ConsumerUsage { consumer },
            Keyspace::ConsumerTokenId => TypedKey::ConsumerTokenId { consumer, token },
            Keyspace::Authority => TypedKey::Authority,
            Keyspace::JoinToken => TypedKey::JoinToken { hash },
            Keyspace::JoinTokenId => TypedKey::JoinTokenId { token },
            Keyspace::Certified => TypedKey::Certified { node: NodeId::new(large) },
            Keyspace::Member => TypedKey::Member { member },
            Keyspace::MemberToken => TypedKey::MemberToken { member, token },
            Keyspace::TokenTerms => TypedKey::TokenTerms { token },
            Keyspace::Limits => TypedKey::Limits { account: home },
            Keyspace::Holdings => TypedKey::Holdings { account: home },
            Keyspace::Deleted => TypedKey::Deleted { store, secret },
            Keyspace::DeletedValue => TypedKey::DeletedValue { secret: SecretId::from_bytes(one), value: ValueId::from_bytes(two) },
            Keyspace::DeletedUntil => TypedKey::DeletedUntil { until: UnixMillis::new(large), store, secret },
            Keyspace::DeletedOf => TypedKey::DeletedOf { account, index: LogIndex::new(large), store, secret },
            Keyspace::Reminder => TypedKey::Reminder { store, secret },
            Keyspace::Due => TypedKey::Due { at: UnixMillis::new(large), kind: ReminderKind::ALL[usize::from(small % 2 == 0)], store, secret },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn key_bytes_round_trip(key in key()) {
        let bytes = key.encode();
        prop_assert_eq!(bytes.decode(), Ok(key.clone()));
        prop_assert_eq!(bytes.keyspace(), Some(key.keyspace()));
        prop_assert_eq!(bytes.is_propagated(), key.keyspace().is_propagated());
    }

    #[test]
    fn key_bytes_order_as_the_typed_keys_do(one in key(), other in key()) {
        prop_assert_eq!(one.encode().cmp(&other.encode()), one.cmp(&other));
    }

    #[test]
    fn key_that_decodes_encodes_to_the_same_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..80), keyspace in prop::sample::select(&Keyspace::ALL[..])) {
        if let Some(first) = bytes.first_mut() {
            *first = keyspace.number();
        }
        let key = Key::from_bytes(Bytes::from(bytes));
        if let Ok(typed) = key.decode() {
            prop_assert_eq!(typed.encode(), key);
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Command::decode(&bytes);
        let _ = ChangeSet::decode(Bytes::from(bytes.clone()));
        let _ = SecretRecord::decode(&bytes);
        let _ = StoreRecord::decode(&bytes);
        let _ = Key::from_bytes(Bytes::from(bytes)).decode();
    }
}

#[test]
fn command_cut_off_or_with_more_is_refused() {
    let world = World::new();
    let bytes = world.log[0].encode();
    assert_eq!(Command::decode(&bytes).unwrap(), world.log[0]);
    for length in 0..bytes.len() {
        assert!(matches!(Command::decode(&bytes[..length]), Err(CommandError::Format(_))), "{length}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(Command::decode(&longer).is_err());
}

#[test]
fn command_of_a_newer_level_kind_or_format_is_told_apart() {
    let world = World::new();
    let bytes = world.command(Principal::System, None, CommandBody::Tick).encode();
    let with = |place: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[place] = byte;
        Command::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(4, 4), CommandError::Level { got: FeatureLevel::new(4) });
    assert_eq!(with(6, 200), CommandError::Kind { number: 200 });
    assert_eq!(with(6, 30).to_string(), format!("a command of {} bytes is damaged: its head says step, its body is tick", bytes.len()));
    assert_eq!(with(0, 2).to_string(), "a command of format 2, newest known is 1; a newer Cinnabar wrote it");
    assert_eq!(with(4, 4).to_string(), "a command of feature level 4; this build applies up to 3: update this node");
}

#[test]
fn command_longer_than_allowed_is_refused() {
    let bytes = vec![1; state::limits::CHANGE_SET_BYTES_MAX + 1];
    assert!(matches!(Command::decode(&bytes), Err(CommandError::TooLarge { .. })));
}

#[test]
fn command_shows_kind_and_length_only() {
    let world = World::new();
    let command = &world.log[0];
    assert_eq!(command.to_string(), format!("init-cluster ({} bytes)", command.encode().len()));
    let debug = format!("{command:?}{:?}", command.body);
    assert!(!debug.contains("114, 111, 111, 116"), "the hash of the token: {debug}");
    assert!(debug.contains("init-cluster") || debug.contains("InitCluster"));
}

#[test]
fn key_bytes_of_every_length_are_kept_and_order_as_bytes_do() {
    let keys: Vec<Key> = (0..200_usize).map(|length| Key::from_bytes(vec![7; length])).collect();
    for (length, key) in keys.iter().enumerate() {
        assert_eq!(key.as_bytes(), vec![7; length]);
        assert_eq!(key.clone(), *key);
    }
    assert!(keys.is_sorted(), "a prefix comes first, wherever the bytes lie");
    assert!(Key::from_bytes([7; 60]) < Key::from_bytes([8; 5]) && Key::from_bytes([6; 5]) < Key::from_bytes([7; 60]));
}

#[test]
fn change_set_bytes_round_trip_and_share_their_memory() {
    let world = World::new();
    let set = &world.sets[0];
    let read = ChangeSet::decode(set.encoded().clone()).unwrap();
    assert_eq!(&read, set.as_ref());
    let (start, end) = (set.encoded().as_ptr() as usize, set.encoded().as_ptr() as usize + set.encoded().len());
    for value in read.changes.iter().filter_map(|change| change.value.as_ref()) {
        assert!((start..end).contains(&(value.as_ptr() as usize)));
    }
    for length in 0..set.encoded().len() {
        assert!(ChangeSet::decode(set.encoded().slice(..length)).is_err(), "{length}");
    }
}

#[test]
fn change_set_says_what_is_wrong_with_its_bytes() {
    let key = TypedKey::Settings.encode();
    let set = ChangeSet::new(ChainId::new(0), Position::default(), UnixMillis::new(0), Hash::ZERO, vec![Change { key, value: None }]);
    let with = |place: usize, byte: u8| {
        let mut bytes = set.encoded().to_vec();
        bytes[place] = byte;
        ChangeSet::decode(bytes.into()).unwrap_err().to_string()
    };
    assert_eq!(with(0, 2), "change set of format 2, newest known is 1; a newer Cinnabar wrote it");
    assert_eq!(with(128, 7), "change set of 129 bytes is damaged at byte 129: kind of change");
    assert_eq!(with(90, 255), "change set has a number of changes of 16711681, at most 4096 are allowed");
    assert_eq!(with(92, 0), "change set of 129 bytes is damaged at byte 125: bytes left over");
}
