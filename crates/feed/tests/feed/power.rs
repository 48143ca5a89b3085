//! Power that goes at each step of one operation, one step after another: whatever was done by then, the edge starts and serves.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use feed::{Core, CoreOptions, CoreParts, Cut, NoKeys};
use seams::{
    Disk, DiskFile, OpenMode,
    sim::{SimDisk, SimEntropy},
};
use store::Drive;
use types::{Generation, NodeId, Position, Revision};
use wire::internal::{GenerationBegun, SnapshotEnd, SubscribeDown, subscribe_down::Message};

use crate::harness::{CLUSTER, Edge, Plane, anchor, at, batch, checkpoint, down, recovery_key, root_of, take};

/// A disk that makes so many syncs and then nothing more.
#[derive(Clone)]
struct Fading {
    disk: SimDisk,
    left: Arc<AtomicU64>,
}

impl Fading {
    fn on(&self) -> io::Result<()> {
        if self.left.load(Ordering::Relaxed) == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    /// A sync: the last that is left is still made.
    fn spend(&self) -> io::Result<()> {
        self.on()?;
        self.left.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Disk for Fading {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.on()?;
        Ok(Box::new(FadingFile { file: self.disk.open(path, mode)?, disk: self.clone() }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.on()?;
        self.disk.create_dir_all(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on()?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.on()?;
        self.disk.remove_file(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.spend()?;
        self.disk.sync_dir(folder)
    }
}

struct FadingFile {
    file: Box<dyn DiskFile>,
    disk: Fading,
}

impl DiskFile for FadingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.on()?;
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.on()?;
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.spend()?;
        self.file.sync_data()
    }
}

fn open(edge: &Edge, disk: Fading) -> Core {
    let mut options = CoreOptions::new(CLUSTER, anchor(), PathBuf::from("edge"));
    (options.drive, options.segment_bytes) = (Drive::Inline, edge.segment_bytes);
    let parts = CoreParts {
        clock: edge.clock.clone(),
        disk: Arc::new(disk),
        tables: Box::new(edge.table.clone()),
        publish: edge.seen.clone(),
        keys: Arc::new(NoKeys),
    };
    Core::open(options, parts).unwrap()
}

fn snapshot(plane: &Plane) -> Vec<SubscribeDown> {
    let cut = Cut::new(plane.propagated().clone(), plane.seal().encode(), None, 2000);
    let mut messages = vec![down(Message::SnapshotBegin(cut.begin(0)))];
    messages.extend((0..cut.chunks()).map(|index| down(Message::SnapshotChunk(cut.chunk(index).unwrap()))));
    messages.push(down(Message::SnapshotEnd(SnapshotEnd {})));
    messages
}

#[test]
fn power_lost_at_any_step_of_a_snapshots_installation_leaves_an_edge_that_serves_alone() {
    let mut plane = Plane::new();
    plane.write(20);
    let before = plane.seal();
    let known = plane.sets.clone();
    plane.write(20);
    let messages = snapshot(&plane);
    let mut installed = false;
    for syncs in 0..60 {
        let edge = Edge::new(&plane.clock);
        let disk = Fading { disk: edge.disk.clone(), left: Arc::new(AtomicU64::new(u64::MAX)) };
        let mut core = open(&edge, disk.clone());
        take(&mut core, batch(&known, Some(&before)));
        take(&mut core, checkpoint(&plane.checkpoint_of(21, crate::harness::START_MS)));
        disk.left.store(syncs, Ordering::Relaxed);
        installed |= core.handle(messages.clone()).is_ok();
        edge.crash(core, &SimEntropy::new(syncs));
        let core = edge.open();
        let served = core.published().unwrap_or_else(|| panic!("dark after {syncs} syncs"));
        assert!(served == at(21) || served == at(41), "after {syncs} syncs");
        let revision = served.revision.get() as usize;
        assert_eq!(edge.seen.root().map(|root| root_of(&root)), Some((served, plane.history[revision].state_root())));
    }
    assert!(installed, "the steps went on to the end");
}

#[test]
fn power_lost_at_any_step_of_a_new_generation_leaves_one_or_the_other_and_never_goes_back() {
    let mut plane = Plane::new();
    plane.name_recovery_key(&recovery_key());
    plane.write(20);
    let (before, known) = (plane.seal(), plane.sets.clone());
    let signed = plane.recover(12, 60, NodeId::new(2), &recovery_key());
    let new = Position::new(Generation::new(2), Revision::new(62));
    let begun = down(Message::Generation(GenerationBegun { signed_encoded: signed.encode() }));
    let messages: Vec<_> = [begun].into_iter().chain(snapshot(&plane)).collect();
    let mut installed = 0;
    for syncs in 0..60 {
        let edge = Edge::new(&plane.clock);
        let disk = Fading { disk: edge.disk.clone(), left: Arc::new(AtomicU64::new(u64::MAX)) };
        let mut core = open(&edge, disk.clone());
        take(&mut core, batch(&known, Some(&before)));
        disk.left.store(syncs, Ordering::Relaxed);
        let taken = core.handle(messages.clone()).is_ok();
        installed += u32::from(taken);
        edge.crash(core, &SimEntropy::new(syncs));
        let mut core = edge.open();
        let served = core.published().unwrap_or_else(|| panic!("dark after {syncs} syncs"));
        assert!(served == new || (served == at(22) && !taken), "{served} after {syncs} syncs");
        if served != new {
            core.handle(messages.clone()).unwrap();
        }
        assert_eq!(edge.seen.position(), Some(new), "after {syncs} syncs");
    }
    assert!((1..60).contains(&installed), "the steps went on to the end: {installed}");
}
