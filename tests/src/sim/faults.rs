//! What goes wrong in a run, and when: drawn from the seed, with the kinds that every seed must have first.

use std::time::Duration;

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, sim::SimEntropy};

use super::{World, net::Way};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    CrashVoter,
    CrashEdge(usize),
    /// The power goes in the middle of the voter's writing.
    VoterLosesPower,
    /// The power goes in the middle of an edge's writing.
    EdgeLosesPower(usize),
    RestartVoter,
    RestartEdge(usize),
    Cut(usize, Way),
    Isolate(usize),
    Sever(usize),
    LoseTable(usize),
    LoseDisk(usize),
    SetClock(usize),
    Snapshot,
    /// Everything at once, as when a whole site loses power.
    CrashAll,
}

/// Injects faults one after the other.
pub(super) struct Faults<'a> {
    world: &'a World,
    entropy: SimEntropy,
}

impl<'a> Faults<'a> {
    pub(super) fn new(world: &'a World, seed: u64) -> Self {
        Self { world, entropy: SimEntropy::new(seed) }
    }

    /// Injects for at least `least`, until `enough` has happened.
    pub(super) async fn inject(&self, least: Duration, enough: impl Fn() -> bool) {
        let begin = super::clock::elapsed();
        // What a seed must have had to count.
        for fault in [Fault::CrashVoter, Fault::CrashEdge(self.edge()), Fault::Cut(self.edge(), Way::Down), Fault::CrashEdge(self.edge())] {
            self.pause(Duration::from_secs(2)).await;
            self.strike(fault).await;
        }
        while super::clock::elapsed() < begin + least || !enough() {
            self.pause(Duration::from_secs(3)).await;
            let fault = self.next();
            self.strike(fault).await;
            self.world.still_up().await;
            if self.world.history.violation().is_some() {
                return;
            }
        }
    }

    fn next(&self) -> Fault {
        let edge = self.edge();
        match self.draw(100) {
            0..10 => Fault::CrashVoter,
            10..22 => Fault::VoterLosesPower,
            22..32 => Fault::CrashEdge(edge),
            32..46 => Fault::EdgeLosesPower(edge),
            46..51 => Fault::RestartVoter,
            51..57 => Fault::RestartEdge(edge),
            57..67 => Fault::Cut(edge, if self.draw(2) == 0 { Way::Up } else { Way::Down }),
            67..72 => Fault::Isolate(edge),
            72..79 => Fault::Sever(edge),
            79..84 => Fault::LoseTable(edge),
            84..88 => Fault::LoseDisk(edge),
            88..93 => Fault::SetClock(edge),
            93..96 => Fault::Snapshot,
            _ => Fault::CrashAll,
        }
    }

    async fn strike(&self, fault: Fault) {
        let world = self.world;
        world.history.event(format_args!("fault: {fault:?}"));
        match fault {
            Fault::CrashVoter => {
                world.history.count("voter crashes");
                world.voter.crash(&self.entropy);
                self.down().await;
                world.start_voter().await;
            }
            Fault::VoterLosesPower => {
                world.history.count("voter crashes");
                world.history.count("power lost while writing");
                world.voter.disk.lose_power_after(self.draw(60));
                self.at_the_latest(world.voter.disk.power_lost()).await;
                world.voter.crash(&self.entropy);
                if self.draw(3) == 0 {
                    // And again while it recovers.
                    world.voter.disk.lose_power_after(self.draw(12));
                    let _ = world.voter.start().await;
                    world.voter.crash(&self.entropy);
                }
                self.down().await;
                world.start_voter().await;
            }
            Fault::CrashEdge(edge) => {
                world.history.count("edge crashes");
                world.crash_edge(edge, &self.entropy);
                self.down().await;
                world.start_edge(edge).await;
            }
            Fault::EdgeLosesPower(edge) => {
                world.history.count("edge crashes");
                world.history.count("power lost while writing");
                let disk = world.edges[edge].disk();
                disk.lose_power_after(self.draw(40));
                self.at_the_latest(disk.power_lost()).await;
                world.crash_edge(edge, &self.entropy);
                if self.draw(3) == 0 {
                    world.edges[edge].disk().lose_power_after(self.draw(12));
                    let _ = world.edges[edge].start().await;
                    world.crash_edge(edge, &self.entropy);
                }
                self.down().await;
                world.start_edge(edge).await;
            }
            Fault::RestartVoter => {
                world.history.count("clean restarts");
                world.voter.stop().await;
                self.down().await;
                world.start_voter().await;
            }
            Fault::RestartEdge(edge) => {
                world.history.count("clean restarts");
                world.edges[edge].stop().await;
                self.down().await;
                world.start_edge(edge).await;
            }
            Fault::Cut(edge, way) => {
                world.history.count("cuts one way");
                world.network.cut(world.edges[edge].node, way, true);
                self.pause(Duration::from_secs(15)).await;
                world.network.cut(world.edges[edge].node, way, false);
            }
            Fault::Isolate(edge) => {
                world.history.count("isolations");
                let node = world.edges[edge].node;
                [Way::Up, Way::Down].into_iter().for_each(|way| world.network.cut(node, way, true));
                self.pause(Duration::from_secs(20)).await;
                if self.draw(2) == 0 {
                    // With the voter unreachable, the edge must come up alone.
                    world.history.count("edge crashes");
                    world.crash_edge(edge, &self.entropy);
                    world.start_edge(edge).await;
                    self.pause(Duration::from_secs(3)).await;
                }
                [Way::Up, Way::Down].into_iter().for_each(|way| world.network.cut(node, way, false));
            }
            Fault::Sever(edge) => {
                world.history.count("streams broken");
                world.network.sever(world.edges[edge].node);
            }
            Fault::LoseTable(edge) => {
                world.history.count("tables lost");
                world.crash_edge(edge, &self.entropy);
                world.edges[edge].lose_table();
                world.start_edge(edge).await;
            }
            Fault::LoseDisk(edge) => {
                world.history.count("disks lost");
                world.crash_edge(edge, &self.entropy);
                world.edges[edge].lose_disk();
                world.voter.forget(world.edges[edge].node);
                world.start_edge(edge).await;
            }
            Fault::SetClock(edge) => {
                world.history.count("clocks set");
                world.edges[edge].skew.set(self.draw(20_000) as i64 - 10_000);
            }
            Fault::Snapshot => {
                world.history.count("snapshots asked for");
                world.voter.snapshot().await;
            }
            Fault::CrashAll => {
                world.history.count("voter crashes");
                world.voter.crash(&self.entropy);
                for edge in 0..world.edges.len() {
                    world.history.count("edge crashes");
                    world.crash_edge(edge, &self.entropy);
                }
                self.down().await;
                for edge in 0..world.edges.len() {
                    world.start_edge(edge).await;
                }
                self.down().await;
                world.start_voter().await;
            }
        }
    }

    fn edge(&self) -> usize {
        self.draw(self.world.edges.len() as u64) as usize
    }

    /// How long a process stays away.
    async fn down(&self) {
        self.pause(Duration::from_secs(2)).await;
    }

    /// Waits for what may never come.
    async fn at_the_latest(&self, event: impl Future<Output = ()> + Send) {
        let longest = Duration::from_millis(1 + self.draw(3_000));
        let _ = SimRuntime::timeout(longest, event).await;
    }

    fn draw(&self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    async fn pause(&self, longest: Duration) {
        SimRuntime::sleep(Duration::from_micros(1 + self.draw(longest.as_micros() as u64))).await;
    }
}
