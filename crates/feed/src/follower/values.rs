//! Where an edge's large values lie: in its table, and in memory until they have been written there.
//!
//! A value is put under the hash of its record, once, and never changed, so it can be written before the root that names it is shown, and
//! by whichever way it came: a batch, a snapshot's chunk, a snapshot file, the log. [`Values`] counts who names a value by the handles
//! that roots hold ([`state::LargeValue`]); when the last is dropped, whatever held it (a root, a snapshot being cut, a reader), the
//! bytes are removed with the next batch that goes to the table.
//!
//! **Invariants**
//! 1. A value that is named can be read: it is in memory, or was written to the table that reads go to.
//! 2. What is removed from the table is named by nobody, and the order of batches is the order of puts and removals.
//!
//! **Concurrency**: a lock held for moves in memory; reads of the table are made outside of it. Handles are dropped anywhere, also by
//! readers; only the follower's core hands over to the table.
//!
//! **Failure**: a value that cannot be read, or is not what was put, is [`Values::trouble`]: the core ends, and the next start reads the
//! whole table, finds the damage, and fills a new one from snapshot file and log. What a crash leaves in the table without a name is
//! found by the next start, and removed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use seams::{TableBatch, TableRead};
use state::{LargeValue, LargeValues, Unreadable};
use types::Hash;

/// The first byte of a large value's key in the table, greater than that of every other key; its record's hash follows. So a table may keep
/// large values apart from its records.
pub const LARGE_VALUE_KEY: u8 = 2;

/// About how many bytes of values one batch holds.
const BATCH_BYTES: usize = 1 << 20;

/// The values of one table.
pub(super) struct Values {
    bound: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Hash, Entry>,
    /// Not handed to the table's writer yet, by the number in which they came.
    fresh: BTreeMap<u64, Hash>,
    arrivals: u64,
    /// Handed over with a batch of this number, and not known to be written.
    waiting: VecDeque<(u64, Hash)>,
    /// To be removed from the table, unless they are named again by then.
    unnamed: Vec<Hash>,
    table: Option<Arc<dyn TableRead>>,
    /// Bytes of values in memory, and of those among them that are fresh.
    memory_bytes: usize,
    fresh_bytes: usize,
    trouble: Option<String>,
}

struct Entry {
    handle: Weak<LargeValue>,
    /// Until they are written to the table.
    bytes: Option<Bytes>,
    on_its_way: Way,
}

/// How far a value has come to the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Not handed over yet: the number in which it came.
    Fresh(u64),
    /// Handed over with the batch of this number; 0 for what lay in the table at start.
    Handed(u64),
    /// It lay in a table that is gone, and nowhere else.
    Lost,
}

impl Values {
    /// Values above `bound`; the table comes with [`Values::attach`].
    pub(super) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, inner: Mutex::default() })
    }

    /// From now on what is not in memory is read here.
    pub(super) fn attach(&self, table: Option<Arc<dyn TableRead>>) {
        self.lock().table = table;
    }

    /// A value that lies in the table already.
    pub(super) fn adopt(self: &Arc<Self>, leaf: Hash, len: u32) -> Arc<LargeValue> {
        self.name(leaf, len, |entry, _| entry.on_its_way = Way::Handed(0))
    }

    /// A value that lies in the table, and that nothing was found to name.
    pub(super) fn unnamed(&self, leaf: Hash) {
        self.lock().unnamed.push(leaf);
    }

    /// The next batch of fresh values for the table, which will have this number; none when there are none.
    pub(super) fn take_fresh(&self, number: u64) -> Option<TableBatch> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (mut batch, mut bytes) = (TableBatch::default(), 0);
        while bytes < BATCH_BYTES
            && let Some((_, leaf)) = inner.fresh.pop_first()
        {
            let Some(entry) = inner.entries.get_mut(&leaf) else { continue };
            let Some(value) = &entry.bytes else { continue };
            bytes += value.len();
            batch.put(table_key(&leaf), value.to_vec());
            entry.on_its_way = Way::Handed(number);
            inner.waiting.push_back((number, leaf));
        }
        inner.fresh_bytes -= bytes;
        (!batch.writes.is_empty()).then_some(batch)
    }

    /// The removal of what nobody names any more; none when there is nothing. To be written after the records that named it are gone.
    pub(super) fn take_unnamed(&self) -> Option<TableBatch> {
        let mut inner = self.lock();
        let unnamed = std::mem::take(&mut inner.unnamed);
        let mut batch = TableBatch::default();
        for leaf in unnamed.iter().filter(|leaf| !inner.entries.contains_key(leaf)) {
            batch.delete(table_key(leaf));
        }
        (!batch.writes.is_empty()).then_some(batch)
    }

    /// All batches up to this number can be read in the table.
    pub(super) fn written(&self, number: u64) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        while let Some((batch, leaf)) = inner.waiting.pop_front_if(|(batch, _)| *batch <= number) {
            if let Some(entry) = inner.entries.get_mut(&leaf).filter(|entry| entry.on_its_way == Way::Handed(batch)) {
                inner.memory_bytes -= entry.bytes.take().map_or(0, |bytes| bytes.len());
            }
        }
    }

    /// Another table, an empty one, takes the place of the one before. False when a value that is named lay there alone.
    pub(super) fn begin_anew(&self, table: Option<Arc<dyn TableRead>>) -> bool {
        let mut guard = self.lock();
        let inner = &mut *guard;
        (inner.waiting, inner.fresh, inner.unnamed, inner.table) = (VecDeque::new(), BTreeMap::new(), Vec::new(), table);
        let mut whole = true;
        for (leaf, entry) in &mut inner.entries {
            if entry.bytes.is_some() {
                inner.arrivals += 1;
                inner.fresh.insert(inner.arrivals, *leaf);
                entry.on_its_way = Way::Fresh(inner.arrivals);
            } else {
                entry.on_its_way = Way::Lost;
                whole = false;
            }
        }
        inner.fresh_bytes = inner.memory_bytes;
        whole
    }

    /// Bytes of values that are in memory, because they are not written yet, or because there is no table.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.lock().memory_bytes as u64
    }

    /// Bytes of values that were not handed over yet.
    pub(super) fn fresh_bytes(&self) -> usize {
        self.lock().fresh_bytes
    }

    /// What went wrong with a read, if anything did: the table cannot be trusted any more.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// The handle of a value, the one that lives or a new one; `fill` completes an entry that has nothing of it yet.
    fn name(self: &Arc<Self>, leaf: Hash, len: u32, fill: impl FnOnce(&mut Entry, &mut Inner)) -> Arc<LargeValue> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let entry = inner.entries.remove(&leaf);
        // None also while the last handle is being dropped at this moment: what the entry says stays true.
        let lives = entry.as_ref().and_then(|entry| entry.handle.upgrade());
        let handle = lives.unwrap_or_else(|| LargeValue::new(self.clone(), leaf, len));
        let mut entry = entry.unwrap_or_else(|| Entry { handle: Weak::new(), bytes: None, on_its_way: Way::Lost });
        entry.handle = Arc::downgrade(&handle);
        if entry.on_its_way == Way::Lost {
            fill(&mut entry, inner);
        }
        inner.entries.insert(leaf, entry);
        handle
    }

    fn trouble_is(&self, detail: String) -> Unreadable {
        metrics::counter!("cinnabar_feed_damaged_total", "what" => "value").increment(1);
        tracing::error!(detail, "a large value cannot be read from the table: the table is rebuilt");
        self.lock().trouble.get_or_insert_with(|| detail.clone());
        Unreadable { detail }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LargeValues for Values {
    fn bound(&self) -> usize {
        self.bound
    }

    fn keep(self: Arc<Self>, leaf: Hash, bytes: Bytes) -> Arc<LargeValue> {
        self.name(leaf, u32::try_from(bytes.len()).unwrap_or(u32::MAX), |entry, inner| {
            inner.memory_bytes += bytes.len();
            inner.fresh_bytes += bytes.len();
            inner.arrivals += 1;
            inner.fresh.insert(inner.arrivals, leaf);
            (entry.bytes, entry.on_its_way) = (Some(bytes), Way::Fresh(inner.arrivals));
        })
    }

    fn read(&self, leaf: &Hash) -> Result<Bytes, Unreadable> {
        let table = {
            let inner = self.lock();
            match inner.entries.get(leaf).and_then(|entry| entry.bytes.as_ref()) {
                Some(bytes) => return Ok(bytes.clone()),
                None => inner.table.clone(),
            }
        };
        let Some(table) = table else { return Err(Unreadable { detail: "the table is closed".to_owned() }) };
        match table.get(&table_key(leaf)) {
            Ok(Some(bytes)) => Ok(Bytes::from(bytes)),
            Ok(None) => Err(self.trouble_is("it is not in the table".to_owned())),
            Err(error) => Err(self.trouble_is(error.to_string())),
        }
    }

    fn damaged(&self, _leaf: &Hash) {
        self.trouble_is("its bytes in the table are not those that were written".to_owned());
    }

    fn released(&self, leaf: &Hash) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        // It may have been named anew since its last handle was dropped.
        if inner.entries.get(leaf).is_none_or(|entry| entry.handle.strong_count() > 0) {
            return;
        }
        let Some(entry) = inner.entries.remove(leaf) else { return };
        let bytes = entry.bytes.map_or(0, |bytes| bytes.len());
        inner.memory_bytes -= bytes;
        match entry.on_its_way {
            Way::Fresh(arrival) => {
                inner.fresh.remove(&arrival);
                inner.fresh_bytes -= bytes;
            }
            Way::Handed(_) => inner.unnamed.push(*leaf),
            Way::Lost => {}
        }
    }
}

/// Where a value lies in the table.
pub(super) fn table_key(leaf: &Hash) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + leaf.as_bytes().len());
    key.push(LARGE_VALUE_KEY);
    key.extend_from_slice(leaf.as_bytes());
    key
}

#[cfg(test)]
mod tests;
