//! Crashes at any moment and damage to any file, by seed: readers never see time run backwards, what was acknowledged is there
//! afterwards, and in the end the edge is whole.

use feed::{Core, Cut};
use proptest::prelude::*;
use seams::{Disk, Entropy, sim::SimEntropy};
use types::Position;
use wire::internal::{SnapshotEnd, SubscribeDown, subscribe_down::Message};

use crate::harness::{Edge, Plane, batch, checkpoint, down, put, root_of};

/// The messages that take a core from where it stands to `to`: the tail, or a snapshot; and the newest tick that was applied by
/// then. A `to` before the tip is a control node that lags, and vouches for old ticks.
fn catch_up(plane: &Plane, core: &Core, to: u64, snapshot: bool) -> Vec<SubscribeDown> {
    let held = core.synced().map_or(0, |synced| synced.position.revision.get());
    let mut messages = Vec::new();
    if held < to && snapshot {
        let cut = Cut::new(plane.history[to as usize].clone(), plane.seal_of(to).encode(), None, 500);
        messages.push(down(Message::SnapshotBegin(cut.begin(0))));
        messages.extend((0..cut.chunks()).map(|index| down(Message::SnapshotChunk(cut.chunk(index).unwrap()))));
        messages.push(down(Message::SnapshotEnd(SnapshotEnd {})));
    } else if held < to {
        messages.push(batch(&plane.sets[held as usize..to as usize], Some(&plane.seal_of(to))));
    }
    let ticks = plane.ticks.iter().rev();
    messages.extend(
        ticks.filter(|(revision, _)| *revision <= to).take(1).map(|(revision, time)| checkpoint(&plane.checkpoint_of(*revision, *time))),
    );
    messages
}

struct Run {
    plane: Plane,
    edge: Edge,
    entropy: SimEntropy,
    core: Option<Core>,
    acknowledged: Option<Position>,
    damaged: bool,
    /// What happened, for two runs of one seed to be compared.
    history: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let plane = Plane::new();
        let mut edge = Edge::new(&plane.clock);
        edge.snapshot_every_bytes = 2000;
        edge.segment_bytes = 16 << 10;
        let core = Some(edge.open());
        Self { plane, edge, entropy: SimEntropy::new(seed), core, acknowledged: None, damaged: false, history: Vec::new() }
    }

    fn pick(&self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    fn step(&mut self, may_damage: bool) {
        match self.pick(100) {
            0..35 => {
                let content = vec![self.pick(250) as u8; self.pick(300) as usize];
                self.plane.commit(vec![put(self.pick(30), content), put(30 + self.pick(30), "b")]);
            }
            35..62 => self.deliver(),
            62..82 => self.plane.tick(),
            82..90 => self.snapshot(),
            90..97 => self.crash(may_damage),
            _ => self.fail_a_sync(),
        }
        self.check();
    }

    fn deliver(&mut self) {
        let tip = self.plane.position().revision.get();
        let held = self.core.as_ref().and_then(Core::synced).map_or(0, |synced| synced.position.revision.get());
        let to = if self.pick(3) == 0 { held + self.pick(tip - held + 1) } else { tip };
        self.deliver_to(to.max(1), self.pick(6) == 0);
    }

    fn deliver_to(&mut self, to: u64, snapshot: bool) {
        let Some(core) = &mut self.core else { return };
        let messages = catch_up(&self.plane, core, to, snapshot);
        if let Ok(handled) = core.handle(messages)
            && let Some(synced) = handled.acknowledge
        {
            self.acknowledged = self.acknowledged.max(Some(synced.position));
        }
    }

    fn snapshot(&mut self) {
        let Some(core) = &mut self.core else { return };
        if let Some(job) = core.begin_snapshot() {
            job.run().unwrap();
            core.snapshot_written().unwrap();
        }
    }

    fn crash(&mut self, may_damage: bool) {
        if let Some(core) = self.core.take() {
            self.edge.crash(core, &self.entropy);
        }
        if may_damage && self.pick(2) == 0 {
            self.damage();
        }
        self.core = Some(self.edge.open());
        let held = self.core.as_ref().and_then(Core::synced).map(|synced| synced.position);
        if !self.damaged {
            assert!(held >= self.acknowledged, "acknowledged {:?}, held after a crash {held:?}", self.acknowledged);
            assert!(self.core.as_ref().and_then(Core::published) >= self.edge.seen.position(), "an undamaged edge shows all at once");
        }
    }

    /// Breaks one thing; the mark stays, being all that an edge has to know what it has lost.
    fn damage(&mut self) {
        self.damaged = true;
        match self.pick(4) {
            0 => self.edge.table.clear(),
            1 => self.edge.table.tamper(|records| drop(records.pop_last())),
            2 => self.edge.remove_files("edge/log/"),
            _ => {
                let files: Vec<_> = self.edge.files("edge/").into_iter().filter(|path| !path.ends_with("mark")).collect();
                let path = &files[self.pick(files.len() as u64) as usize];
                let length = self.edge.disk.open(path, seams::OpenMode::Read).unwrap().len().unwrap();
                if length > 0 {
                    self.edge.disk.damage(path, self.pick(length), 1 << self.pick(8)).unwrap();
                }
            }
        }
    }

    /// The disk fails in the middle of an append; the process starts anew.
    fn fail_a_sync(&mut self) {
        self.edge.disk.set_faults(seams::sim::DiskFaults { sync_fails: true, ..Default::default() });
        self.deliver();
        self.edge.disk.set_faults(Default::default());
        self.crash(false);
    }

    /// What is shown is the plane's state at exactly that position. (That it never goes back, the witness itself checks.)
    fn check(&mut self) {
        if let Some(root) = self.edge.seen.root() {
            let (position, state_root) = root_of(&root);
            assert_eq!(state_root, self.plane.history[position.revision.get() as usize].state_root(), "at {position}");
        }
        self.history.push(format!("{:?} {:?}", self.acknowledged, self.edge.seen.position()));
    }

    /// Faults end; a few checkpoints later everything must be whole.
    fn heal(&mut self) {
        for _ in 0..8 {
            self.plane.tick();
            self.deliver_to(self.plane.position().revision.get(), false);
        }
        assert_eq!(self.edge.seen.position(), Some(self.plane.position()));
        self.check();
    }
}

fn run(seed: u64, may_damage: bool) -> Vec<String> {
    let mut run = Run::new(seed);
    for _ in 0..120 {
        run.step(may_damage);
    }
    run.heal();
    run.history
}

/// Thirty seeds, or as many as `CINNABAR_SEEDS` says.
fn seeds(from: u64) -> std::ops::Range<u64> {
    let count = std::env::var("CINNABAR_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(30);
    from..from + count
}

#[test]
pub(crate) fn crashes_lose_nothing_that_was_acknowledged_and_readers_never_go_back() {
    for seed in seeds(0) {
        run(seed, false);
    }
}

#[test]
fn damage_of_any_file_never_takes_readers_back_and_heals() {
    for seed in seeds(1000) {
        run(seed, true);
    }
}

#[test]
fn crashes_of_one_seed_have_one_history() {
    assert_eq!(run(7, true), run(7, true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// However a chain is cut into batches, merged, repeated and interrupted by restarts: the same state.
    #[test]
    fn replay_in_any_batches_with_repeats_and_restarts_gives_the_same_state(cuts in prop::collection::vec((1_usize..6, any::<bool>(), 0_u8..4), 1..12)) {
        let mut plane = Plane::new();
        let mut seals = vec![plane.seal()];
        for _ in 0..24 {
            plane.write(1);
            seals.push(plane.seal());
        }
        let edge = Edge::new(&plane.clock);
        let mut core = edge.open();
        let mut from = 0;
        for (length, split, then) in cuts {
            let to = (from + length).min(plane.sets.len());
            if from == to {
                break;
            }
            let seal = &seals[to - 1];
            let messages = if split {
                vec![batch(&plane.sets[from..to - 1], None), batch(&plane.sets[to - 1..to], Some(seal))]
            } else {
                vec![batch(&plane.sets[from..to], Some(seal))]
            };
            let messages = messages.into_iter().filter(|message| !matches!(&message.message, Some(Message::Batch(b)) if b.change_sets_encoded.is_empty()));
            core.handle(messages.collect()).unwrap();
            from = to;
            match then {
                0 => { prop_assert!(core.handle(vec![batch(&plane.sets[..to], Some(seal))]).is_err(), "a repeat is refused"); }
                1 => { core.close().unwrap(); core = edge.open(); }
                2 => { edge.crash(core, &SimEntropy::new(to as u64)); core = edge.open(); }
                _ => {}
            }
            prop_assert_eq!(core.synced().map(|s| s.position.revision.get()), Some(to as u64));
            let expected = plane.history[to].state_root();
            prop_assert_eq!(edge.seen.root().map(|root| root.state.state_root()), Some(expected));
        }
    }
}
