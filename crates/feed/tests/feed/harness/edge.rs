//! An edge: a core on a simulated disk, and a witness of all that it publishes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use feed::{Anchor, CheckpointSeen, Core, CoreOptions, CoreParts, FeedError, Handled, LARGE_VALUE_KEY, NoKeys, OpenTable, Publish, Tables};
use seams::{
    Clock, Disk, Entropy, Table, TableBatch, TableError, TableRead,
    sim::{ManualClock, SimDisk},
};
use state::Root;
use store::{Drive, SplitTable, ValueFiles, table::Visit};
use types::Position;
use wire::internal::SubscribeDown;

use super::{CLUSTER, anchor};

/// Sees what readers see, and fails the test when they would see time run backwards.
#[derive(Default)]
pub struct Seen {
    roots: Mutex<Vec<Arc<Root>>>,
    checkpoints: Mutex<Vec<CheckpointSeen>>,
}

impl Seen {
    pub fn position(&self) -> Option<Position> {
        self.root().map(|root| root.state.position())
    }

    pub fn root(&self) -> Option<Arc<Root>> {
        self.roots.lock().unwrap().last().cloned()
    }

    /// Lets go of all roots but the last.
    pub fn forget(&self) {
        let mut roots = self.roots.lock().unwrap();
        let old = roots.len().saturating_sub(1);
        roots.drain(..old);
    }

    /// All positions shown, oldest first.
    pub fn positions(&self) -> Vec<Position> {
        self.roots.lock().unwrap().iter().map(|root| root.state.position()).collect()
    }

    pub fn checkpoints(&self) -> Vec<CheckpointSeen> {
        self.checkpoints.lock().unwrap().clone()
    }

    pub fn checkpoint(&self) -> Option<CheckpointSeen> {
        self.checkpoints.lock().unwrap().last().copied()
    }
}

impl Publish for Seen {
    fn publish(&self, root: Arc<Root>) {
        for (key, content) in root.state.records() {
            assert!(content.bytes(key).is_ok(), "{key:?} of {} cannot be read as it is shown", root.state.position());
        }
        let mut roots = self.roots.lock().unwrap();
        if let Some(last) = roots.last() {
            assert!(
                root.state.position() >= last.state.position(),
                "readers saw {} and then {}",
                last.state.position(),
                root.state.position()
            );
        }
        roots.push(root);
    }

    fn checkpoint(&self, seen: CheckpointSeen) {
        self.checkpoints.lock().unwrap().push(seen);
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A table that keeps whole batches and loses in a crash what was not flushed.
#[derive(Clone, Default)]
pub struct TestTable(Arc<Mutex<TestTableInner>>);

#[derive(Default)]
struct TestTableInner {
    now: Records,
    durable: Records,
    /// States after each batch since the last flush.
    between: Vec<Records>,
    pub resets: usize,
    /// From now on nothing is written.
    fails: bool,
    /// Flushed or not, a crash may lose any number of the newest batches.
    lags: bool,
}

impl TestTable {
    pub fn crash(&self, entropy: &dyn Entropy) {
        let mut inner = self.0.lock().unwrap();
        let kept = entropy.number() as usize % (inner.between.len() + 1);
        if kept > 0 {
            inner.durable = inner.between[kept - 1].clone();
        }
        inner.now = inner.durable.clone();
        inner.between.clear();
    }

    pub fn records(&self) -> Records {
        self.0.lock().unwrap().now.clone()
    }

    /// Changes stored records behind the table's back.
    pub fn tamper(&self, change: impl FnOnce(&mut Records)) {
        let mut inner = self.0.lock().unwrap();
        change(&mut inner.now);
        inner.durable = inner.now.clone();
        inner.between.clear();
    }

    /// From now on a crash may lose what was flushed, back to any batch since the crash before: a table far behind the log.
    pub fn lag(&self) {
        self.0.lock().unwrap().lags = true;
    }

    /// From now on writes fail, until it is set aside.
    pub fn fail(&self) {
        self.0.lock().unwrap().fails = true;
    }

    /// How many large values lie in it.
    pub fn large(&self) -> usize {
        self.0.lock().unwrap().now.keys().filter(|key| key.first() == Some(&2)).count()
    }

    pub fn resets(&self) -> usize {
        self.0.lock().unwrap().resets
    }

    pub fn clear(&self) {
        self.tamper(|records| records.clear());
    }
}

struct TestReader(TestTable);

impl TableRead for TestReader {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.0.get(key)
    }
}

impl Table for TestTable {
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        self.records().iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.0.lock().unwrap().now.get(key).cloned())
    }

    fn reader(&self) -> Arc<dyn TableRead> {
        Arc::new(TestReader(self.clone()))
    }

    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError> {
        let mut inner = self.0.lock().unwrap();
        if inner.fails {
            return Err(TableError::Failed { operation: "write", source: "told to".into() });
        }
        for (key, value) in &batch.writes {
            match value {
                Some(value) => drop(inner.now.insert(key.clone(), value.clone())),
                None => drop(inner.now.remove(key)),
            }
        }
        let now = inner.now.clone();
        inner.between.push(now);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TableError> {
        let mut inner = self.0.lock().unwrap();
        if !inner.lags {
            inner.durable = inner.now.clone();
            inner.between.clear();
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

impl Tables for TestTable {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let damage = self.scan(visit).err();
        let table = if damage.is_some() { self.reset()? } else { Box::new(self.clone()) };
        Ok(OpenTable { table, damage })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        self.clear();
        let mut inner = self.0.lock().unwrap();
        (inner.resets, inner.fails) = (inner.resets + 1, false);
        drop(inner);
        Ok(Box::new(self.clone()))
    }
}

/// The table with its large values in files on the edge's disk.
struct Split {
    table: TestTable,
    disk: SimDisk,
}

impl Split {
    fn over(&self) -> SplitTable {
        SplitTable::new(Box::new(self.table.clone()), ValueFiles::new(Arc::new(self.disk.clone()), "edge/values", LARGE_VALUE_KEY))
    }
}

impl Tables for Split {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let table = self.over();
        let damage = table.scan(visit).err();
        let table = if damage.is_some() { self.reset()? } else { Box::new(table) };
        Ok(OpenTable { table, damage })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        self.table.reset()?;
        for path in self.disk.files().iter().filter(|path| path.starts_with("edge/values")) {
            self.disk.remove_file(path).unwrap();
        }
        Ok(Box::new(self.over()))
    }
}

/// The machine that an edge runs on; survives crashes of the process.
pub struct Edge {
    pub disk: SimDisk,
    pub table: TestTable,
    pub clock: Arc<ManualClock>,
    pub seen: Arc<Seen>,
    pub snapshot_every_bytes: u64,
    pub segment_bytes: u64,
    pub anchor: Anchor,
    /// Values of more bytes lie in the table.
    pub inline_bytes_max: usize,
    /// Whether large values lie in files, as they do on a real edge.
    pub files: bool,
}

impl Edge {
    pub fn new(clock: &Arc<ManualClock>) -> Self {
        Self {
            disk: SimDisk::new(),
            table: TestTable::default(),
            clock: clock.clone(),
            seen: Arc::default(),
            snapshot_every_bytes: 1 << 30,
            segment_bytes: 64 << 10,
            anchor: anchor(),
            // So small that nearly every value of a test is a large one.
            inline_bytes_max: 8,
            files: false,
        }
    }

    pub fn open(&self) -> Core {
        self.open_with(Drive::Inline)
    }

    pub fn open_with(&self, drive: Drive) -> Core {
        self.open_bounded(drive, u64::MAX)
    }

    /// With a bound on the bytes of records in memory.
    pub fn open_bounded(&self, drive: Drive, index_bytes_max: u64) -> Core {
        let mut options = CoreOptions::new(CLUSTER, self.anchor, PathBuf::from("edge"));
        options.index_bytes_max = index_bytes_max;
        options.inline_bytes_max = self.inline_bytes_max;
        options.mark_every = 4;
        options.drive = drive;
        options.segment_bytes = self.segment_bytes;
        options.snapshot_every_bytes = self.snapshot_every_bytes;
        let split = || Split { table: self.table.clone(), disk: self.disk.clone() };
        let parts = CoreParts {
            clock: self.clock.clone() as Arc<dyn Clock>,
            disk: Arc::new(self.disk.clone()),
            tables: if self.files { Box::new(split()) } else { Box::new(self.table.clone()) },
            publish: self.seen.clone(),
            keys: Arc::new(NoKeys),
        };
        Core::open(options, parts).unwrap()
    }

    /// Power off and on: what was not synced is lost in part. The witness stays: readers remember.
    pub fn crash(&self, core: Core, entropy: &dyn Entropy) {
        drop(core);
        self.disk.crash(entropy);
        self.table.crash(entropy);
    }

    /// How many large values lie on the disk.
    pub fn large(&self) -> usize {
        if self.files { self.files("edge/values").len() } else { self.table.large() }
    }

    /// Files whose path contains `part`.
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        self.disk.files().into_iter().filter(|path| path.to_string_lossy().contains(part)).collect()
    }

    /// Flips a bit where a file holds `content`.
    pub fn damage_content(&self, part: &str, content: &[u8]) {
        let place = |path: &PathBuf| self.disk.read(path)?.windows(content.len()).position(|window| window == content);
        let (path, place) = self.files(part).into_iter().find_map(|path| place(&path).map(|place| (path, place))).unwrap();
        self.disk.damage(&path, place as u64, 0x10).unwrap();
    }

    pub fn remove_files(&self, part: &str) {
        for path in self.files(part) {
            self.disk.remove_file(&path).unwrap();
        }
    }
}

/// The name of the fault that `handle` refused with.
pub fn fault_of(result: Result<Handled, FeedError>) -> &'static str {
    match result {
        Err(FeedError::Fault(fault)) => fault.name(),
        Err(other) => panic!("not a fault: {other}"),
        Ok(handled) => panic!("accepted: {handled:?}"),
    }
}

pub fn take(core: &mut Core, message: SubscribeDown) -> Handled {
    core.handle(vec![message]).unwrap()
}
