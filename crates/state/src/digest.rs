//! SHA-256 over labelled, length-prefixed parts: `len(label) label len(part) part ...`, lengths as 4 bytes, big-endian.
//!
//! The label says what kind of thing is hashed and the lengths say where parts end, so no two different inputs, of whatever
//! kinds, are the same bytes.

use sha2::{Digest as _, Sha256};
use types::Hash;

/// A hash in the making.
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn new(label: &str) -> Self {
        Self(Sha256::new()).part(label.as_bytes())
    }

    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u32).to_be_bytes());
        self.0.update(bytes);
    }

    /// Adds hashes whose number is fixed or stands in an earlier part; they are all 32 bytes long and need no prefix.
    pub(crate) fn hashes<'a>(mut self, hashes: impl Iterator<Item = &'a Hash>) -> Self {
        hashes.for_each(|hash| self.0.update(hash.as_bytes()));
        self
    }

    pub(crate) fn end(self) -> Hash {
        Hash::from_bytes(self.0.finalize().into())
    }
}

/// SHA-256 of the bytes alone, for spreading keys over buckets.
pub(crate) fn plain(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The root of a binary Merkle tree over `leaves`, shaped as in RFC 6962: the left subtree holds the largest power of two of leaves
/// that is smaller than their number. Leaves are hashes under labels of their own, so a leaf never passes for a node.
pub(crate) fn merkle(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Digest::new("cinnabar changes empty v1").end(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Digest::new("cinnabar changes node v1").hashes([merkle(left), merkle(right)].iter()).end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_parts_do_not_run_into_each_other() {
        let one = Digest::new("l").part(b"ab").part(b"c").end();
        assert_ne!(one, Digest::new("l").part(b"a").part(b"bc").end());
        assert_ne!(one, Digest::new("la").part(b"b").part(b"c").end());
        assert_eq!(one, Digest::new("l").part(b"ab").part(b"c").end());
    }

    #[test]
    fn merkle_depends_on_every_leaf_and_on_order() {
        let leaves: Vec<Hash> = (0..9).map(|n| Hash::from_bytes([n; 32])).collect();
        let root = merkle(&leaves);
        for place in 0..leaves.len() {
            let mut other = leaves.clone();
            other[place] = Hash::from_bytes([99; 32]);
            assert_ne!(merkle(&other), root);
        }
        let mut swapped = leaves.clone();
        swapped.swap(0, 8);
        assert_ne!(merkle(&swapped), root);
        assert_ne!(merkle(&leaves[..8]), root);
    }
}
