//! The key ring as control and edge use it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside the functions that the lint exempts")]

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use seal::{
    DekName, DekWrap, FileRoot, Kek, KekName, KeyRing, MintedDek, NodeKeyPair, SealError, ValueContext, commitment, fingerprint_epoch,
};
use seams::sim::{SimDisk, SimEntropy};
use types::{
    AccountId, ClusterId, Hash, KekEpoch, KeyDomain, NodeId, SealedValue, SecretId, SecretName, StoreId, VALUE_BYTES_MAX, ValueId,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const ACCOUNT: AccountId = AccountId::from_bytes([2; 16]);

struct World {
    entropy: SimEntropy,
    domain: KeyDomain,
    name: SecretName,
}

impl World {
    fn new() -> Self {
        Self { entropy: SimEntropy::new(5), domain: KeyDomain::global(), name: SecretName::new("API_KEY").unwrap() }
    }

    fn install(&self, ring: &KeyRing, epoch: u32) {
        ring.install_kek(&self.domain, KekEpoch::new(epoch), &self.announced(epoch), kek(epoch)).unwrap();
    }

    fn announced(&self, epoch: u32) -> Hash {
        commitment(&KekName { cluster: CLUSTER, domain: &self.domain, epoch: KekEpoch::new(epoch) }, &kek(epoch)).unwrap()
    }

    fn mint(&self, ring: &KeyRing, epoch: u32) -> MintedDek {
        ring.mint_dek(&self.entropy, &self.domain, KekEpoch::new(epoch), ACCOUNT).unwrap()
    }

    fn context(&self, minted: &MintedDek) -> ValueContext<'_> {
        ValueContext {
            account: ACCOUNT,
            store: StoreId::from_bytes([3; 16]),
            secret: SecretId::from_bytes([4; 16]),
            name: &self.name,
            value_id: ValueId::from_bytes([5; 16]),
            dek: minted.id,
            domain: &self.domain,
        }
    }

    fn seal(&self, ring: &KeyRing, minted: &MintedDek, plain: &[u8]) -> SealedValue {
        ring.seal_value(&self.entropy, &self.context(minted), wrap(minted), plain).unwrap()
    }

    fn open(&self, ring: &KeyRing, minted: &MintedDek, sealed: &SealedValue) -> Result<Vec<u8>, SealError> {
        ring.open_value(&self.context(minted), wrap(minted), sealed).map(|plaintext| plaintext.expose().to_vec())
    }
}

fn kek(epoch: u32) -> Kek {
    Kek::take(&mut [epoch as u8; 32])
}

fn wrap(minted: &MintedDek) -> DekWrap<'_> {
    DekWrap { epoch: minted.epoch, bytes: minted.wrapped.as_bytes() }
}

#[test]
fn ring_without_the_epoch_names_what_is_missing() {
    let (world, unlocked, locked) = (World::new(), KeyRing::new(CLUSTER), KeyRing::new(CLUSTER));
    world.install(&unlocked, 3);
    let minted = world.mint(&unlocked, 3);
    let sealed = world.seal(&unlocked, &minted, b"text");
    let error = world.open(&locked, &minted, &sealed).unwrap_err();
    assert!(matches!(&error, SealError::KeyUnavailable { domain, epoch } if domain.as_str() == "global" && epoch.get() == 3));
    assert_eq!(error.to_string(), "KEK epoch 3 of key domain global is not available on this node; unlock it, or wait for its envelope");
    assert!(locked.fingerprint(&world.domain, KekEpoch::new(3), &[]).is_err());
    assert!(locked.mint_dek(&world.entropy, &world.domain, KekEpoch::new(3), ACCOUNT).is_err());
}

#[test]
fn kek_that_is_not_the_announced_one_is_refused() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    let epoch = KekEpoch::new(1);
    let zone = KeyDomain::new("zone").unwrap();
    let wrong = [
        ring.install_kek(&world.domain, epoch, &world.announced(1), kek(2)),
        ring.install_kek(&world.domain, KekEpoch::new(2), &world.announced(1), kek(1)),
        ring.install_kek(&zone, epoch, &world.announced(1), kek(1)),
        KeyRing::new(ClusterId::from_bytes([9; 16])).install_kek(&world.domain, epoch, &world.announced(1), kek(1)),
    ];
    for refused in wrong {
        assert!(matches!(refused, Err(SealError::CommitmentMismatch { .. })));
    }
    assert!(ring.is_locked());
    world.install(&ring, 1);
    world.install(&ring, 1);
    assert_eq!(ring.epochs(), [(world.domain.clone(), epoch)]);
}

#[test]
fn kek_removed_closes_its_values_though_the_dek_was_cached() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    world.install(&ring, 1);
    world.install(&ring, 2);
    let (old, new) = (world.mint(&ring, 1), world.mint(&ring, 2));
    let (under_old, under_new) = (world.seal(&ring, &old, b"old"), world.seal(&ring, &new, b"new"));
    assert!(ring.remove_kek(&world.domain, KekEpoch::new(1)));
    assert!(!ring.remove_kek(&world.domain, KekEpoch::new(1)));
    assert!(matches!(world.open(&ring, &old, &under_old), Err(SealError::KeyUnavailable { .. })));
    assert_eq!(world.open(&ring, &new, &under_new).unwrap(), b"new");
    world.install(&ring, 1);
    assert_eq!(world.open(&ring, &old, &under_old).unwrap(), b"old");
}

#[test]
fn ring_locked_holds_nothing() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    assert!(ring.is_locked());
    world.install(&ring, 1);
    let minted = world.mint(&ring, 1);
    let sealed = world.seal(&ring, &minted, b"text");
    assert!(!ring.is_locked() && ring.holds(&world.domain, KekEpoch::new(1)));
    ring.lock();
    assert!(ring.is_locked() && !ring.holds(&world.domain, KekEpoch::new(1)));
    assert!(matches!(world.open(&ring, &minted, &sealed), Err(SealError::KeyUnavailable { .. })));
}

#[test]
fn ring_full_refuses_another_epoch() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    for epoch in 1..=64 {
        world.install(&ring, epoch);
    }
    let refused = ring.install_kek(&world.domain, KekEpoch::new(65), &world.announced(65), kek(65));
    assert!(matches!(refused, Err(SealError::TooManyEpochs { max: 64 })));
    world.install(&ring, 64);
    ring.remove_kek(&world.domain, KekEpoch::new(1));
    world.install(&ring, 65);
}

#[test]
fn dek_rewrapped_opens_the_same_values_in_another_epoch_and_domain() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    let zone = KeyDomain::new("zone").unwrap();
    world.install(&ring, 1);
    world.install(&ring, 2);
    let announced = commitment(&KekName { cluster: CLUSTER, domain: &zone, epoch: KekEpoch::new(1) }, &kek(9)).unwrap();
    ring.install_kek(&zone, KekEpoch::new(1), &announced, kek(9)).unwrap();

    let minted = world.mint(&ring, 1);
    let sealed = world.seal(&ring, &minted, b"text");
    let name = DekName { account: ACCOUNT, dek: minted.id };
    let from = (&world.domain, wrap(&minted));
    let rewrapped = ring.rewrap_dek(&world.entropy, name, from, (&world.domain, KekEpoch::new(2))).unwrap();
    let in_zone = ring.rewrap_dek(&world.entropy, name, from, (&zone, KekEpoch::new(1))).unwrap();
    ring.remove_kek(&world.domain, KekEpoch::new(1));

    let context = world.context(&minted);
    let wrap = DekWrap { epoch: KekEpoch::new(2), bytes: rewrapped.as_bytes() };
    assert!(ring.open_value(&context, wrap, &sealed).unwrap().expose() == b"text", "a KEK rotation touches no value");
    // The zone can unwrap the DEK, so it opens what is sealed for the zone; what was sealed for `global` stays there.
    let wrap = DekWrap { epoch: KekEpoch::new(1), bytes: in_zone.as_bytes() };
    let for_zone = ValueContext { domain: &zone, ..context };
    assert!(ring.open_value(&for_zone, wrap, &sealed).is_err());
    let sealed = ring.seal_value(&world.entropy, &for_zone, wrap, b"zoned").unwrap();
    assert!(ring.open_value(&for_zone, wrap, &sealed).unwrap().expose() == b"zoned");
}

#[test]
fn forged_wrap_is_refused_though_the_dek_is_cached() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    world.install(&ring, 1);
    let minted = world.mint(&ring, 1);
    let sealed = world.seal(&ring, &minted, b"text");
    assert!(world.open(&ring, &minted, &sealed).is_ok());
    let mut forged = minted.wrapped.as_bytes().to_vec();
    forged[20] ^= 1;
    let refused = ring.open_value(&world.context(&minted), DekWrap { epoch: minted.epoch, bytes: &forged }, &sealed).err();
    assert!(matches!(refused, Some(SealError::NotAuthentic { .. })));
    assert!(world.open(&ring, &minted, &sealed).is_ok());
}

#[test]
fn value_bounds_are_checked_when_it_is_sealed() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    world.install(&ring, 1);
    let minted = world.mint(&ring, 1);
    for len in [0, 1, 15, 16, 17, VALUE_BYTES_MAX] {
        let plain = vec![0xa5; len];
        assert_eq!(world.open(&ring, &minted, &world.seal(&ring, &minted, &plain)).unwrap(), plain);
    }
    let refused = ring.seal_value(&world.entropy, &world.context(&minted), wrap(&minted), &vec![0; VALUE_BYTES_MAX + 1]);
    assert_eq!(refused.unwrap_err().to_string(), "a value of 65537 bytes; at most 65536 are allowed");
}

#[test]
fn value_sealed_twice_has_two_nonces() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    world.install(&ring, 1);
    let minted = world.mint(&ring, 1);
    let (one, two) = (world.seal(&ring, &minted, b"text"), world.seal(&ring, &minted, b"text"));
    assert_ne!(one.nonce(), two.nonce());
    assert_ne!(one.ciphertext_and_tag(), two.ciphertext_and_tag());
}

#[test]
fn fingerprint_tells_content_apart_and_names_its_epoch() {
    let (world, ring) = (World::new(), KeyRing::new(CLUSTER));
    world.install(&ring, 1);
    world.install(&ring, 258);
    let of = |epoch: u32, content: &[&[u8]]| ring.fingerprint(&world.domain, KekEpoch::new(epoch), content).unwrap();
    assert_eq!(of(1, &[b"ab", b"c"]), of(1, &[b"ab", b"c"]));
    assert_ne!(of(1, &[b"ab", b"c"]), of(1, &[b"a", b"bc"]));
    assert_ne!(of(1, &[b"ab", b"c"]), of(1, &[b"ab", b"c", b""]));
    assert_ne!(of(1, &[b"ab"])[4..], of(258, &[b"ab"])[4..], "another epoch, another key");
    assert_eq!(fingerprint_epoch(&of(258, &[b"ab"])), KekEpoch::new(258));
}

#[test]
fn kek_leaves_the_ring_only_wrapped_and_comes_back_the_same() {
    let (world, control, edge) = (World::new(), KeyRing::new(CLUSTER), KeyRing::new(CLUSTER));
    world.install(&control, 1);
    let minted = world.mint(&control, 1);
    let sealed = world.seal(&control, &minted, b"text");

    let pair = NodeKeyPair::generate(&world.entropy).unwrap();
    let epoch = KekEpoch::new(1);
    let envelope = control.seal_envelope(&world.entropy, &world.domain, epoch, NodeId::new(4), pair.public()).unwrap();
    let name = KekName { cluster: CLUSTER, domain: &world.domain, epoch };
    edge.open_envelope(NodeId::new(4), &pair, &world.domain, epoch, &world.announced(1), &envelope).unwrap();
    assert_eq!(world.open(&edge, &minted, &sealed).unwrap(), b"text");

    let root = FileRoot::create(&SimDisk::new(), &world.entropy, Path::new("root")).unwrap();
    let wrapped = control.wrap_kek(&world.entropy, &root, &world.domain, epoch).unwrap();
    let restarted = KeyRing::new(CLUSTER);
    restarted.unlock_kek(&root, &world.domain, epoch, &world.announced(1), wrapped.as_bytes()).unwrap();
    assert_eq!(world.open(&restarted, &minted, &sealed).unwrap(), b"text");

    // Base mode does not say who sealed: what a stranger put into an envelope stops at the commitment.
    let forged = seal::seal_envelope(&world.entropy, &name, NodeId::new(4), pair.public(), &kek(66)).unwrap();
    let refused = KeyRing::new(CLUSTER).open_envelope(NodeId::new(4), &pair, &world.domain, epoch, &world.announced(1), &forged);
    assert!(matches!(refused, Err(SealError::CommitmentMismatch { .. })));
}

#[test]
fn ring_shared_by_threads_opens_right_or_says_unavailable() {
    let (world, ring) = (World::new(), KeyRing::with_cache(CLUSTER, 2));
    world.install(&ring, 1);
    world.install(&ring, 2);
    let values: Vec<_> = (0..6u8)
        .map(|number| {
            let minted = world.mint(&ring, 1 + u32::from(number % 2));
            let sealed = world.seal(&ring, &minted, &[number]);
            (number, minted, sealed)
        })
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                threads.spawn(|| {
                    for turn in 0..400 {
                        let (number, minted, sealed) = &values[turn % values.len()];
                        match world.open(&ring, minted, sealed) {
                            Ok(plain) => assert_eq!(plain, [*number]),
                            Err(SealError::KeyUnavailable { epoch, .. }) => assert_eq!(epoch.get(), 1),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                ring.remove_kek(&world.domain, KekEpoch::new(1));
                world.install(&ring, 1);
            }
        });
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        done.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
    ring.remove_kek(&world.domain, KekEpoch::new(1));
    for (_, minted, sealed) in values.iter().filter(|(number, ..)| number % 2 == 0) {
        assert!(world.open(&ring, minted, sealed).is_err(), "nothing of a removed epoch stays cached");
    }
}
