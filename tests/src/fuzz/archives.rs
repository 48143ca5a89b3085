//! What `control` reads of an archive that `snapshot save` wrote: its outside without a key, and with one what is sealed inside.

use std::sync::OnceLock;

use control::snapshots;
use seal::{ArchiveKey, ArchiveSealer, RecoveryKey};
use seams::sim::SimEntropy;
use sha2::{Digest, Sha256};

use super::{
    Seen, Target,
    replicated::{CLUSTER, history},
};

pub(super) const TARGETS: &[Target] = &[
    Target::new("archive", &["control/src/snapshots/format.rs", "control/src/snapshots/read.rs"], || vec![archive(&[record()])], outside)
        .repaired(repair)
        .up_to(8 << 10, 4 << 20),
    Target::new("archive_content", &["control/src/snapshots/format.rs", "control/src/snapshots/verify.rs"], contents, inside)
        .up_to(8 << 10, 4 << 20),
];

const ID: [u8; 16] = [4; 16];

fn recovery() -> &'static (RecoveryKey, ArchiveKey, Vec<u8>) {
    static KEYS: OnceLock<(RecoveryKey, ArchiveKey, Vec<u8>)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let entropy = SimEntropy::new(3);
        let (recovery, key) = (RecoveryKey::generate(&entropy).expect("a key"), ArchiveKey::generate(&entropy));
        let envelope = seal::seal_archive_key(&entropy, CLUSTER, ID, seal::Recipient::Recovery, &recovery.public().opening, &key);
        (recovery, key, envelope.expect("sealed"))
    })
}

/// A record as it lies in a chunk: length of key 4, length of value 4, key, value; numbers big-endian.
fn record() -> Vec<u8> {
    in_chunk(b"\x01key", b"value")
}

fn in_chunk(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_be_bytes()[..], &(value.len() as u32).to_be_bytes(), key, value].concat()
}

/// Header as the format's header says: what nobody fuzzes here is zero.
fn header() -> Vec<u8> {
    let envelope = &recovery().2;
    let mut bytes = [&ID[..], CLUSTER.as_bytes(), &[0; 8 + 4 + 12 + 32 + 32 + 8 + 8 + 4 + 8 + 8 + 32]].concat();
    bytes.extend_from_slice(&1_u64.to_be_bytes());
    bytes.extend_from_slice(&[4, b't', b'e', b's', b't', 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&(envelope.len() as u16).to_be_bytes());
    bytes.extend_from_slice(envelope);
    bytes
}

/// An archive of these chunks, all but its signature as it should be.
fn archive(chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = header();
    let mut bytes = [&b"CBARCHIV"[..], &1_u32.to_be_bytes(), &(header.len() as u32).to_be_bytes()].concat();
    crc(&mut bytes, 0);
    bytes.extend_from_slice(&header);
    let mut sealer = ArchiveSealer::new(&recovery().1, Sha256::digest(&bytes).into());
    let after_prefix = bytes.len() - header.len();
    bytes.extend_from_slice(&[0; 68]);
    crc(&mut bytes, after_prefix);
    for (number, chunk) in chunks.iter().enumerate() {
        let (at, last, mut sealed) = (bytes.len(), number + 1 == chunks.len(), Vec::new());
        sealer.seal(last, chunk, &mut sealed).expect("sealed");
        bytes.push(if last { 2 } else { 1 });
        bytes.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&sealed);
        crc(&mut bytes, at);
    }
    let length = bytes.len() as u64;
    bytes.push(3);
    bytes.extend_from_slice(&(chunks.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&0_u64.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

/// Adds the CRC of what stands from `from` on.
fn crc(bytes: &mut Vec<u8>, from: usize) {
    let crc = crc32c::crc32c(&bytes[from..]);
    bytes.extend_from_slice(&crc.to_be_bytes());
}

fn outside(bytes: &[u8]) -> Seen {
    let checked = match snapshots::check(bytes) {
        Ok(checked) => checked,
        Err(error) => return Seen::Refused(error.to_string()),
    };
    assert_eq!(checked.length, bytes.len() as u64, "an archive is its whole file");
    match snapshots::open(bytes, recovery().0.opening(), snapshots::Origin::Unproven) {
        Ok(_) => panic!("an archive that nobody has signed is taken"),
        Err(error) => Seen::Read(format!("{} chunks; {error}", checked.chunks)),
    }
}

/// The prefix, the header with what is signed, each chunk, the footer: all as they say they are.
fn repair(input: &mut [u8]) {
    let put = |bytes: &mut [u8], from: usize, at: usize| {
        if at >= from && at + 4 <= bytes.len() {
            let crc = crc32c::crc32c(&bytes[from..at]);
            bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
        }
    };
    let length = |bytes: &[u8], at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |length| u32::from_be_bytes(*length));
    put(input, 0, 16);
    let header = length(input, 12) as usize;
    put(input, 20, 20_usize.saturating_add(header).saturating_add(68));
    let mut at = 20_usize.saturating_add(header).saturating_add(72);
    while matches!(input.get(at), Some(1 | 2)) {
        let end = at.saturating_add(5).saturating_add(length(input, at + 1) as usize);
        put(input, at, end);
        at = end.saturating_add(4);
    }
    if input.get(at) == Some(&3) && at + 53 <= input.len() {
        input[at + 13..at + 21].copy_from_slice(&(at as u64).to_be_bytes());
        let hash = Sha256::digest(&input[..at + 21]);
        input[at + 21..at + 53].copy_from_slice(&hash);
    }
}

fn contents() -> Vec<Vec<u8>> {
    let mut chunk = Vec::new();
    for (number, set) in (1_u8..4).zip(&history().change_sets) {
        chunk.extend_from_slice(&in_chunk(&[number], &set[..40]));
    }
    vec![record(), chunk]
}

fn inside(bytes: &[u8]) -> Seen {
    let archive = archive(&[bytes.to_vec()]);
    match snapshots::open(&archive[..], recovery().0.opening(), snapshots::Origin::Unproven) {
        Ok(_) => panic!("an archive that nobody has signed is taken"),
        // The hash of all records cannot be right; to come that far is to have been read.
        Err(error @ snapshots::ArchiveError::Differs { what: "count of records" }) => Seen::Read(error.to_string()),
        Err(error) => Seen::Refused(error.to_string()),
    }
}
