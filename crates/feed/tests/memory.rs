//! What large values take in memory, on real files and sled, in a process of its own: a test beside it would be counted too.

#![allow(unreachable_pub, dead_code, unused_imports, reason = "the harness is that of another test program, which uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test cannot go on without, fails it")]

#[path = "feed/harness/mod.rs"]
mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use feed::{CheckpointSeen, Core, CoreOptions, CoreParts, LARGE_VALUE_KEY, NoKeys, OpenTable, Publish, Tables};
use harness::{CLUSTER, CONTROL, Plane, anchor, batch, next_set, put, signing_key, take};
use runtime::RealDisk;
use seams::{Entropy, Table, TableError, sim::SimEntropy};
use state::{Content, Root};
use store::{SledOptions, ValueFiles, open_split_anew, open_split_or_set_aside, table::Visit};

const VALUES: u64 = 2000;
const VALUE_BYTES: usize = 32 << 10;
/// Values of one change set.
const RUN: u64 = 8;
/// What the process may grow by. The values are 62 MiB; sled alone, asked to keep to 8 MiB, once took more than all of them.
const GROWTH_KIB: u64 = 24 << 10;

/// The table as an edge has it.
struct Sled(PathBuf);

impl Sled {
    fn options() -> SledOptions {
        SledOptions { cache_bytes: 8 << 20, ..SledOptions::default() }
    }

    fn values(&self) -> ValueFiles {
        ValueFiles::new(Arc::new(RealDisk), self.0.join("values"), LARGE_VALUE_KEY)
    }
}

impl Tables for Sled {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let opened = open_split_or_set_aside(&self.0.join("table"), Self::options(), &self.values(), visit)?;
        Ok(OpenTable { table: Box::new(opened.table), damage: opened.set_aside.map(|aside| aside.cause) })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        panic!("the table is whole")
    }
}

/// Holds the newest root, as readers do.
#[derive(Default)]
struct Newest(Mutex<Option<Arc<Root>>>);

impl Newest {
    fn root(&self) -> Arc<Root> {
        self.0.lock().unwrap().clone().unwrap()
    }
}

impl Publish for Newest {
    fn publish(&self, root: Arc<Root>) {
        *self.0.lock().unwrap() = Some(root);
    }

    fn checkpoint(&self, _seen: CheckpointSeen) {}
}

fn open(folder: &Path, plane: &Plane) -> (Core, Arc<Newest>) {
    let newest = Arc::new(Newest::default());
    let parts = CoreParts {
        clock: plane.clock.clone(),
        disk: Arc::new(RealDisk),
        tables: Box::new(Sled(folder.to_owned())),
        publish: newest.clone(),
        keys: Arc::new(NoKeys),
    };
    // A start has one segment of the log in memory at a time: here it is small, so that what is measured are the values.
    let options = CoreOptions { segment_bytes: 2 << 20, ..CoreOptions::new(CLUSTER, anchor(), folder.join("feed")) };
    (Core::open(options, parts).unwrap(), newest)
}

/// What the process has of the machine's memory.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The most that was seen, above what there was at the beginning.
struct Growth {
    before: u64,
    most: u64,
}

impl Growth {
    fn look(&mut self) {
        self.most = self.most.max(resident_kib().saturating_sub(self.before));
    }
}

#[test]
fn large_values_take_no_memory_while_they_come_at_a_start_and_as_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::new();
    let (mut core, newest) = open(folder.path(), &plane);
    take(&mut core, batch(&plane.sets, Some(&plane.seal())));

    let mut growth = Growth { before: resident_kib(), most: 0 };
    let entropy = SimEntropy::new(1);
    for run in 0..VALUES / RUN {
        let changes = (0..RUN).map(|place| {
            let mut bytes = vec![0; VALUE_BYTES];
            entropy.fill(&mut bytes);
            put(run * RUN + place, bytes)
        });
        // Made from what the edge itself holds, so that nothing else keeps the values.
        let mut state = newest.root().state.clone();
        let set = next_set(&state, harness::START_MS, changes.collect());
        state.accept(&set).unwrap();
        let seal = signing_key().sign(state.seal_statement(CLUSTER), CONTROL, 1);
        take(&mut core, batch(&[Arc::new(set)], Some(&seal)));
        growth.look();
    }
    let held = newest.root().state.state_root();
    newest.0.lock().unwrap().take();
    core.close().unwrap();
    growth.look();
    let come = growth.most;

    let (core, newest) = open(folder.path(), &plane);
    assert!(matches!(core.base(), feed::Base::Table(_)), "{:?}", core.base());
    growth.look();
    let started = growth.most;
    let root = newest.root();
    assert_eq!(root.state.state_root(), held);
    let mut read = 0;
    for (key, content) in root.state.records() {
        if let Content::Large(_) = content {
            // Checked by its hash.
            content.bytes(key).unwrap();
            read += 1;
            growth.look();
        }
    }
    assert_eq!(read, VALUES);
    let most = growth.most;
    eprintln!("grown by at most {come} KiB while they came, {started} KiB after the start, {most} KiB when all were read");
    assert!(most < GROWTH_KIB, "{come} KiB while they came, {started} KiB after the start, {most} KiB when all were read");
}
