//! Invariant 1: whatever is sealed or wrapped is bound to its whole context. A change of any field of it, or of any byte, fails.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside the functions that the lint exempts")]

use proptest::{prelude::*, test_runner::RngSeed};
use seal::{DekName, DekWrap, Kek, KekName, KeyRing, NodeKeyPair, Recipient, RootKey, SealError, ValueContext, WrappedKek, commitment};
use seams::sim::SimEntropy;
use types::{AccountId, ClusterId, DekId, KekEpoch, KeyDomain, NodeId, RootKeyId, SealedValue, SecretId, SecretName, StoreId, ValueId};

fn kek() -> Kek {
    Kek::take(&mut [0x5e; 32])
}

/// A ring that holds epochs 1 and 2 of two domains, all of them one KEK: only the names tell them apart.
fn ring(cluster: ClusterId) -> KeyRing {
    let ring = KeyRing::new(cluster);
    for domain in ["global", "zone"] {
        for epoch in [1, 2] {
            let (domain, epoch) = (KeyDomain::new(domain).unwrap(), KekEpoch::new(epoch));
            let announced = commitment(&KekName { cluster, domain: &domain, epoch }, &kek()).unwrap();
            ring.install_kek(&domain, epoch, &announced, kek()).unwrap();
        }
    }
    ring
}

#[derive(Clone, Debug)]
struct Place {
    account: [u8; 16],
    store: [u8; 16],
    secret: [u8; 16],
    name: String,
    value: [u8; 16],
    domain: &'static str,
}

fn place() -> impl Strategy<Value = Place> {
    let domain = prop_oneof![Just("global"), Just("zone")];
    (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 16]>(), "[A-Za-z0-9_-]{1,255}", any::<[u8; 16]>(), domain)
        .prop_map(|(account, store, secret, name, value, domain)| Place { account, store, secret, name, value, domain })
}

fn flipped(id: &[u8; 16], at: usize, mask: u8) -> [u8; 16] {
    let mut id = *id;
    id[at % 16] ^= mask;
    id
}

/// One seed, so that a run says the same twice.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(0xc1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(256))]
    #[test]
    fn value_opens_only_in_its_place(
        place in place(), plain in proptest::collection::vec(any::<u8>(), 0..300), at in any::<usize>(), mask in 1..=255u8, seed in any::<u64>(),
    ) {
        let (ring, entropy) = (ring(ClusterId::from_bytes([1; 16])), SimEntropy::new(seed));
        let (domain, name) = (KeyDomain::new(place.domain).unwrap(), SecretName::new(&place.name).unwrap());
        let account = AccountId::from_bytes(place.account);
        let minted = ring.mint_dek(&entropy, &domain, KekEpoch::new(1), account).unwrap();
        let wrap = DekWrap { epoch: minted.epoch, bytes: minted.wrapped.as_bytes() };
        let context = ValueContext {
            account, store: StoreId::from_bytes(place.store), secret: SecretId::from_bytes(place.secret), name: &name,
            value_id: ValueId::from_bytes(place.value), dek: minted.id, domain: &domain,
        };
        let sealed = ring.seal_value(&entropy, &context, wrap, &plain).unwrap();
        prop_assert!(ring.open_value(&context, wrap, &sealed).unwrap().expose() == plain);

        let other_domain = KeyDomain::new(if place.domain == "zone" { "global" } else { "zone" }).unwrap();
        let other_names = [place.name[1..].to_owned(), format!("{}x", &place.name[..place.name.len() - 1]), format!("x{}", &place.name[1..])];
        let other_names: Vec<_> = other_names.into_iter().filter(|other| *other != place.name).filter_map(|other| SecretName::new(other).ok()).collect();
        let mut others = vec![
            ("account", ValueContext { account: AccountId::from_bytes(flipped(&place.account, at, mask)), ..context }),
            ("store", ValueContext { store: StoreId::from_bytes(flipped(&place.store, at, mask)), ..context }),
            ("secret", ValueContext { secret: SecretId::from_bytes(flipped(&place.secret, at, mask)), ..context }),
            ("value", ValueContext { value_id: ValueId::from_bytes(flipped(&place.value, at, mask)), ..context }),
            ("dek", ValueContext { dek: DekId::from_bytes(flipped(minted.id.as_bytes(), at, mask)), ..context }),
            ("domain", ValueContext { domain: &other_domain, ..context }),
        ];
        others.extend(other_names.iter().map(|name| ("name", ValueContext { name, ..context })));
        for (field, other) in &others {
            // With the DEK cached under the right name, and in a ring that has cached nothing.
            for ring in [&ring, &self::ring(ClusterId::from_bytes([1; 16]))] {
                let refused = matches!(ring.open_value(other, wrap, &sealed).err(), Some(SealError::NotAuthentic { .. }));
                prop_assert!(refused, "{} was changed", field);
            }
        }

        let mut bytes = sealed.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= mask;
        match SealedValue::from_bytes(bytes) {
            Ok(changed) => {
                let refused = matches!(ring.open_value(&context, wrap, &changed).err(), Some(SealError::NotAuthentic { .. }));
                prop_assert!(refused, "byte {}", at);
            }
            Err(_) => prop_assert_eq!(at, 0),
        }
    }

    #[test]
    fn value_fields_are_bound_to_the_derived_key_and_not_only_to_the_dek(
        place in place(), at in any::<usize>(), mask in 1..=255u8, seed in any::<u64>(),
    ) {
        // Under one DEK held in the hand, so that no wrap can be what refuses.
        let entropy = SimEntropy::new(seed);
        let dek = seal::Dek::generate(&entropy);
        let (domain, zone, name) = (KeyDomain::global(), KeyDomain::new("zone").unwrap(), SecretName::new(&place.name).unwrap());
        let context = ValueContext {
            account: AccountId::from_bytes(place.account), store: StoreId::from_bytes(place.store), secret: SecretId::from_bytes(place.secret),
            name: &name, value_id: ValueId::from_bytes(place.value), dek: DekId::from_bytes([3; 16]), domain: &domain,
        };
        let sealed = seal::seal_value(&entropy, &dek, &context, b"text").unwrap();
        let others = [
            ValueContext { account: AccountId::from_bytes(flipped(&place.account, at, mask)), ..context },
            ValueContext { dek: DekId::from_bytes(flipped(&[3; 16], at, mask)), ..context },
            ValueContext { domain: &zone, ..context },
        ];
        for other in &others {
            prop_assert!(seal::open_value(&dek, other, &sealed).is_err());
        }
    }

    #[test]
    fn dek_unwraps_only_under_its_name(account in any::<[u8; 16]>(), at in any::<usize>(), mask in 1..=255u8, seed in any::<u64>()) {
        let (cluster, domain, zone) = (ClusterId::from_bytes([1; 16]), KeyDomain::global(), KeyDomain::new("zone").unwrap());
        let (ring, entropy) = (ring(cluster), SimEntropy::new(seed));
        let minted = ring.mint_dek(&entropy, &domain, KekEpoch::new(1), AccountId::from_bytes(account)).unwrap();
        let name = DekName { account: AccountId::from_bytes(account), dek: minted.id };
        let rewrap = |ring: &KeyRing, name: DekName, domain: &KeyDomain, epoch: u32, bytes: &[u8]| {
            let from = (domain, DekWrap { epoch: KekEpoch::new(epoch), bytes });
            ring.rewrap_dek(&entropy, name, from, (&zone, KekEpoch::new(2))).map(|_| ())
        };
        let bytes = minted.wrapped.as_bytes();
        prop_assert!(rewrap(&ring, name, &domain, 1, bytes).is_ok());

        let mut changed = bytes.to_vec();
        changed[at % bytes.len()] ^= mask;
        let other_account = DekName { account: AccountId::from_bytes(flipped(&account, at, mask)), ..name };
        let other_dek = DekName { dek: DekId::from_bytes(flipped(minted.id.as_bytes(), at, mask)), ..name };
        prop_assert!(rewrap(&ring, other_account, &domain, 1, bytes).is_err(), "account");
        prop_assert!(rewrap(&ring, other_dek, &domain, 1, bytes).is_err(), "dek id");
        prop_assert!(rewrap(&ring, name, &zone, 1, bytes).is_err(), "domain");
        prop_assert!(rewrap(&ring, name, &domain, 2, bytes).is_err(), "epoch");
        prop_assert!(rewrap(&self::ring(ClusterId::from_bytes([2; 16])), name, &domain, 1, bytes).is_err(), "cluster");
        prop_assert!(rewrap(&ring, name, &domain, 1, &changed).is_err(), "byte");
        prop_assert!(rewrap(&ring, name, &domain, 1, &bytes[..at % bytes.len()]).is_err(), "length");
    }

    #[test]
    fn kek_unwraps_only_under_its_name_and_root(at in any::<usize>(), mask in 1..=255u8, seed in any::<u64>()) {
        let (entropy, domain, zone) = (SimEntropy::new(seed), KeyDomain::global(), KeyDomain::new("zone").unwrap());
        let (root, id) = (RootKey::generate(&entropy), RootKeyId::from_bytes([4; 16]));
        let name = KekName { cluster: ClusterId::from_bytes([1; 16]), domain: &domain, epoch: KekEpoch::new(3) };
        let wrapped = root.wrap_kek(&entropy, id, &name, &kek()).unwrap();
        prop_assert!(root.unwrap_kek(id, &name, &wrapped).unwrap() == kek());

        let others = [
            KekName { cluster: ClusterId::from_bytes(flipped(&[1; 16], at, mask)), ..name },
            KekName { domain: &zone, ..name },
            KekName { epoch: KekEpoch::new(3 ^ u32::from(mask)), ..name },
        ];
        for other in &others {
            let refused = matches!(root.unwrap_kek(id, other, &wrapped).err(), Some(SealError::NotAuthentic { .. }));
            prop_assert!(refused, "{:?}", other);
        }
        let other_id = RootKeyId::from_bytes(flipped(&[4; 16], at, mask));
        let refused = matches!(root.unwrap_kek(other_id, &name, &wrapped).err(), Some(SealError::OtherRoot { .. }));
        prop_assert!(refused);
        let refused = matches!(RootKey::generate(&entropy).unwrap_kek(id, &name, &wrapped).err(), Some(SealError::NotAuthentic { .. }));
        prop_assert!(refused);

        let mut changed = wrapped.as_bytes().to_vec();
        let at = at % changed.len();
        changed[at] ^= mask;
        // A changed root key id is refused whichever of the two a provider claims to hold.
        match WrappedKek::decode(&name, &changed) {
            Ok(changed) => {
                prop_assert!(root.unwrap_kek(id, &name, &changed).is_err(), "byte {}", at);
                prop_assert!(root.unwrap_kek(changed.root_key_id(), &name, &changed).is_err(), "byte {}", at);
            }
            Err(_) => prop_assert_eq!(at, 0),
        }
    }
}

proptest! {
    // X-Wing takes milliseconds without optimization.
    #![proptest_config(config(24))]
    #[test]
    fn envelope_opens_only_for_its_name_and_recipient(at in any::<usize>(), mask in 1..=255u8, seed in any::<u64>()) {
        let (entropy, domain, zone) = (SimEntropy::new(seed), KeyDomain::global(), KeyDomain::new("zone").unwrap());
        let (pair, other_pair) = (NodeKeyPair::generate(&entropy).unwrap(), NodeKeyPair::generate(&entropy).unwrap());
        let name = KekName { cluster: ClusterId::from_bytes([1; 16]), domain: &domain, epoch: KekEpoch::new(3) };
        let node = Recipient::Node(NodeId::new(0));
        let envelope = seal::seal_envelope(&entropy, &name, node, pair.public(), &kek()).unwrap();
        prop_assert!(seal::open_envelope(&name, node, &pair, &envelope).unwrap() == kek());

        let others = [
            (KekName { cluster: ClusterId::from_bytes(flipped(&[1; 16], at, mask)), ..name }, node, &pair),
            (KekName { domain: &zone, ..name }, node, &pair),
            (KekName { epoch: KekEpoch::new(3 ^ u32::from(mask)), ..name }, node, &pair),
            (name, Recipient::Node(NodeId::new(u64::from(mask))), &pair),
            (name, Recipient::Recovery, &pair),
            (name, node, &other_pair),
        ];
        for (name, recipient, pair) in &others {
            let refused = matches!(seal::open_envelope(name, *recipient, pair, &envelope).err(), Some(SealError::NotAuthentic { .. }));
            prop_assert!(refused, "{:?} {:?}", name, recipient);
        }
        let mut changed = envelope.clone();
        changed[at % envelope.len()] ^= mask;
        prop_assert!(seal::open_envelope(&name, node, &pair, &changed).is_err(), "byte {}", at % envelope.len());
        prop_assert!(seal::open_envelope(&name, node, &pair, &envelope[..at % envelope.len()]).is_err());
    }
}
