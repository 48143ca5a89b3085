//! The Merkle tree of hash buckets over the propagated records; its root is the state root.
//!
//! A key's bucket is the first 12 bits of its SHA-256. A bucket's hash covers the hashes of its records in the order of keys; three
//! levels of nodes, 16 children to each, lead from 4,096 buckets to the root. A change touches one bucket and the three nodes above.
//!
//! Why 4,096: hashing for one change of 150 bytes took 1.4 us over 3,000 records, 1.5 over 30,000 and 2.7 over 300,000. 256 buckets
//! took 1.2, 3.2 and 23 us; 65,536 took 1.7, 1.7 and 1.8, but the list of bucket hashes that goes before a snapshot would be 2 MiB, not
//! 128 KiB. (Best of 20 on the two shared cores of a development machine.)
//!
//! Records are hashed as they change, buckets and nodes when somebody asks: of many change sets that are taken one after the other, only
//! the last one's root is signed or compared. [`Buckets::settle`] hashes in place; whoever asks before that has it done on a copy, once.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use types::Hash;

use crate::{
    Content, Key,
    digest::{Digest, plain},
};

/// How many buckets there are. Fixed for all time by the state root's definition.
pub const BUCKETS: u16 = 4096;
const FAN: usize = 16;

/// The bucket of a key.
pub fn bucket_of(key: &Key) -> u16 {
    let [high, low, ..] = plain(key.as_bytes());
    u16::from_be_bytes([high, low]) >> 4
}

/// The hash of a bucket with these records, which must be sorted by key.
pub fn bucket_hash<'a>(records: impl IntoIterator<Item = (&'a Key, &'a Bytes)>) -> Hash {
    hash_of_leaves(records.into_iter().map(|(key, value)| leaf(key, value)).collect::<Vec<_>>().iter())
}

/// The state root over the hashes of all buckets in order; none unless there are [`BUCKETS`] of them.
pub fn root_of_buckets(hashes: &[Hash]) -> Option<Hash> {
    if hashes.len() != usize::from(BUCKETS) {
        return None;
    }
    let up = |hashes: &[Hash]| hashes.chunks(FAN).map(node_hash).collect::<Vec<_>>();
    up(&up(&up(hashes))).first().copied()
}

/// The hash of a record, of which the bucket's is made.
pub fn leaf(key: &Key, value: &[u8]) -> Hash {
    Digest::new("cinnabar record v1").part(key.as_bytes()).part(value).end()
}

fn hash_of_leaves<'a>(leaves: impl ExactSizeIterator<Item = &'a Hash>) -> Hash {
    Digest::new("cinnabar bucket v1").part(&(leaves.len() as u32).to_be_bytes()).hashes(leaves).end()
}

fn node_hash(children: &[Hash]) -> Hash {
    Digest::new("cinnabar bucket node v1").hashes(children.iter()).end()
}

/// A bucket: keys and the hashes of their records, by rising key.
type Bucket = Vec<(Key, Hash)>;

/// A node of the tree: children and their hashes.
#[derive(Clone)]
struct Node<T> {
    children: [Arc<T>; FAN],
    hashes: [Hash; FAN],
}

impl<T> Node<T> {
    fn of(child: T, hash: Hash) -> Self {
        let child = Arc::new(child);
        Self { children: std::array::from_fn(|_| child.clone()), hashes: [hash; FAN] }
    }

    fn hash(&self) -> Hash {
        node_hash(&self.hashes)
    }
}

type Tree = Node<Node<Node<Bucket>>>;

/// The tree. A clone shares all of it.
#[derive(Clone)]
pub(super) struct Buckets {
    top: Arc<Tree>,
    /// The root before what is stale changed.
    root: Hash,
    /// The buckets that have changed and are not hashed yet, nor the nodes above them.
    stale: BTreeSet<u16>,
    /// The same tree, hashed, where somebody asked while it was stale.
    hashed: OnceLock<Arc<Self>>,
}

impl Default for Buckets {
    fn default() -> Self {
        let low = Node::of(Bucket::new(), hash_of_leaves([].iter()));
        let (low_hash, middle) = (low.hash(), low);
        let middle = Node::of(middle, low_hash);
        let middle_hash = middle.hash();
        let top = Node::of(middle, middle_hash);
        let root = top.hash();
        Self { top: Arc::new(top), root, stale: BTreeSet::new(), hashed: OnceLock::new() }
    }
}

/// The places of a bucket in the three levels of nodes.
fn path(bucket: u16) -> (usize, usize, usize) {
    let bucket = usize::from(bucket);
    (bucket >> 8, bucket >> 4 & 0xf, bucket & 0xf)
}

impl Buckets {
    pub(super) fn root(&self) -> Hash {
        self.hashed().root
    }

    pub(super) fn hashes(&self) -> Vec<Hash> {
        let middles = self.hashed().top.children.iter();
        middles.flat_map(|middle| middle.children.iter().flat_map(|low| low.hashes)).collect()
    }

    /// The keys of a range of buckets, in order.
    pub(super) fn keys(&self, range: std::ops::Range<u16>) -> impl Iterator<Item = &Key> {
        (range.start..range.end.min(BUCKETS)).flat_map(|bucket| {
            let (top, middle, low) = path(bucket);
            self.top.children[top].children[middle].children[low].iter().map(|(key, _)| key)
        })
    }

    /// This tree, or its copy in which nothing is stale.
    fn hashed(&self) -> &Self {
        if self.stale.is_empty() {
            return self;
        }
        self.hashed.get_or_init(|| {
            let mut copy = Self { hashed: OnceLock::new(), ..self.clone() };
            copy.settle();
            Arc::new(copy)
        })
    }

    /// Takes changes (a content, or none for what is gone) into their buckets, which are stale then.
    pub(super) fn change(&mut self, changes: &[(Key, Option<Content>)]) {
        if changes.is_empty() {
            return;
        }
        if let Some(hashed) = self.hashed.take() {
            *self = Arc::unwrap_or_clone(hashed);
        }
        let tree = Arc::make_mut(&mut self.top);
        for (key, content) in changes {
            let bucket = bucket_of(key);
            let (top, middle, low) = path(bucket);
            let entries = Arc::make_mut(&mut Arc::make_mut(&mut Arc::make_mut(&mut tree.children[top]).children[middle]).children[low]);
            place(entries, key, content.as_ref());
            self.stale.insert(bucket);
        }
    }

    /// Hashes each stale bucket, and each node above one, once.
    pub(super) fn settle(&mut self) {
        if let Some(hashed) = self.hashed.take() {
            *self = Arc::unwrap_or_clone(hashed);
        }
        if self.stale.is_empty() {
            return;
        }
        // Every node on these paths is unshared, unless this tree was cloned since: make_mut copies nothing more.
        let tree = Arc::make_mut(&mut self.top);
        let mut middles = BTreeSet::new();
        for bucket in std::mem::take(&mut self.stale) {
            let (top, middle, low) = path(bucket);
            let node = Arc::make_mut(&mut Arc::make_mut(&mut tree.children[top]).children[middle]);
            let bucket: &Bucket = &node.children[low];
            node.hashes[low] = hash_of_leaves(bucket.iter().map(|(_, leaf)| leaf));
            middles.insert((top, middle));
        }
        let mut tops = BTreeSet::new();
        for (top, middle) in middles {
            let node = Arc::make_mut(&mut tree.children[top]);
            node.hashes[middle] = node.children[middle].hash();
            tops.insert(top);
        }
        for top in tops {
            tree.hashes[top] = tree.children[top].hash();
        }
        self.root = tree.hash();
    }
}

fn place(entries: &mut Bucket, key: &Key, content: Option<&Content>) {
    let found = entries.binary_search_by(|(own, _)| own.cmp(key));
    match (content, found) {
        (Some(content), Ok(at)) => entries[at].1 = content.leaf(key),
        (Some(content), Err(at)) => entries.insert(at, (key.clone(), content.leaf(key))),
        (None, Ok(at)) => drop(entries.remove(at)),
        (None, Err(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(numbers: std::ops::Range<u16>, value: &'static [u8]) -> Vec<(Key, Option<Content>)> {
        numbers.map(|number| (Key::from_bytes(number.to_be_bytes()), Some(Content::Inline(Bytes::from_static(value))))).collect()
    }

    #[test]
    fn buckets_asked_while_stale_have_the_root_that_settling_gives() {
        let (mut eager, mut late, mut asked) = (Buckets::default(), Buckets::default(), Buckets::default());
        for round in 0..20 {
            let changes = changes(round * 7..round * 11 + 3, if round % 2 == 0 { b"even" } else { b"odd" });
            eager.change(&changes);
            eager.settle();
            late.change(&changes);
            asked.change(&changes);
            let before = asked.clone();
            assert_eq!(asked.root(), eager.root());
            assert_eq!(root_of_buckets(&before.hashes()), Some(eager.root()));
        }
        assert_eq!((late.stale.is_empty(), late.root()), (false, eager.root()));
        late.settle();
        assert_eq!((late.stale.is_empty(), late.root(), late.hashes()), (true, eager.root(), asked.hashes()));
        let gone: Vec<_> = changes(0..300, b"").into_iter().map(|(key, _)| (key, None)).collect();
        late.change(&gone);
        assert_eq!(late.root(), Buckets::default().root());
    }
}
