//! What goes wrong in a run, and when: drawn from the seed, in three lanes that go on beside each other, each with the kinds first that
//! every seed must have.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, sim::SimEntropy};
use types::NodeId;

use super::{
    World,
    edge::{Backup, Edge},
    net::Weather,
    operator::Step,
    runtime::lock,
    tamper::{Trick, tamper},
    voter::{Change, Voter},
};

/// Of a voter, or of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VoterFault {
    CrashLeader,
    Crash,
    /// The power goes in the middle of its writing, or the process alone does.
    LosePower,
    Restart,
    Transfer,
    Snapshot,
    SlowDisk,
    FullDisk,
    SetClock,
    /// Its process dies while it gets a snapshot of the leader's.
    CrashInSnapshot,
    /// Its disk is gone: another voter takes its place under a new id.
    Replace,
    /// Another voter takes its place while it works.
    Swap,
    /// All voters at once, as when a site loses power.
    CrashAll,
}

/// Of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NetFault {
    CutLeaderOneWay,
    CutPair,
    CutPairOneWay,
    IsolateLeader,
    Isolate,
    /// Two groups that hear nothing of each other.
    Split,
    CutEdge,
    CutEdgeOneWay,
    IsolateEdge,
    Sever,
    Loss,
    Slow,
}

/// Of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EdgeFault {
    Crash,
    LosePower,
    Restart,
    RestartAlone,
    LoseTable,
    LoseLog,
    LoseDisk,
    Backup,
    Restore,
    FullDisk,
    SetClock,
    Tamper,
    Revoke,
}

/// One lane.
pub(super) struct Lane<'a> {
    world: &'a World,
    entropy: SimEntropy,
    /// Whether a process that ends in the middle of its writing takes the system with it.
    kills: SimEntropy,
    until: Duration,
    enough: &'a (dyn Fn() -> bool + Sync),
}

/// How long the faults go on at most, when what must happen does not.
const LONGEST: u32 = 4;

impl<'a> Lane<'a> {
    /// A lane with randomness of its own that goes on for `least`, and then until `enough` has happened.
    pub(super) fn new(world: &'a World, seed: u64, least: Duration, enough: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let (entropy, kills) = (SimEntropy::new(seed), SimEntropy::new(seed ^ 0x9_0000));
        Self { world, entropy, kills, until: super::clock::elapsed() + least, enough }
    }

    fn over(&self, begun: Duration) -> bool {
        let now = super::clock::elapsed();
        let most = begun + (self.until - begun) * LONGEST;
        self.world.history.violation().is_some() || now >= most || now >= self.until && (self.enough)()
    }

    pub(super) async fn voters(self) {
        let begun = super::clock::elapsed();
        let mut first = [VoterFault::CrashLeader, VoterFault::LosePower].into_iter();
        while !self.over(begun) {
            self.pause(900).await;
            let fault = first.next().unwrap_or_else(|| self.next_of_voters());
            self.world.history.event(format_args!("fault: {fault:?}"));
            self.strike_voter(fault).await;
            self.world.still_up().await;
        }
    }

    pub(super) async fn network(self) {
        let begun = super::clock::elapsed();
        let mut first = [NetFault::CutPairOneWay, NetFault::IsolateLeader].into_iter();
        while !self.over(begun) {
            self.pause(900).await;
            let fault = first.next().unwrap_or_else(|| self.next_of_network());
            self.world.history.event(format_args!("fault: {fault:?}"));
            self.strike_network(fault).await;
        }
    }

    pub(super) async fn edges(self) {
        let begun = super::clock::elapsed();
        let mut backup = None;
        let mut first = [EdgeFault::Crash, EdgeFault::LosePower].into_iter();
        while !self.over(begun) {
            self.pause(700).await;
            let fault = first.next().unwrap_or_else(|| self.next_of_edges());
            let edge = self.edge();
            self.world.history.event(format_args!("fault: {fault:?} of edge {}", edge.node));
            self.strike_edge(fault, &edge, &mut backup).await;
        }
    }

    fn next_of_voters(&self) -> VoterFault {
        match self.draw(100) {
            0..14 => VoterFault::CrashLeader,
            14..24 => VoterFault::Crash,
            24..40 => VoterFault::LosePower,
            40..47 => VoterFault::Restart,
            47..54 => VoterFault::Transfer,
            54..59 if self.world.clocks_jump => VoterFault::SetClock,
            54..59 => VoterFault::Snapshot,
            59..66 => VoterFault::SlowDisk,
            66..72 => VoterFault::FullDisk,
            72..78 => VoterFault::SetClock,
            78..84 => VoterFault::CrashInSnapshot,
            84..90 => VoterFault::Replace,
            90..95 => VoterFault::Swap,
            _ => VoterFault::CrashAll,
        }
    }

    fn next_of_network(&self) -> NetFault {
        match self.draw(100) {
            0..10 => NetFault::CutLeaderOneWay,
            10..20 => NetFault::CutPair,
            20..30 => NetFault::CutPairOneWay,
            30..38 => NetFault::IsolateLeader,
            38..46 => NetFault::Isolate,
            46..54 => NetFault::Split,
            54..62 => NetFault::CutEdge,
            62..72 => NetFault::CutEdgeOneWay,
            72..78 => NetFault::IsolateEdge,
            78..86 => NetFault::Sever,
            86..94 => NetFault::Loss,
            _ => NetFault::Slow,
        }
    }

    fn next_of_edges(&self) -> EdgeFault {
        match self.draw(100) {
            0..14 => EdgeFault::Crash,
            14..34 => EdgeFault::LosePower,
            34..42 => EdgeFault::Restart,
            42..50 => EdgeFault::RestartAlone,
            50..54 => EdgeFault::LoseTable,
            54..58 => EdgeFault::LoseLog,
            58..62 => EdgeFault::LoseDisk,
            62..70 => EdgeFault::Backup,
            70..77 => EdgeFault::Restore,
            77..83 => EdgeFault::FullDisk,
            83..88 => EdgeFault::SetClock,
            88..96 => EdgeFault::Tamper,
            _ => EdgeFault::Revoke,
        }
    }

    async fn strike_voter(&self, fault: VoterFault) {
        let world = self.world;
        let running = world.fleet.running();
        let Some(somebody) = running.get(self.draw(running.len().max(1) as u64) as usize).cloned() else {
            // Only a start that is under way leaves nobody.
            return self.pause(300).await;
        };
        let leader = world.fleet.leader().map_or_else(|| somebody.clone(), |(_, leader)| leader);
        let voter = if self.draw(2) == 0 { leader.clone() } else { somebody };
        match fault {
            VoterFault::CrashLeader => self.crash(&leader).await,
            VoterFault::Crash => self.crash(&voter).await,
            VoterFault::LosePower => self.lose_power(&voter).await,
            VoterFault::Restart => {
                world.history.count("voters restarted");
                voter.stop().await;
                self.pause(600).await;
                world.start_voter(&voter).await;
            }
            VoterFault::Transfer => {
                world.history.count("leadership transfers");
                leader.transfer().await;
            }
            VoterFault::Snapshot => {
                world.history.count("snapshots asked for");
                voter.snapshot().await;
            }
            VoterFault::SlowDisk => {
                world.history.count("slow disks");
                voter.slow_disk(10 + self.draw(200) as u32);
                self.pause(1_500).await;
                voter.slow_disk(1);
            }
            VoterFault::FullDisk => {
                world.history.count("full disks");
                voter.may_stop.store(true, Ordering::Relaxed);
                voter.disk.full(true);
                self.pause(1_200).await;
                voter.disk.full(false);
            }
            VoterFault::SetClock if world.clocks_jump => {
                world.history.count("clocks set");
                voter.skew.set(self.draw(8_000) as i64 - 4_000);
                world.oracle.skewed(voter.skew.ms());
                self.pause(1_500).await;
                voter.skew.set(0);
            }
            VoterFault::SetClock => {}
            VoterFault::CrashInSnapshot => {
                let under_way = world.network.snapshot_under_way();
                let got = SimRuntime::timeout(Duration::from_millis(1_500), under_way).await;
                if let Some(voter) = got.ok().flatten().and_then(|node| world.fleet.get(node)).filter(|voter| voter.is_running()) {
                    world.history.count("crashes in a snapshot");
                    self.crash(&voter).await;
                }
            }
            VoterFault::Replace => self.replace(&voter).await,
            VoterFault::Swap => self.swap(&voter).await,
            VoterFault::CrashAll => {
                world.history.count("power cuts of all voters");
                for voter in &running {
                    world.history.count("voter crashes");
                    voter.crash(&self.entropy);
                }
                self.pause(500).await;
                for voter in running.iter().filter(|voter| !voter.is_gone()) {
                    world.start_voter(voter).await;
                }
            }
        }
    }

    async fn crash(&self, voter: &Voter) {
        self.world.history.count("voter crashes");
        voter.crash(&self.entropy);
        self.pause(800).await;
        self.world.start_voter(voter).await;
    }

    async fn lose_power(&self, voter: &Voter) {
        self.world.history.count("voter crashes");
        self.world.history.count("power lost while writing");
        voter.may_stop.store(true, Ordering::Relaxed);
        voter.disk.lose_power_after(self.draw(60));
        self.at_the_latest(voter.disk.power_lost()).await;
        if self.only_killed() {
            voter.kill(&self.entropy);
        } else {
            voter.crash(&self.entropy);
        }
        if self.draw(3) == 0 {
            // And again while it recovers.
            voter.disk.lose_power_after(self.draw(12));
            let _ = voter.start().await;
            voter.crash(&self.entropy);
        }
        self.pause(600).await;
        self.world.start_voter(voter).await;
    }

    /// One disk at a time is lost, and the next one only when all voters are whole again: more than that no cluster promises to survive.
    async fn replace(&self, voter: &Voter) {
        if !lock(&self.world.todo).is_empty() || self.world.fleet.running().len() < 3 {
            return;
        }
        self.world.history.count("voters' disks lost");
        self.world.history.count("voter crashes");
        voter.crash(&self.entropy);
        voter.leave();
        self.world.substitute(voter.node, false);
        self.pause(300).await;
    }

    async fn swap(&self, voter: &Voter) {
        if lock(&self.world.todo).is_empty() {
            self.world.history.count("voters swapped");
            self.world.substitute(voter.node, true);
        }
        self.pause(300).await;
    }

    async fn strike_network(&self, fault: NetFault) {
        let (world, network) = (self.world, &self.world.network);
        let voters: Vec<NodeId> = world.fleet.alive().iter().map(|voter| voter.node).collect();
        let one = self.of(&voters);
        let leader = world.fleet.leader().map_or(one, |(_, leader)| leader.node);
        let others: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter != one).collect();
        let other = self.of(&others);
        let edge = self.edge().node;
        let mut cuts = Vec::new();
        match fault {
            NetFault::CutLeaderOneWay => {
                let out = self.draw(2) == 0;
                let rest = voters.iter().copied().filter(|voter| *voter != leader);
                cuts.extend(rest.map(|voter| if out { (leader, voter) } else { (voter, leader) }));
            }
            NetFault::CutPair => cuts.extend([(one, other), (other, one)]),
            NetFault::CutPairOneWay => cuts.push((one, other)),
            NetFault::IsolateLeader | NetFault::Isolate => {
                let alone = if fault == NetFault::Isolate { one } else { leader };
                cuts.extend(voters.iter().filter(|voter| **voter != alone).flat_map(|voter| [(alone, *voter), (*voter, alone)]));
            }
            NetFault::Split => {
                let (left, right): (Vec<NodeId>, Vec<NodeId>) = voters.iter().partition(|_| self.draw(2) == 0);
                cuts.extend(left.iter().flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)])));
            }
            NetFault::CutEdge => cuts.extend([(edge, one), (one, edge)]),
            NetFault::CutEdgeOneWay => {
                let up = self.draw(2) == 0;
                cuts.extend(voters.iter().map(|voter| if up { (edge, *voter) } else { (*voter, edge) }));
            }
            NetFault::IsolateEdge => cuts.extend(voters.iter().flat_map(|voter| [(edge, *voter), (*voter, edge)])),
            NetFault::Sever => network.sever(edge),
            NetFault::Loss => network.weather(Weather { loss_percent: 2 + self.draw(20), slow: 0 }),
            NetFault::Slow => network.weather(Weather { loss_percent: 0, slow: 1 + self.draw(8) }),
        }
        world.history.count(match fault {
            NetFault::CutLeaderOneWay | NetFault::CutPairOneWay | NetFault::CutEdgeOneWay => "cuts one way",
            NetFault::CutPair | NetFault::Split | NetFault::CutEdge => "partial partitions",
            NetFault::IsolateLeader | NetFault::Isolate | NetFault::IsolateEdge => "isolations",
            NetFault::Sever => "streams broken",
            NetFault::Loss => "times of loss",
            NetFault::Slow => "times of delay",
        });
        cuts.iter().for_each(|(from, to)| network.cut(*from, *to, true));
        if fault != NetFault::Sever {
            self.pause(2_200).await;
        }
        cuts.iter().for_each(|(from, to)| network.cut(*from, *to, false));
        network.weather(Weather::default());
    }

    async fn strike_edge(&self, fault: EdgeFault, edge: &Arc<Edge>, backup: &mut Option<(NodeId, Backup)>) {
        let world = self.world;
        match fault {
            EdgeFault::Crash => {
                world.crash_edge(edge, &self.entropy);
                self.pause(500).await;
            }
            EdgeFault::LosePower => {
                world.history.count("power lost while writing");
                let disk = edge.disk();
                disk.lose_power_after(self.draw(40));
                self.at_the_latest(disk.power_lost()).await;
                if self.only_killed() {
                    world.fleet.note_acknowledgements();
                    edge.kill(&self.entropy);
                } else {
                    world.crash_edge(edge, &self.entropy);
                }
                if self.draw(3) == 0 {
                    edge.disk().lose_power_after(self.draw(12));
                    let _ = edge.start().await;
                    world.crash_edge(edge, &self.entropy);
                }
                self.pause(500).await;
            }
            EdgeFault::Restart => {
                world.history.count("edges restarted");
                edge.stop().await;
                self.pause(500).await;
            }
            EdgeFault::RestartAlone => {
                // With no voter in reach, the edge must come up alone.
                world.history.count("edges restarted alone");
                let voters: Vec<NodeId> = world.fleet.alive().iter().map(|voter| voter.node).collect();
                let cut = |cut| {
                    for voter in &voters {
                        world.network.cut(edge.node, *voter, cut);
                        world.network.cut(*voter, edge.node, cut);
                    }
                };
                cut(true);
                self.pause(500).await;
                world.crash_edge(edge, &self.entropy);
                world.start_edge(edge).await;
                self.pause(1_000).await;
                cut(false);
            }
            EdgeFault::LoseTable => {
                world.history.count("tables lost");
                world.crash_edge(edge, &self.entropy);
                edge.lose_table();
            }
            EdgeFault::LoseLog => {
                world.history.count("edges' logs lost");
                world.crash_edge(edge, &self.entropy);
                edge.lose_log();
                world.fleet.forget(edge.node);
            }
            EdgeFault::LoseDisk => {
                world.history.count("edges' disks lost");
                world.crash_edge(edge, &self.entropy);
                edge.lose_disk();
                world.fleet.forget(edge.node);
            }
            EdgeFault::Backup => {
                *backup = Some((edge.node, edge.backup()));
            }
            EdgeFault::Restore => {
                let Some((node, copy)) = backup.take() else { return };
                let Some(edge) = world.edges.iter().find(|edge| edge.node == node) else { return };
                world.history.count("edges restored from a backup");
                world.crash_edge(edge, &self.entropy);
                edge.restore(copy);
                world.fleet.forget(node);
                world.start_edge(edge).await;
            }
            EdgeFault::FullDisk => {
                world.history.count("full disks");
                edge.disk().full(true);
                self.pause(1_500).await;
                edge.disk().full(false);
            }
            EdgeFault::SetClock if world.clocks_jump => {
                world.history.count("clocks set");
                edge.skew.set(self.draw(8_000) as i64 - 4_000);
                world.oracle.skewed(edge.skew.ms());
            }
            EdgeFault::SetClock => {}
            EdgeFault::Tamper => {
                world.history.count("times of somebody in the middle");
                let trick = Trick::ALL[self.draw(Trick::ALL.len() as u64) as usize];
                world.network.tamper(edge.node, Some(tamper(trick, self.entropy.number(), world.history.clone())));
                self.pause(2_000).await;
                world.network.tamper(edge.node, None);
            }
            EdgeFault::Revoke => {
                let revoked = world.edges.iter().filter(|edge| edge.may_be_revoked()).count();
                if revoked == 0 && !edge.may_be_revoked() {
                    edge.revoke();
                    *lock(&world.revoke) = Some(edge.node);
                }
            }
        }
        world.start_edge(edge).await;
    }

    fn edge(&self) -> Arc<Edge> {
        self.world.edges[self.draw(self.world.edges.len() as u64) as usize].clone()
    }

    fn of(&self, nodes: &[NodeId]) -> NodeId {
        nodes.get(self.draw(nodes.len().max(1) as u64) as usize).copied().unwrap_or_default()
    }

    /// Waits for what may never come.
    async fn at_the_latest(&self, event: impl Future<Output = ()> + Send) {
        let longest = Duration::from_millis(1 + self.draw(800));
        let _ = SimRuntime::timeout(longest, event).await;
    }

    /// One time in three a process that ends while it writes was killed, and the power stays: what it wrote is seen, and is not durable yet.
    fn only_killed(&self) -> bool {
        self.kills.number().is_multiple_of(3)
    }

    fn draw(&self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    async fn pause(&self, longest_ms: u64) {
        SimRuntime::sleep(Duration::from_micros(1 + self.draw(longest_ms * 1_000))).await;
    }
}

impl World {
    /// What has to be done so that a new voter takes the place of another.
    fn substitute(&self, old: NodeId, ends: bool) {
        let new = self.one_more_voter();
        let mut todo = lock(&self.todo);
        todo.extend([Step::Start(new), Step::Register(new), Step::Sign(new)]);
        todo.extend([Change::Add(new), Change::Promote(new), Change::Remove(old)].map(Step::Change));
        if ends {
            todo.push_back(Step::End(old));
        }
    }
}
