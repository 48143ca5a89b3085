//! Archives of a small cluster's state: round trip, every changed byte, forgeries.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use feed::SigningKey;
use runtime::PendingFile;
use seal::NodeKeyPair;
use seams::sim::{DiskFaults, SimDisk, SimEntropy};
use sha2::{Digest, Sha256};
use state::State;
use types::{NodeId, UnixMillis};

use super::*;

pub(crate) mod world;

use world::World;

#[test]
fn archive_round_trips_with_every_key_it_is_for() {
    let world = World::new(3);
    let bytes = world.archive();
    let checked = check(&bytes[..]).unwrap();
    assert_eq!(checked.length, bytes.len() as u64);
    assert_eq!(checked.header.recipients(), [Recipient::Node(NodeId::new(1)), Recipient::Recovery]);
    for (key, opened_as) in [(&world.node_key, Recipient::Node(NodeId::new(1))), (world.recovery.opening(), Recipient::Recovery)] {
        let opened = open(&bytes[..], key, Origin::Unproven).unwrap();
        assert_eq!(opened.opened_as, opened_as);
        let records =
            |state: &State| state.records().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec())).collect::<BTreeMap<_, _>>();
        assert_eq!(records(&opened.state), records(&world.state));
        assert_eq!(opened.contents.secrets, 3);
        assert_eq!(opened.contents.values, 3);
        assert_eq!(opened.contents.operator_tokens, 1);
        assert!(open(&bytes[..], key, Origin::Signers(opened.anchor)).is_ok());
        let other = feed::Anchor { first_signer_set: types::Hash::ZERO, recovery: None };
        assert!(matches!(open(&bytes[..], key, Origin::Signers(other)), Err(ArchiveError::Unsigned(_))));
    }
}

#[test]
fn archive_made_up_whole_by_who_knows_the_public_keys_is_believed_by_no_recovery_key() {
    let world = World::new(1);
    let public = world.recovery.public().signing;
    let bytes = world.archive();
    let opened = open(&bytes[..], world.recovery.opening(), Origin::RecoveryKey(public)).unwrap();
    assert_eq!(opened.origin, Origin::RecoveryKey(public));
    assert!(open(&bytes[..], &world.node_key, Origin::RecoveryKey(public)).is_ok(), "whatever key opens it");

    // The same cluster id, the same recovery key, and everything signed as it has to be, by a signer of the forger's own.
    for signature in [Vec::new(), world.first_set(), vec![7; 64]] {
        let forged = world.forged(signature);
        let bytes = forged.archive();
        let opened = open(&bytes[..], world.recovery.opening(), Origin::Unproven).unwrap();
        assert_eq!(opened.checked.header.cluster, world::CLUSTER, "it agrees with itself");
        assert!(matches!(open(&bytes[..], world.recovery.opening(), Origin::RecoveryKey(public)), Err(ArchiveError::Origin(_))));
        let genuine = Origin::Signers(world.anchor());
        assert!(matches!(open(&bytes[..], world.recovery.opening(), genuine), Err(ArchiveError::Unsigned(_))));
    }
}

#[test]
fn archive_hides_names_comments_and_hashes() {
    let world = World::new(3);
    let bytes = world.archive();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(world::CLUSTER.as_bytes()), "the header says whose it is");
    for hidden in [&b"SECRET-NAME"[..], b"first-operator", &world::TOKEN_HASH] {
        assert!(!holds(hidden));
    }
}

#[test]
fn archive_opens_for_no_other_key() {
    let world = World::new(0);
    let stranger = NodeKeyPair::generate(&SimEntropy::new(99)).unwrap();
    let refused = open(&world.archive()[..], &stranger, Origin::Unproven).err().unwrap();
    assert!(matches!(refused, ArchiveError::NotForThisKey { .. }));
    assert_eq!(
        refused.to_string(),
        "this key opens none of the archive's 2 envelopes (node 1, recovery key): give the recovery key, or a control node's envelope key"
    );
}

#[test]
fn archive_with_any_byte_changed_cut_or_added_is_refused_without_a_key() {
    let world = World::new(3);
    let bytes = world.archive();
    let mut parts = BTreeMap::new();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        match check(&changed[..]) {
            Err(ArchiveError::Damaged { part, .. }) => *parts.entry(part).or_insert(0) += 1,
            other => panic!("byte {at}: {other:?}"),
        }
    }
    let named: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(named, ["chunk 0", "its beginning", "its footer", "its header"]);
    for length in 0..bytes.len() {
        assert!(matches!(check(&bytes[..length]), Err(ArchiveError::Damaged { .. })), "cut to {length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(check(&longer[..]), Err(ArchiveError::Damaged { part, .. }) if part == "behind its footer"));
    assert!(matches!(check(&b"#!/bin/sh\nexit 0\n# something else"[..]), Err(ArchiveError::Other)));
}

/// What a patient attacker does: change a byte, and set right every checksum that needs no key.
fn with_checksums_set_right(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = |bytes: &mut Vec<u8>, from: usize, to: usize| {
        let crc = crc32c::crc32c(&bytes[from..to]).to_be_bytes();
        bytes[to..to + 4].copy_from_slice(&crc);
    };
    crc(&mut bytes, 0, 16);
    let header = u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
    crc(&mut bytes, 20, 20 + header + 68);
    let mut at = 20 + header + 72;
    while bytes[at] != 3 {
        let length = u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
        crc(&mut bytes, at, at + 5 + length);
        at += 9 + length;
    }
    let hash = Sha256::digest(&bytes[..at + 21]);
    bytes[at + 21..].copy_from_slice(&hash);
    bytes
}

#[test]
fn archive_forged_with_right_checksums_is_refused_with_a_key() {
    let world = World::new(1);
    let bytes = world.archive();
    let header = 20 + u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
    // The lengths of the parts are what the forger leaves alone.
    let chunk = header + 72 + 5;
    let fields = (20..20 + 196).chain([header - 1, header, header + 3, header + 4, header + 67, chunk, bytes.len() - 60]);
    for at in fields {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let forged = catch_unwind(AssertUnwindSafe(|| with_checksums_set_right(changed))).unwrap();
        assert!(open(&forged[..], &world.node_key, Origin::Unproven).is_err(), "byte {at}");
    }
}

#[test]
fn archive_signed_by_another_key_is_refused() {
    let world = World::new(1);
    let other = SigningKey::generate(&SimEntropy::new(77));
    let bytes = world.archive_signed(&other, 1);
    assert!(check(&bytes[..]).is_ok());
    assert!(matches!(open(&bytes[..], &world.node_key, Origin::Unproven), Err(ArchiveError::Unsigned(_))));
    assert!(matches!(
        open(&world.archive_signed(&world.signing, 2)[..], &world.node_key, Origin::Unproven),
        Err(ArchiveError::Unsigned(_))
    ));
}

#[test]
fn archive_of_a_newer_format_says_so() {
    let world = World::new(0);
    let mut bytes = world.archive();
    bytes[11] = 2;
    let bytes = with_checksums_set_right(bytes);
    let refused = check(&bytes[..]).unwrap_err();
    assert_eq!(refused.to_string(), "the archive has format 2, newest known here is 1: use the newer Cinnabar that wrote it");
}

#[test]
fn archive_of_many_records_has_many_chunks_in_order() {
    let world = World::new(400);
    let bytes = world.archive();
    let checked = check(&bytes[..]).unwrap();
    assert!(checked.chunks > 3, "{}", checked.chunks);
    let opened = open(&bytes[..], &world.node_key, Origin::Unproven).unwrap();
    assert_eq!(opened.contents.values, 400);
    // A chunk less, with everything set right that needs no key.
    let header = 20 + u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize + 72;
    let length = u32::from_be_bytes(bytes[header + 1..header + 5].try_into().unwrap()) as usize;
    let mut without = bytes.clone();
    without.drain(header..header + 9 + length);
    let totals = without.len() - 53;
    without[totals + 1..totals + 5].copy_from_slice(&(checked.chunks - 1).to_be_bytes());
    without[totals + 13..totals + 21].copy_from_slice(&(totals as u64).to_be_bytes());
    let without = with_checksums_set_right(without);
    assert!(check(&without[..]).is_ok());
    assert!(matches!(open(&without[..], &world.node_key, Origin::Unproven), Err(ArchiveError::Seal(_))));
}

#[test]
fn draft_before_the_cluster_or_without_a_signer_is_refused() {
    let entropy = SimEntropy::new(1);
    let identity = Identity { node: NodeId::new(1), now: UnixMillis::new(1) };
    assert!(matches!(Draft::of(State::empty(), identity, &entropy, &|_| None), Err(ArchiveError::Empty)));
    assert!(matches!(Draft::of(World::new(0).state, identity, &entropy, &|_| None), Err(ArchiveError::NoSigner)));
}

#[test]
fn archive_on_a_full_disk_leaves_the_one_before_and_no_half() {
    let world = World::new(50);
    let (disk, path) = (Arc::new(SimDisk::new()), Path::new("backups/a.cbsnap"));
    let write = || {
        let mut file = PendingFile::create_on(disk.clone(), path).map_err(ArchiveError::io("create"))?;
        world.draft(&world.signing, 1).write(&mut |bytes| file.write(&bytes).map_err(ArchiveError::io("write")))?;
        file.finish().map_err(ArchiveError::io("finish"))
    };
    write().unwrap();
    let whole = disk.read(path).unwrap();
    check(&whole[..]).unwrap();
    disk.set_faults(DiskFaults { capacity: Some(whole.len() as u64 * 3 / 2), ..DiskFaults::default() });
    assert!(matches!(write(), Err(ArchiveError::Io { operation: "write", .. })));
    assert_eq!(disk.files(), [path]);
    disk.crash(&SimEntropy::new(1));
    assert_eq!(disk.read(path).unwrap(), whole);
}

/// The bytes of format 1, as they were first written: they open for ever.
#[test]
fn archive_of_format_1_still_opens() {
    let world = World::new(2);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archive_1.cbsnap");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, world.archive()).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    let opened = open(&bytes[..], world.recovery.opening(), Origin::Unproven).unwrap();
    assert_eq!((opened.contents.secrets, opened.checked.header.position.to_string()), (2, "1.5".to_owned()));
}
