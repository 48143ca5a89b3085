//! The newest change sets, kept in memory for subscribers that are only a little behind.
//!
//! A deque of change sets with dense revisions, as the encoded bytes that everyone who sends them shares; the records that a set was made
//! of are let go of, or old values would stay in memory a second time. Beside some of them
//! stands the state root that followed: only there can a seal be made, so only there can a batch end. Below the
//! window, sparse marks (revision, chain hash) are kept for ever, so that a fork is seen at any age. Where a window begins, each
//! revision up to the next of them is marked too: a control node that was restored from a copy goes on there, so there its history
//! parts from what edges hold.
//!
//! **Invariants**
//! 1. The change sets are of one chain: each names its predecessor's hash, the newest one's hash is the tip's.
//! 2. Never more change sets or bytes than the limits, except that the newest batch always stays.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use state::ChangeSet;
use types::{Generation, Hash, Position, Revision};

/// How much a window holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Bytes of encoded change sets.
    pub bytes_max: usize,
    /// Number of change sets.
    pub sets_max: usize,
    /// A mark is kept for each multiple of this revision. About 48 bytes a mark.
    pub mark_every: u64,
}

/// A mark is kept each so many revisions, by control nodes and by edges alike: 47 KB per million revisions.
pub(crate) const MARK_EVERY_REVISIONS: u64 = 1024;

/// How many runs of marks between two of those are kept: each start, from a copy perhaps, marks every revision up to the next of them.
const DENSE_RUNS_KEPT: usize = 16;

impl Default for WindowLimits {
    /// 64 MiB and 65,536 change sets: minutes of heavy writing. A mark each 1,024 revisions.
    fn default() -> Self {
        Self { bytes_max: 64 << 20, sets_max: 65_536, mark_every: MARK_EVERY_REVISIONS }
    }
}

/// What follows a position, as far as this window knows.
#[derive(Clone, Debug)]
pub enum After {
    /// The change sets that follow, up to the newest point at which a seal can be made and the byte bound allows.
    Tail(Tail),
    /// Nothing: the position is the tip.
    Current,
    /// The position is older than the window: a snapshot is needed.
    Behind,
    /// The position is newer than the tip: this node is behind, the other is not wrong.
    Ahead,
    /// The position is known here with another hash.
    Fork {
        /// The hash known here.
        ours: Hash,
    },
    /// The position is of another generation.
    OtherGeneration,
}

/// A run of change sets that ends where a seal can be made.
#[derive(Clone, Debug)]
pub struct Tail {
    /// In order, without a gap; never empty.
    pub sets: Vec<EncodedSet>,
    /// What a seal at the end covers.
    pub end: SealPoint,
}

/// A point of the chain at which a seal can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealPoint {
    /// The position.
    pub position: Position,
    /// The chain hash there.
    pub chain_hash: Hash,
    /// The state root there.
    pub state_root: Hash,
    /// The version of the signer set in force there.
    pub signer_set: u32,
}

/// A change set as it is sent.
#[derive(Clone)]
pub struct EncodedSet {
    /// Its position.
    pub position: Position,
    /// The hash of the one before.
    pub previous: Hash,
    /// Its hash.
    pub hash: Hash,
    /// Its bytes.
    pub encoded: Bytes,
}

impl From<&ChangeSet> for EncodedSet {
    fn from(set: &ChangeSet) -> Self {
        Self { position: set.header.position, previous: set.header.previous, hash: set.hash, encoded: set.encoded().clone() }
    }
}

impl fmt::Debug for EncodedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedSet({}, {} bytes)", self.position, self.encoded.len())
    }
}

struct Entry {
    set: EncodedSet,
    /// The state root and signer set version after this change set, when it was the last of an applied run.
    sealable: Option<(Hash, u32)>,
}

/// The window. Its owner holds the lock.
pub struct Window {
    limits: WindowLimits,
    entries: VecDeque<Entry>,
    bytes: usize,
    tip: SealPoint,
    marks: BTreeMap<Revision, Hash>,
    /// Up to this revision each one is marked.
    dense_until: u64,
}

impl Window {
    /// An empty window at the tip of a chain.
    pub fn new(limits: WindowLimits, tip: SealPoint) -> Self {
        let mut window = Self { limits, entries: VecDeque::new(), bytes: 0, tip, marks: BTreeMap::new(), dense_until: 0 };
        window.begin_at_tip();
        window
    }

    /// Adds what was applied; `tip` is where the state stands after the last of `sets`. Change sets that do not continue the window
    /// (a snapshot was installed in between, or consensus replays) start it anew.
    pub fn push(&mut self, sets: &[Arc<ChangeSet>], tip: SealPoint) {
        self.push_run(sets, tip, true);
    }

    /// As [`Window::push`]; whether this node may seal at the end of the run. No batch ends where it may not.
    pub fn push_run(&mut self, sets: &[Arc<ChangeSet>], tip: SealPoint, may_seal: bool) {
        let mut sets = sets;
        // A replay may overlap with what is here.
        while let Some((first, rest)) = sets.split_first() {
            if first.header.position > self.tip.position {
                break;
            }
            sets = rest;
        }
        if tip.position.generation != self.tip.position.generation {
            // Another generation's revisions name other change sets.
            self.marks.clear();
        }
        for set in sets {
            let position = set.header.position;
            if set.header.previous != self.tip.chain_hash {
                self.entries.clear();
                self.bytes = 0;
            }
            self.bytes += set.encoded().len();
            self.mark(position, set.hash);
            self.tip.position = position;
            self.tip.chain_hash = set.hash;
            self.entries.push_back(Entry { set: EncodedSet::from(&**set), sealable: None });
        }
        if tip.chain_hash != self.tip.chain_hash {
            // The state went where no change set led: it was replaced as a whole.
            self.entries.clear();
            self.bytes = 0;
            self.tip = tip;
            self.begin_at_tip();
        }
        self.tip = tip;
        if let Some(last) = self.entries.back_mut().filter(|_| may_seal) {
            last.sealable = Some((tip.state_root, tip.signer_set));
        }
        self.trim();
    }

    /// The newest mark or two at or before a position, oldest first.
    pub(crate) fn marks_until(&self, position: Position) -> Vec<(Position, Hash)> {
        let generation = position.generation;
        if generation != self.tip.position.generation {
            return Vec::new();
        }
        let every = self.limits.mark_every.max(1);
        let until = self.marks.range(..=position.revision).rev();
        // Those that all control nodes keep.
        let sparse = until.filter(|(revision, _)| revision.get().is_multiple_of(every)).take(2);
        let mut marks: Vec<_> = sparse.map(|(revision, hash)| (Position::new(generation, *revision), *hash)).collect();
        marks.reverse();
        marks
    }

    /// The newest position, and what a seal there covers.
    pub fn tip(&self) -> SealPoint {
        self.tip
    }

    /// Bytes of the change sets held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of change sets held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no change set is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The sparse marks, oldest first; to be kept across restarts by the owner.
    pub fn marks(&self) -> impl Iterator<Item = (Position, Hash)> {
        let generation = self.tip.position.generation;
        self.marks.iter().map(move |(revision, hash)| (Position::new(generation, *revision), *hash))
    }

    /// Adds marks that were kept across a restart. Those of another generation are of no use.
    pub fn restore_marks(&mut self, marks: impl IntoIterator<Item = (Position, Hash)>) {
        let tip = self.tip.position;
        let ours = marks.into_iter().filter(|(position, _)| position.generation == tip.generation && *position <= tip);
        for (position, hash) in ours {
            self.marks.entry(position.revision).or_insert(hash);
        }
    }

    /// What follows `position`, whose chain hash is `hash`; at most about `bytes_max` of it, but at least up to the first point
    /// at which a seal can be made.
    pub fn after(&self, position: Position, hash: Hash, bytes_max: usize) -> After {
        // Who holds nothing stands before the first change set, of whatever generation.
        let nothing = position.revision == Revision::new(0) && hash == Hash::ZERO;
        let position = if nothing { origin(self.tip.position.generation) } else { position };
        if position.generation != self.tip.position.generation {
            return After::OtherGeneration;
        }
        if position > self.tip.position {
            return After::Ahead;
        }
        if let Some(ours) = self.hash_at(position.revision)
            && ours != hash
        {
            return After::Fork { ours };
        }
        if position == self.tip.position {
            return After::Current;
        }
        let Some(first) = self.entries.front().map(|entry| entry.set.position.revision.get()) else {
            return After::Behind;
        };
        let Some(skip) = (position.revision.get() + 1).checked_sub(first) else {
            return After::Behind;
        };
        match self.tail(skip as usize, bytes_max) {
            Some(tail) => After::Tail(tail),
            None => After::Behind,
        }
    }

    /// Whether what follows `position` is still here.
    pub fn reaches(&self, position: Position, hash: Hash) -> bool {
        matches!(self.after(position, hash, 0), After::Tail(_) | After::Current)
    }

    fn tail(&self, skip: usize, bytes_max: usize) -> Option<Tail> {
        let (mut bytes, mut take, mut end) = (0, 0, None);
        for (place, entry) in self.entries.iter().enumerate().skip(skip) {
            bytes += entry.set.encoded.len();
            if end.is_some() && bytes > bytes_max {
                break;
            }
            if let Some((state_root, signer_set)) = entry.sealable {
                take = place + 1;
                end = Some(SealPoint { position: entry.set.position, chain_hash: entry.set.hash, state_root, signer_set });
            }
        }
        let sets = self.entries.iter().take(take).skip(skip).map(|entry| entry.set.clone()).collect();
        end.map(|end| Tail { sets, end })
    }

    /// The chain hash at a revision, as far as the window or the marks know it.
    fn hash_at(&self, revision: Revision) -> Option<Hash> {
        if revision == self.tip.position.revision {
            return Some(self.tip.chain_hash);
        }
        let in_window = self.entries.front().and_then(|front| {
            let first = front.set.position.revision.get();
            match revision.get().checked_sub(first) {
                Some(place) => self.entries.get(usize::try_from(place).ok()?).map(|entry| entry.set.hash),
                None if revision.get() + 1 == first => Some(front.set.previous),
                None => None,
            }
        });
        in_window.or_else(|| self.marks.get(&revision).copied())
    }

    fn mark(&mut self, position: Position, hash: Hash) {
        let revision = position.revision.get();
        if revision > 0 && (revision.is_multiple_of(self.limits.mark_every.max(1)) || revision <= self.dense_until) {
            self.marks.insert(position.revision, hash);
        }
    }

    /// Marks the tip and what will follow it up to the next sparse mark; of earlier such runs the oldest go.
    fn begin_at_tip(&mut self) {
        let (every, tip) = (self.limits.mark_every.max(1), self.tip.position.revision.get());
        if tip == 0 {
            // Before the first change set there is nothing to part from.
            return;
        }
        let mut runs: Vec<u64> = self.marks.keys().filter(|one| !one.get().is_multiple_of(every)).map(|one| one.get() / every).collect();
        runs.dedup();
        if let Some(oldest) = runs.len().checked_sub(DENSE_RUNS_KEPT).and_then(|gone| runs.get(gone)) {
            self.marks.retain(|one, _| one.get().is_multiple_of(every) || one.get() / every >= *oldest);
        }
        self.dense_until = (tip / every).saturating_add(1).saturating_mul(every);
        self.mark(self.tip.position, self.tip.chain_hash);
    }

    /// Cuts whole runs only, so that the window begins where a seal can be made.
    fn trim(&mut self) {
        while self.bytes > self.limits.bytes_max || self.entries.len() > self.limits.sets_max {
            // Where nothing can be sealed yet, nothing can be sent, and any place is as good as another to begin at.
            let run = self.entries.iter().position(|entry| entry.sealable.is_some()).map_or(1, |place| place + 1);
            if run >= self.entries.len() {
                break;
            }
            let cut: usize = self.entries.drain(..run).map(|entry| entry.set.encoded.len()).sum();
            self.bytes -= cut;
        }
    }
}

/// The position before the first change set of a generation.
const fn origin(generation: Generation) -> Position {
    Position::new(generation, Revision::new(0))
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
