//! The propagated part of the state, which control and edge nodes both hold.
//!
//! A persistent ordered map of records, the [bucket tree](buckets) over them whose root is the state root, and the head of the chain
//! of change sets. [`Propagated::accept`] moves a follower by one set; `apply` moves the leader by the same one.
//!
//! **Invariants**
//! 1. The state root is a function of the records alone: the order of changes that led to them does not show.
//! 2. A set is accepted whole or refused whole.
//! 3. Readers treat what is marked as deleting as gone.
//!
//! A state that was given a place for [`LargeValues`] holds sealed values above a bound only by reference; see `large.rs`. Edges do so.
//! Control nodes hold all in memory: `apply` may not read a disk, and what they hold is bounded by quotas.
//!
//! **Concurrency**: a value like any other. A clone costs a few reference counts and shares all records.

mod accept;
mod buckets;
mod readers;

use std::sync::Arc;

use bytes::Bytes;
use types::{ChainId, Generation, Hash, Position, UnixMillis};

pub use accept::ChainError;
pub(crate) use accept::record_bytes;
pub use buckets::{BUCKETS, bucket_hash, bucket_of, leaf, root_of_buckets};
pub use readers::ReadError;
pub(crate) use readers::{decode_content, read};

use crate::{ChangeSet, Content, Key, LargeValues, Prefix, SealStatement, Signed, map::Records};

/// Where a chain of change sets ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Which chain.
    pub chain: ChainId,
    /// The position of the last set.
    pub position: Position,
    /// Its hash; [`Hash::ZERO`] before the first.
    pub hash: Hash,
    /// Its time.
    pub time: UnixMillis,
}

impl Default for ChainHead {
    /// The head of chain 0 before its first set.
    fn default() -> Self {
        Self { chain: ChainId::new(0), position: Position::default(), hash: Hash::ZERO, time: UnixMillis::new(0) }
    }
}

/// The propagated records at one position.
#[derive(Clone)]
pub struct Propagated {
    records: Records,
    buckets: buckets::Buckets,
    head: ChainHead,
    /// Where large values lie; none where all are in memory.
    place: Option<Arc<dyn LargeValues>>,
}

/// A state being made of records from a snapshot or a table.
pub struct Loading {
    state: Propagated,
    portion: Vec<(Key, Option<Content>)>,
}

/// What an edge serves: a state and the verified seal that covers it.
#[derive(Clone, Debug)]
pub struct Root {
    /// The state.
    pub state: Propagated,
    /// The seal at its position.
    pub seal: Signed<SealStatement>,
}

impl Default for Propagated {
    fn default() -> Self {
        Self::empty()
    }
}

impl Propagated {
    /// The state before the first change set, at position 0.0.
    pub fn empty() -> Self {
        Self { records: Records::default(), buckets: buckets::Buckets::default(), head: ChainHead::default(), place: None }
    }

    /// As [`Propagated::empty`], for a state whose large values are to lie in `place`.
    pub fn empty_with(place: Arc<dyn LargeValues>) -> Self {
        Self { place: Some(place), ..Self::empty() }
    }

    /// Takes records that were read from a snapshot or a table, in any order, as the state at `head`. Whether they are complete and
    /// unchanged shows in [`Propagated::state_root`], which the caller compares with a verified seal.
    pub fn from_records<C: Into<Content>>(head: ChainHead, records: impl IntoIterator<Item = (Key, C)>) -> Self {
        let mut loading = Self::empty().load();
        for (key, content) in records {
            loading.put(key, content.into());
        }
        loading.finish(head)
    }

    /// The empty state whose large values lie where those of this state do.
    pub fn emptied(&self) -> Self {
        Self { place: self.place.clone(), ..Self::empty() }
    }

    /// What this state would hold of a record.
    pub fn content(&self, key: &Key, bytes: Bytes) -> Content {
        Content::of(key, bytes, self.place.as_ref())
    }

    /// The largest value that this state holds in memory.
    pub fn inline_max(&self) -> usize {
        self.place.as_ref().map_or(usize::MAX, |place| place.bound())
    }

    /// As [`Propagated::from_records`], record by record, and large values into the place of this state, which must be empty.
    pub fn load(self) -> Loading {
        Loading { state: self, portion: Vec::new() }
    }

    /// Generation and revision.
    pub const fn position(&self) -> Position {
        self.head.position
    }

    /// The generation of the control plane that made it.
    pub const fn generation(&self) -> Generation {
        self.head.position.generation
    }

    /// The hash of the last change set.
    pub const fn chain_hash(&self) -> Hash {
        self.head.hash
    }

    /// Where the chain ends.
    pub const fn head(&self) -> ChainHead {
        self.head
    }

    /// The root of the Merkle tree over all records. After changes it is hashed here, unless [`Propagated::settle`] has done so.
    pub fn state_root(&self) -> Hash {
        self.buckets.root()
    }

    /// Hashes what has changed, in place: before a state is asked for its root, or cloned for others who are.
    pub fn settle(&mut self) {
        self.buckets.settle();
    }

    /// Bytes of memory for all keys and values, without the map around them: a value that lies elsewhere counts as
    /// [`LARGE_VALUE_WEIGHT`](crate::LARGE_VALUE_WEIGHT).
    pub const fn bytes(&self) -> u64 {
        self.records.bytes()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A record's stored bytes, or where they are.
    pub fn get(&self, key: &Key) -> Option<&Content> {
        self.records.get(key)
    }

    /// Records whose keys start with `prefix`, by rising key.
    pub fn scan<'a>(&'a self, prefix: &'a Prefix) -> impl Iterator<Item = (&'a Key, &'a Content)> {
        self.records.scan(prefix.as_bytes(), None)
    }

    /// As [`Propagated::scan`], from behind the key `after`.
    pub fn scan_after<'a>(&'a self, prefix: &'a Prefix, after: Option<&'a Key>) -> impl Iterator<Item = (&'a Key, &'a Content)> {
        self.records.scan(prefix.as_bytes(), after.map(Key::as_bytes))
    }

    /// As [`Propagated::scan`], from behind the first `skip`; and how many there were of these.
    pub(crate) fn scan_behind<'a>(&'a self, prefix: &'a Prefix, skip: usize) -> (usize, impl Iterator<Item = (&'a Key, &'a Content)>) {
        self.records.scan_behind(prefix.as_bytes(), skip)
    }

    /// All records, by rising key.
    pub fn records(&self) -> impl Iterator<Item = (&Key, &Content)> {
        self.records.iter()
    }

    /// The records of a range of buckets, in the order of buckets and then of keys: a chunk of a snapshot. With
    /// [`Propagated::bucket_hashes`], which the state root covers, each bucket can be proven by itself.
    pub fn bucket_records(&self, range: std::ops::Range<u16>) -> impl Iterator<Item = (&Key, &Content)> {
        self.buckets.keys(range).filter_map(|key| self.records.get(key).map(|value| (key, value)))
    }

    /// The hashes of all buckets, in order; [`root_of_buckets`] of them is the state root.
    pub fn bucket_hashes(&self) -> Vec<Hash> {
        self.buckets.hashes()
    }

    /// What a seal of this state says.
    pub fn seal_statement(&self, cluster: types::ClusterId) -> SealStatement {
        SealStatement {
            cluster,
            chain: self.head.chain,
            position: self.head.position,
            chain_hash: self.head.hash,
            state_root: self.state_root(),
        }
    }

    pub(crate) const fn set_head(&mut self, head: ChainHead) {
        self.head = head;
    }

    /// Takes a set that has been checked, or that `apply` has just made.
    pub(crate) fn advance(&mut self, set: &ChangeSet) {
        let place = self.place.as_ref();
        let mut large = false;
        let mut changes = Vec::with_capacity(set.changes.len());
        for change in &set.changes {
            let content = change.value.clone().map(|value| Content::of(&change.key, value, place));
            large |= matches!(content, Some(Content::Large(_)));
            changes.push((change.key.clone(), content));
        }
        if large {
            // What stays in memory must not keep the whole set there, whose bytes it shares.
            for (_, content) in &mut changes {
                if let Some(Content::Inline(bytes)) = content {
                    *bytes = Bytes::copy_from_slice(bytes);
                }
            }
        }
        self.change(changes);
        let header = &set.header;
        self.head = ChainHead { chain: header.chain, position: header.position, hash: set.hash, time: header.time };
    }

    fn change(&mut self, changes: Vec<(Key, Option<Content>)>) {
        self.buckets.change(&changes);
        for (key, content) in changes {
            self.records.set(key, content);
        }
    }
}

impl Loading {
    /// Records that are taken at once: no second copy of all records is held.
    const PORTION: usize = 65_536;

    /// Takes a record.
    pub fn put(&mut self, key: Key, content: Content) {
        let content = match content {
            Content::Inline(bytes) => Content::of(&key, bytes, self.state.place.as_ref()),
            large @ Content::Large(_) => large,
        };
        self.portion.push((key, Some(content)));
        if self.portion.len() == Self::PORTION {
            self.state.change(std::mem::take(&mut self.portion));
        }
    }

    /// The state at `head`.
    pub fn finish(mut self, head: ChainHead) -> Propagated {
        self.state.change(self.portion);
        self.state.settle();
        self.state.head = head;
        self.state
    }
}

impl std::fmt::Debug for Propagated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Propagated({}, {} records, root {})", self.head.position, self.len(), self.state_root())
    }
}
