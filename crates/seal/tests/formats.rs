//! Every format, byte for byte: what is written under a fixed seed equals the fixture, and the fixture still opens.
//!
//! A fixture that no longer matches means that a stored or sent format has changed, which needs a new format number and a
//! migration, not a new fixture. `CINNABAR_WRITE_FIXTURES=1` writes those that are missing; it never replaces one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside the functions that the lint exempts"
)]

use std::{fs, path::Path};

use proptest::{prelude::*, test_runner::RngSeed};
use seal::{
    ConsumerToken, DekWrap, FileRoot, JoinToken, Kek, KekName, KeyRing, NodeKeyPair, NodePublicKey, OperatorToken, Recipient, RecoveryKey,
    RootProvider, SealError, ValueContext, WrappedDek, WrappedKek, commitment, open_authority, open_envelope, open_value, seal_authority,
    seal_envelope, seal_value,
};
use seams::{
    Disk, OpenMode,
    sim::{SimDisk, SimEntropy},
};
use types::{AccountId, ClusterId, DekId, Hash, KekEpoch, KeyDomain, NodeId, SealedValue, SecretId, SecretName, StoreId, ValueId};

const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
const EPOCH: KekEpoch = KekEpoch::new(7);

fn entropy(test: u64) -> SimEntropy {
    SimEntropy::new(0xc1_00ab_a500 + test)
}

fn kek() -> Kek {
    Kek::take(&mut [0x5e; 32])
}

fn ring(domain: &KeyDomain) -> KeyRing {
    let ring = KeyRing::new(CLUSTER);
    let name = KekName { cluster: CLUSTER, domain, epoch: EPOCH };
    ring.install_kek(domain, EPOCH, &commitment(&name, &kek()).unwrap(), kek()).unwrap();
    ring
}

fn context<'a>(domain: &'a KeyDomain, name: &'a SecretName, dek: DekId) -> ValueContext<'a> {
    ValueContext {
        account: ACCOUNT,
        store: StoreId::from_bytes([0x50; 16]),
        secret: SecretId::from_bytes([0x5c; 16]),
        name,
        value_id: ValueId::from_bytes([0x1d; 16]),
        dek,
        domain,
    }
}

/// Holds `bytes` against the fixture and gives the fixture back.
fn fixture(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.hex"));
    let lines: Vec<String> = bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    if !path.exists() && std::env::var_os("CINNABAR_WRITE_FIXTURES").is_some() {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let digits: String =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).split_whitespace().collect();
    let stored: Vec<u8> = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    assert!(stored == bytes, "{name}: what is written now differs from the fixture");
    stored
}

#[test]
fn root_file_of_format_1_is_written_and_read() {
    let (disk, path) = (SimDisk::new(), Path::new("keys/root"));
    let made = FileRoot::create(&disk, &entropy(1), path).unwrap();
    let stored = fixture("root_file_1", &disk.read(path).unwrap());

    let restored = SimDisk::new();
    restored.open(path, OpenMode::CreateNew).unwrap().write_all_at(&stored, 0).unwrap();
    let root = FileRoot::open(&restored, path).unwrap();
    assert_eq!(root.root_key_id(), made.root_key_id());

    let domain = KeyDomain::global();
    let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
    let wrapped = made.wrap_kek(&entropy(2), &name, &kek()).unwrap();
    let stored = fixture("wrapped_kek_1", wrapped.as_bytes());
    assert!(root.unwrap_kek(&name, &WrappedKek::decode(&name, &stored).unwrap()).unwrap() == kek());
}

#[test]
fn node_key_and_envelope_of_format_1_are_written_and_read() {
    let pair = NodeKeyPair::generate(&entropy(3)).unwrap();
    let stored = fixture("node_key_file_1", &pair.to_file_bytes());
    let read = NodeKeyPair::from_file_bytes(&stored).unwrap();
    let public = fixture("node_public_key_1", &pair.public().encode());
    assert_eq!(&NodePublicKey::decode(&public).unwrap(), read.public());

    let domain = KeyDomain::global();
    let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
    for (file, recipient) in [("envelope_node_1", Recipient::Node(NodeId::new(3))), ("envelope_recovery_1", Recipient::Recovery)] {
        let envelope = seal_envelope(&entropy(4), &name, recipient, pair.public(), &kek()).unwrap();
        let stored = fixture(file, &envelope);
        assert!(open_envelope(&name, recipient, &read, &stored).unwrap() == kek());
    }
}

#[test]
fn commitment_and_fingerprint_are_as_they_were() {
    let domain = KeyDomain::global();
    let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
    fixture("commitment_1", commitment(&name, &kek()).unwrap().as_bytes());
    fixture("fingerprint_1", &ring(&domain).fingerprint(&domain, EPOCH, &[b"set", b"value"]).unwrap());
}

#[test]
fn dek_and_value_of_format_1_are_written_and_read() {
    let (domain, name) = (KeyDomain::global(), SecretName::new("API_KEY").unwrap());
    let minted = ring(&domain).mint_dek(&entropy(5), &domain, EPOCH, ACCOUNT).unwrap();
    let id = fixture("dek_id", minted.id.as_bytes());
    let wrapped = fixture("wrapped_dek_1", minted.wrapped.as_bytes());
    let dek = DekId::from_bytes(id.try_into().unwrap());
    let wrap = DekWrap { epoch: EPOCH, bytes: &wrapped };

    for (file, plain) in [("value_1", &b"correct horse"[..]), ("value_empty_1", b"")] {
        let context = context(&domain, &name, dek);
        let sealed = ring(&domain).seal_value(&entropy(6), &context, wrap, plain).unwrap();
        let stored = SealedValue::from_bytes(fixture(file, sealed.as_bytes())).unwrap();
        assert!(ring(&domain).open_value(&context, wrap, &stored).unwrap().expose() == plain);
    }
}

#[test]
fn tokens_are_written_and_read_as_they_were() {
    let operator = OperatorToken::generate(&entropy(7));
    let stored = fixture("operator_token_1", operator.text().expose().as_bytes());
    fixture("operator_token_hash_1", &operator.hash());
    assert_eq!(OperatorToken::parse(str::from_utf8(&stored).unwrap()).unwrap().hash(), operator.hash());

    let consumer = ConsumerToken::generate(&entropy(7));
    let stored = fixture("consumer_token_1", consumer.text().expose().as_bytes());
    fixture("consumer_token_hash_1", &consumer.hash());
    assert_eq!(ConsumerToken::parse(str::from_utf8(&stored).unwrap()).unwrap().hash(), consumer.hash());

    let (ca, signers) = (Hash::from_bytes([0xca; 32]), Hash::from_bytes([0x51; 32]));
    let join = JoinToken::generate(&entropy(7), CLUSTER, ca, signers);
    let stored = fixture("join_token_1", join.text().expose().as_bytes());
    fixture("join_token_hash_1", &join.hash());
    let read = JoinToken::parse(str::from_utf8(&stored).unwrap()).unwrap();
    assert_eq!((read.hash(), read.cluster(), read.ca(), read.signers()), (join.hash(), CLUSTER, ca, signers));
}

#[test]
fn recovery_key_is_written_and_derived_as_it_was() {
    let recovery = RecoveryKey::generate(&entropy(7)).unwrap();
    let stored = fixture("recovery_key_1", recovery.text().expose().as_bytes());
    let read = RecoveryKey::parse(str::from_utf8(&stored).unwrap()).unwrap();
    assert_eq!(read.public(), recovery.public());
    fixture("recovery_key_signing_1", &recovery.public().signing);
    fixture("recovery_key_opening_1", &recovery.public().opening.encode());
    fixture("recovery_key_signature_1", &recovery.sign(b"message"));
}

#[test]
fn authority_key_opens_for_its_recipient_alone_and_never_as_an_epoch() {
    let (pair, key) = (NodeKeyPair::generate(&entropy(3)).unwrap(), [0x5a; 138]);
    let sealed = fixture("authority_key_1", &seal_authority(&entropy(4), CLUSTER, NodeId::new(3), pair.public(), &key).unwrap());
    assert!(open_authority(CLUSTER, NodeId::new(3), &pair, &sealed).unwrap().expose() == key);
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    let other = NodeKeyPair::generate(&entropy(9)).unwrap();
    let long = [&sealed[..], &[0; 2000]].concat();
    for refused in [
        open_authority(CLUSTER, NodeId::new(4), &pair, &sealed),
        open_authority(CLUSTER, Recipient::Recovery, &pair, &sealed),
        open_authority(ClusterId::from_bytes([9; 16]), NodeId::new(3), &pair, &sealed),
        open_authority(CLUSTER, NodeId::new(3), &other, &sealed),
        open_authority(CLUSTER, NodeId::new(3), &pair, &changed),
        open_authority(CLUSTER, NodeId::new(3), &pair, &sealed[..sealed.len() - 1]),
        open_authority(CLUSTER, NodeId::new(3), &pair, &sealed[..1000]),
        open_authority(CLUSTER, NodeId::new(3), &pair, &[]),
        open_authority(CLUSTER, NodeId::new(3), &pair, &long),
    ] {
        assert!(refused.is_err());
    }
    // A key of the length of a KEK, and a KEK: the labels tell them apart.
    let domain = KeyDomain::global();
    let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
    let short = seal_authority(&entropy(4), CLUSTER, NodeId::new(3), pair.public(), &[1; 32]).unwrap();
    assert!(matches!(open_envelope(&name, NodeId::new(3), &pair, &short).err(), Some(SealError::NotAuthentic { .. })));
    let epoch = seal_envelope(&entropy(4), &name, NodeId::new(3), pair.public(), &kek()).unwrap();
    assert!(matches!(open_authority(CLUSTER, NodeId::new(3), &pair, &epoch).err(), Some(SealError::NotAuthentic { .. })));
}

#[test]
fn newer_formats_are_refused_by_their_number() {
    let domain = KeyDomain::global();
    let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
    let pair = NodeKeyPair::generate(&entropy(3)).unwrap();
    let (disk, path) = (SimDisk::new(), Path::new("root"));
    let root = FileRoot::create(&disk, &entropy(1), path).unwrap();
    let newer = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] = 2;
        // A newer format has a length of its own.
        bytes.extend_from_slice(b"more");
        bytes
    };

    let root_file = newer(&disk.read(path).unwrap(), 8);
    let other = SimDisk::new();
    other.open(path, OpenMode::CreateNew).unwrap().write_all_at(&root_file, 0).unwrap();
    let wrapped_kek = newer(root.wrap_kek(&entropy(2), &name, &kek()).unwrap().as_bytes(), 0);
    let wrapped_dek = newer(ring(&domain).mint_dek(&entropy(5), &domain, EPOCH, ACCOUNT).unwrap().wrapped.as_bytes(), 0);
    let envelope = newer(&seal_envelope(&entropy(4), &name, NodeId::new(3), pair.public(), &kek()).unwrap(), 0);
    let key_file = newer(&pair.to_file_bytes(), 8);

    let errors = [
        FileRoot::open(&other, path).err(),
        WrappedKek::decode(&name, &wrapped_kek).err(),
        WrappedDek::decode(DekId::from_bytes([1; 16]), &wrapped_dek).err(),
        open_envelope(&name, NodeId::new(3), &pair, &envelope).err(),
        NodeKeyPair::from_file_bytes(&key_file).err(),
    ];
    for error in errors {
        let error = error.expect("refused");
        assert!(matches!(error, SealError::NewerFormat { got: 2, newest: 1, .. }), "{error}");
        assert!(error.to_string().ends_with("has format 2, newest known is 1; a newer Cinnabar wrote it"), "{error}");
    }
}

#[test]
fn other_algorithms_are_refused_by_their_number() {
    let domain = KeyDomain::global();
    let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
    let pair = NodeKeyPair::generate(&entropy(3)).unwrap();
    let envelope = seal_envelope(&entropy(4), &name, NodeId::new(3), pair.public(), &kek()).unwrap();
    for at in 1..7 {
        let mut other = envelope.clone();
        other[at] ^= 1;
        let error = open_envelope(&name, NodeId::new(3), &pair, &other).err().unwrap();
        assert!(matches!(error, SealError::UnknownAlgorithm { .. }), "{at}: {error}");
    }
    let mut public = pair.public().encode();
    public[1] ^= 1;
    assert!(matches!(NodePublicKey::decode(&public), Err(SealError::UnknownAlgorithm { got: 0x647b, known: 0x647a, .. })));
}

#[test]
fn dek_held_by_the_caller_seals_as_the_ring_does() {
    let (domain, name) = (KeyDomain::global(), SecretName::new("API_KEY").unwrap());
    let dek = seal::Dek::take(&mut [9; 32]);
    let context = context(&domain, &name, DekId::from_bytes([8; 16]));
    let sealed = seal_value(&entropy(6), &dek, &context, b"text").unwrap();
    assert!(open_value(&dek, &context, &sealed).unwrap().expose() == b"text");
    let other = seal::Dek::take(&mut [10; 32]);
    assert!(matches!(open_value(&other, &context, &sealed).err(), Some(SealError::NotAuthentic { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(0xc1), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn bytes_that_nobody_wrote_are_refused_without_panic(start in 0..5usize, rest in proptest::collection::vec(any::<u8>(), 0..1300)) {
        let starts: [&[u8]; 5] = [b"", b"\x01", b"\x01\x64\x7a\x00\x01\x00\x02", b"\x64\x7a", b"CBN-NODE\x01\x64\x7a"];
        let bytes = [starts[start], &rest].concat();
        let (domain, pair) = (KeyDomain::global(), NodeKeyPair::generate(&entropy(3)).unwrap());
        let name = KekName { cluster: CLUSTER, domain: &domain, epoch: EPOCH };
        prop_assert!(open_envelope(&name, NodeId::new(3), &pair, &bytes).is_err());
        prop_assert!(NodeKeyPair::from_file_bytes(&bytes).is_err());
        let _ = (NodePublicKey::decode(&bytes), WrappedKek::decode(&name, &bytes), WrappedDek::decode(DekId::from_bytes([1; 16]), &bytes));
    }
}
