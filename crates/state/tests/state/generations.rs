//! A restored state that goes on in a new generation.

use state::{
    AuditEntry, AuditPrincipal, Beginning, CommandBody, CommandKind, GenerationError, Key, Keyspace, REVISIONS_SPARED, Recipient,
    SignedGeneration, State, Statement, StatementError, TypedKey, Write, begin_generation,
    record::{EnvelopeRecord, MemberKey, NodeRole},
};
use types::{Generation, KekEpoch, KeyDomain, NodeId, Position, Revision, UnixMillis};

use crate::world::{World, account, new_node, operator};

const NEW: NodeId = NodeId::new(9);

fn signature(bytes: &[u8]) -> [u8; 64] {
    std::array::from_fn(|place| bytes[place % bytes.len()])
}

fn world() -> World {
    let mut world = World::new();
    world.root(CommandBody::CreateAccount { account: account("main"), name: "main".parse().unwrap() }).result.unwrap();
    world
}

fn beginning() -> Beginning {
    let envelope = TypedKey::Envelope { domain: KeyDomain::global(), epoch: KekEpoch::new(1), recipient: Recipient::Node(NEW) };
    Beginning {
        time: UnixMillis::new(5000),
        above: Revision::new(70),
        nodes: vec![new_node(9, "control-9", NodeRole::Control)],
        remove: vec![NodeId::new(1)],
        signers: vec![MemberKey { node: NEW, key: [5; 32] }],
        threshold: 1,
        writes: vec![Write { key: envelope.encode(), value: Some(EnvelopeRecord { bytes: vec![1; 40] }.encode()) }],
    }
}

fn at(generation: u32, revision: u64) -> Position {
    Position::new(Generation::new(generation), Revision::new(revision))
}

#[test]
fn generation_begins_above_what_edges_hold_and_keeps_its_statement() {
    let world = world();
    let begun = begin_generation(&world.state, &beginning(), signature).unwrap();
    // The beginning is a mutation like any other: its entry goes on from the restored head, and is the new one.
    let (before, after) = (world.state.audit_head().unwrap(), begun.state.audit_head().unwrap());
    assert_eq!((begun.audit.sequence, begun.audit.previous), (before.sequence + 1, before.hash));
    assert_eq!((after.sequence, after.hash), (begun.audit.sequence, AuditEntry::hash_of(&begun.audit.encode())));
    assert_eq!((&begun.audit.principal, begun.audit.action), (&AuditPrincipal::RecoveryKey, CommandKind::BeginGeneration));
    let (state, statement) = (&begun.state, begun.signed.statement);
    assert_eq!((statement.begins, statement.restored), (at(2, 71), world.state.position()));
    assert_eq!((statement.restored_hash, statement.cluster), (world.state.chain_hash(), begun.state.settings().unwrap().unwrap().cluster));
    assert_eq!(begun.signed.signature, signature(&statement.signing_bytes()));
    assert_eq!(state.position(), at(2, 72));
    let kept = state.generation_begun(Generation::new(2)).unwrap().unwrap();
    assert_eq!(SignedGeneration::decode(&kept.signed), Ok(begun.signed));
    let set = state.signer_set_of(2).unwrap().unwrap();
    assert_eq!((set.hash(statement.cluster), set.version), (statement.signer_set_hash, statement.signer_set));
    assert_eq!(state.settings().unwrap().unwrap().signer_set, 2);
    assert_eq!(state.first_signer_set().unwrap().map(|set| set.version), Some(2), "who joins now pins this one");
    assert_eq!(world.state.first_signer_set().unwrap().map(|set| set.version), Some(1));
    // Who was removed is revoked, and cannot open anything that is sealed from now on.
    assert_eq!(state.node(NodeId::new(1)).unwrap().unwrap().revoked, Some(UnixMillis::new(5000)));
    assert_eq!(state.node(NEW).unwrap().unwrap().created, UnixMillis::new(5000));
    let envelope = |node| state.envelope(&KeyDomain::global(), KekEpoch::new(1), Recipient::Node(node)).unwrap();
    assert!(envelope(NEW).is_some() && envelope(NodeId::new(2)).is_some() && envelope(NodeId::new(1)).is_none());
    assert_eq!(state.account(account("main")).unwrap(), world.state.account(account("main")).unwrap());
    // Both change sets are a chain from the restored state's end, and the statement covers the first.
    let [first, second] = &begun.sets;
    assert_eq!((first.header.previous, first.hash, second.header.previous), (world.state.chain_hash(), statement.chain_hash, first.hash));
    assert_eq!((first.position(), second.position()), (at(2, 71), at(2, 72)));
}

#[test]
fn generation_is_loaded_from_its_records_and_goes_on_by_commands() {
    let mut world = world();
    let begun = begin_generation(&world.state, &beginning(), signature).unwrap();
    let loaded = State::from_records(begun.state.records()).unwrap();
    assert_eq!((loaded.head(), loaded.state_root()), (begun.state.head(), begun.state.state_root()));
    assert_eq!((loaded.applied_index(), loaded.last_time()), (world.state.applied_index(), UnixMillis::new(5000)));
    world.follower = loaded.propagated().clone();
    world.state = loaded;
    let body = CommandBody::CreateAccount { account: account("other"), name: "other".parse().unwrap() };
    let applied = world.apply(operator("root"), None, body);
    assert_eq!(applied.result.unwrap().position, at(2, 73));
    let twice = begin_generation(&world.state, &Beginning { nodes: Vec::new(), remove: Vec::new(), ..beginning() }, signature).unwrap();
    assert_eq!(twice.signed.statement.begins, at(3, 74), "the restored revision counts where it is higher");
}

#[test]
fn generation_that_cannot_begin_says_why() {
    let world = world();
    type Change = fn(&mut Beginning);
    type Expected = fn(&GenerationError) -> bool;
    let cases: [(&str, Change, Expected); 9] = [
        ("no signers", |b| b.signers.clear(), |e| matches!(e, GenerationError::Signers(_))),
        ("a threshold nobody reaches", |b| b.threshold = 2, |e| matches!(e, GenerationError::Signers(_))),
        ("a signer that is removed", |b| b.signers[0].node = NodeId::new(1), |e| matches!(e, GenerationError::Signers(_))),
        ("an edge as signer", |b| b.signers[0].node = NodeId::new(2), |e| matches!(e, GenerationError::Signers(_))),
        ("a node that is there", |b| b.nodes[0].id = NodeId::new(2), |e| matches!(e, GenerationError::Nodes(_))),
        ("a node that is not there", |b| b.remove = vec![NodeId::new(77)], |e| matches!(e, GenerationError::Nodes(_))),
        (
            "a record that is not the restorer's",
            |b| b.writes.push(Write { key: TypedKey::Settings.encode(), value: None }),
            |e| matches!(e, GenerationError::Record(_)),
        ),
        (
            "a key that is none",
            |b| b.writes.push(Write { key: Key::from_bytes([Keyspace::Totals.number(), 1]), value: None }),
            |e| matches!(e, GenerationError::Record(_)),
        ),
        ("no revision left", |b| b.above = Revision::new(u64::MAX), |e| matches!(e, GenerationError::Exhausted(_))),
    ];
    for (case, change, expected) in cases {
        let mut beginning = beginning();
        change(&mut beginning);
        let error = begin_generation(&world.state, &beginning, signature).unwrap_err();
        assert!(expected(&error), "{case}: {error}");
    }
    assert_eq!(begin_generation(&State::empty(), &beginning(), signature).unwrap_err(), GenerationError::Empty);
    let key = TypedKey::Recovery.encode();
    let records: Vec<_> = world.state.records().filter(|(other, _)| *other != key).collect();
    // Without the record the root differs, so the head has to be made anew as well: a cluster that never had one.
    assert!(State::from_records(records).is_err());
    assert!(REVISIONS_SPARED > u64::from(u32::MAX));
}

#[test]
fn statement_of_a_generation_round_trips_and_no_byte_of_it_can_be_changed_unseen() {
    let signed = begin_generation(&world().state, &beginning(), signature).unwrap().signed;
    let bytes = signed.encode();
    assert_eq!(bytes.len(), 242);
    assert_eq!(SignedGeneration::decode(&bytes), Ok(signed));
    let signed_bytes = signed.statement.signing_bytes();
    for place in 2..178 {
        let mut other = bytes.to_vec();
        other[place] ^= 1;
        let other = SignedGeneration::decode(&other).unwrap();
        assert_ne!(other.statement.signing_bytes(), signed_bytes, "byte {place}");
    }
    for length in 0..bytes.len() {
        assert_eq!(SignedGeneration::decode(&bytes[..length]), Err(StatementError::Length { bytes: length }));
    }
    let mut other = bytes.to_vec();
    other[1] = 1;
    assert_eq!(SignedGeneration::decode(&other), Err(StatementError::Type { got: 1, expected: 4 }));
}
