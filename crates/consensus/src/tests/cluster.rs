//! Three voters in one thread under a seed: elections, cuts, crashes, and one history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use openraft_rt_sim::{SimInstant, SimRuntime};
use seams::{Entropy, sim::SimEntropy};
use state::{State, limits::Quota};
use types::NodeId;

use super::{
    commands::{account_id, create_account_once, init, set_quota},
    rig::{Heard, Rig, simulate},
};
use crate::{Consensus, PeerError, PeerRpc, PeerTransport, ProposeError, ReadError, Runtime, lock};

/// A network that delays, loses and cuts one way.
pub(super) struct Net {
    entropy: SimEntropy,
    voters: Mutex<BTreeMap<NodeId, Consensus>>,
    pub(super) cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Nodes that take calls and never answer, as one that is stopped does.
    pub(super) hung: Mutex<BTreeSet<NodeId>>,
    loss_percent: u64,
    /// Whether appends go out in streams, as they do over a real network.
    pub(super) pipelined: AtomicBool,
    calls: Mutex<u64>,
    /// The parts of snapshot files that went over it.
    parts: Mutex<Vec<Bytes>>,
}

/// One voter's view of the network.
struct Port {
    net: Arc<Net>,
    from: NodeId,
}

impl PeerTransport for Port {
    fn call(
        &self,
        to: NodeId,
        _address: &str,
        rpc: PeerRpc,
        request: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            *lock(&net.calls) += 1;
            if rpc == PeerRpc::Snapshot {
                lock(&net.parts).push(request.clone());
            }
            net.travel(from, to).await?;
            let peer = lock(&net.voters).get(&to).cloned().ok_or(PeerError::Unreachable { to, reason: "down".to_owned() })?;
            if lock(&net.hung).contains(&to) {
                std::future::pending::<()>().await;
            }
            let answer = peer.handle(rpc, request).await?;
            net.travel(to, from).await.map_err(|_| PeerError::Failed { to, reason: "the answer was lost".to_owned() })?;
            Ok(answer)
        })
    }

    fn pipelines(&self) -> bool {
        self.net.pipelined.load(Ordering::Relaxed)
    }

    fn appends(
        &self,
        to: NodeId,
        _address: &str,
        requests: BoxStream<'static, Bytes>,
        deadline: Duration,
    ) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let (net, from) = (self.net.clone(), self.from);
        let peer = lock(&net.voters).get(&to).cloned();
        let Some(peer) = peer else {
            let down = async move {
                let _ = net.travel(from, to).await;
                Err(PeerError::Unreachable { to, reason: "down".to_owned() })
            };
            return stream::once(down).boxed();
        };
        let there = net.clone();
        let arriving = requests.then(move |request| {
            let net = there.clone();
            async move { net.travel(from, to).await.map(|()| request) }
        });
        // The first that is lost takes the stream with it.
        let arrived =
            arriving.take_while(|request| std::future::ready(request.is_ok())).filter_map(|request| std::future::ready(request.ok()));
        let answers = peer.handle_appends(arrived.boxed()).then(move |answer| {
            let net = net.clone();
            async move {
                let back = SimRuntime::timeout(deadline, net.travel(to, from)).await;
                if back.is_ok_and(|back| back.is_ok()) {
                    answer
                } else {
                    Err(PeerError::Failed { to, reason: "the answer was lost".to_owned() })
                }
            }
        });
        let ended = async move {
            SimRuntime::sleep(Duration::from_millis(1)).await;
            Err(PeerError::Failed { to, reason: "the peer has ended the stream".to_owned() })
        };
        answers.chain(stream::once(ended)).boxed()
    }
}

impl Net {
    async fn travel(&self, from: NodeId, to: NodeId) -> Result<(), PeerError> {
        SimRuntime::sleep(Duration::from_micros(100 + self.entropy.number() % 2_000)).await;
        let lost = self.entropy.number() % 100 < self.loss_percent;
        if lost || lock(&self.cut).contains(&(from, to)) {
            Err(PeerError::Unreachable { to, reason: "cut or lost".to_owned() })
        } else {
            Ok(())
        }
    }

    /// The process is gone, for the others.
    pub(super) fn forget(&self, node: NodeId) {
        lock(&self.voters).remove(&node);
    }

    pub(super) fn isolate(&self, node: NodeId, others: &[NodeId]) {
        lock(&self.cut).extend(others.iter().filter(|other| **other != node).flat_map(|other| [(node, *other), (*other, node)]));
    }
}

pub(super) const VOTERS: [u64; 3] = [1, 2, 3];

pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    pub(super) rigs: Vec<Rig>,
    pub(super) heard: Vec<Arc<Heard>>,
    pub(super) voters: Vec<Consensus>,
}

impl Cluster {
    pub(super) async fn start(seed: u64, loss_percent: u64) -> Self {
        Self::start_over(VOTERS.map(|node| Rig::new(node, &VOTERS)).into(), seed, loss_percent).await
    }

    pub(super) async fn start_over(rigs: Vec<Rig>, seed: u64, loss_percent: u64) -> Self {
        let net = Arc::new(Net {
            entropy: SimEntropy::new(seed),
            voters: Mutex::default(),
            cut: Mutex::default(),
            hung: Mutex::default(),
            loss_percent,
            pipelined: AtomicBool::new(false),
            calls: Mutex::new(0),
            parts: Mutex::default(),
        });
        let mut cluster = Self { net, rigs, heard: Vec::new(), voters: Vec::new() };
        for index in 0..cluster.rigs.len() {
            let (heard, voter) = cluster.start_voter(index).await;
            cluster.heard.push(heard);
            cluster.voters.push(voter);
        }
        cluster
    }

    pub(super) async fn start_voter(&self, index: usize) -> (Arc<Heard>, Consensus) {
        let rig = &self.rigs[index];
        let heard = Arc::new(Heard::default());
        let port = Port { net: self.net.clone(), from: rig.node };
        let options = rig.options(heard.clone(), Arc::new(port), Arc::new(rig.skew.clone()));
        let voter = Consensus::start_on::<SimRuntime>(options).await.unwrap();
        lock(&self.net.voters).insert(rig.node, voter.clone());
        (heard, voter)
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.rigs.iter().map(|rig| rig.node).collect()
    }

    /// The voter that most others follow.
    pub(super) async fn leader(&self) -> usize {
        loop {
            let leaders: Vec<_> = self.voters.iter().filter_map(|voter| voter.status().leader).collect();
            let most = self.voters.len() / 2 + 1;
            let found = self.nodes().iter().position(|node| leaders.iter().filter(|leader| *leader == node).count() >= most);
            match found {
                Some(index) => return index,
                None => SimRuntime::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Proposes as a client does: follows the leader, and sends the same request id again when the outcome is not known.
    pub(super) async fn write(&self, number: u64) -> bool {
        let founders: Vec<u64> = self.rigs[0].voters.keys().map(|node| node.get()).collect();
        let command = if number == 0 { init(&founders) } else { create_account_once(number) };
        for attempt in 0..200 {
            let voter = &self.voters[(number as usize + attempt) % self.voters.len()];
            match voter.propose(command.clone()).await {
                Ok(_) => return true,
                // The cluster is set up once; a refusal of another round's attempt says that it is there.
                Err(ProposeError::Refused(_)) if number == 0 => return true,
                Err(ProposeError::Refused(refusal)) => panic!("account {number}: {refusal}"),
                Err(_) => SimRuntime::sleep(Duration::from_millis(50)).await,
            }
        }
        false
    }

    pub(super) async fn agree(&self) {
        self.agree_but(&[]).await;
    }

    /// Waits until all but these hold the same.
    pub(super) async fn agree_but(&self, out: &[usize]) {
        loop {
            let counted = self.voters.iter().enumerate().filter(|(index, _)| !out.contains(index));
            let states: Vec<_> = counted.map(|(_, voter)| voter.local()).collect();
            if states.windows(2).all(|pair| pair[0].position() == pair[1].position()) {
                assert!(
                    states
                        .windows(2)
                        .all(|pair| pair[0].state_root() == pair[1].state_root() && pair[0].chain_hash() == pair[1].chain_hash())
                );
                return;
            }
            SimRuntime::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Cluster {
    /// Starts one more node, which waits to be added.
    pub(super) async fn join(&mut self, node: u64) -> usize {
        self.rigs.push(Rig { voters: BTreeMap::new(), ..Rig::new(node, &[]) });
        let index = self.rigs.len() - 1;
        let (heard, voter) = self.start_voter(index).await;
        self.heard.push(heard);
        self.voters.push(voter);
        index
    }
}

/// Elections, an isolated leader, loss: one run, and a hash over all that was seen and when.
fn run(seed: u64) -> u64 {
    simulate(seed, async {
        let mut history = History::default();
        let cluster = Cluster::start(seed, 2).await;
        assert!(cluster.write(0).await);
        for number in 1..=60 {
            if number == 20 {
                let leader = cluster.leader().await;
                cluster.net.isolate(cluster.nodes()[leader], &cluster.nodes());
                history.add(leader as u64);
            }
            if number == 40 {
                lock(&cluster.net.cut).clear();
            }
            assert!(cluster.write(number).await, "seed {seed}: no majority took account {number}");
            history.add(number);
        }
        cluster.agree().await;
        let state = cluster.voters[0].local();
        for number in 1..=60 {
            assert!(state.account(account_id(number)).unwrap().is_some(), "seed {seed}: account {number} was acknowledged and is gone");
        }
        // Whoever was told of a change set at a position was told of the same one.
        let mut told = BTreeMap::new();
        for (position, hash) in cluster.heard.iter().flat_map(|heard| heard.sets()) {
            assert!(told.insert(position, hash).is_none_or(|other| other == hash), "seed {seed}: two chains");
            history.add(position.revision.get());
        }
        history.add(*lock(&cluster.net.calls));
        for byte in state.chain_hash().as_bytes() {
            history.add(u64::from(*byte));
        }
        history.0
    })
}

/// All three lose power at random moments and come back, again and again, while a client writes. Panics when something
/// acknowledged is gone, or when two voters ever heard of different change sets at one position.
pub(super) fn power_fails_again_and_again(seed: u64) {
    let entropy = SimEntropy::new(seed);
    let mut rigs: Vec<Rig> = VOTERS.map(|node| Rig::new(node, &VOTERS)).into();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut told = BTreeMap::new();
    for round in 0..5_u64 {
        let (mut heard, kept) = (Vec::new(), std::mem::take(&mut rigs));
        rigs = simulate(seed * 100 + round, async {
            let cluster = Arc::new(Cluster::start_over(kept, entropy.number(), 1).await);
            heard.clone_from(&cluster.heard);
            let writer = {
                let (cluster, acknowledged) = (cluster.clone(), acknowledged.clone());
                async move {
                    // Read first: a leader that has not yet committed in its term must not answer by what it knew before.
                    if let Ok(state) = cluster.voters[cluster.leader().await].linearizable().await {
                        for number in lock(&acknowledged).iter() {
                            assert!(
                                state.account(account_id(*number)).unwrap().is_some(),
                                "seed {seed}: account {number} was acknowledged and is gone"
                            );
                        }
                    }
                    assert!(cluster.write(0).await, "seed {seed}: no majority");
                    for step in 1..=1000 {
                        let number = round * 1000 + step;
                        if cluster.write(number).await {
                            lock(&acknowledged).push(number);
                        }
                    }
                }
            };
            let power = SimRuntime::sleep(Duration::from_millis(1_500 + entropy.number() % 3_000));
            SimRuntime::select2(power, writer).await;
            cluster.rigs.iter().map(Rig::survivor).collect()
        });
        for (position, hash) in heard.iter().flat_map(|heard| heard.sets()) {
            assert!(told.insert(position, hash).is_none_or(|other| other == hash), "seed {seed}: two chains at {position}");
        }
        rigs.iter().for_each(|rig| rig.crash(entropy.number()));
    }
    assert!(!lock(&acknowledged).is_empty(), "seed {seed}: nothing was acknowledged, so nothing was tested");
}

#[test]
fn cluster_keeps_what_it_acknowledged_when_power_fails() {
    (0..4).for_each(power_fails_again_and_again);
}

/// FNV-1a over numbers and the simulated times at which they were added.
struct History(u64);

impl Default for History {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl History {
    fn add(&mut self, number: u64) {
        let now = SimInstant::try_now().map(|now| now.elapsed_since_start().as_nanos() as u64).unwrap_or_default();
        for byte in number.to_le_bytes().into_iter().chain(now.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[test]
fn cluster_keeps_what_it_acknowledged_through_cuts_and_loss() {
    for seed in 0..4 {
        run(seed);
    }
}

#[test]
fn cluster_of_the_same_seed_has_the_same_history() {
    let first = run(11);
    assert_eq!(run(11), first);
    assert_ne!(run(12), first);
}

#[test]
pub(super) fn leader_without_majority_neither_acknowledges_nor_reads() {
    simulate(5, async {
        let cluster = Cluster::start(5, 0).await;
        assert!(cluster.write(0).await);
        let leader = cluster.leader().await;
        let (deposed, node) = (&cluster.voters[leader], cluster.nodes()[leader]);
        cluster.net.isolate(node, &cluster.nodes());
        let (read, written) = futures::join!(deposed.linearizable(), deposed.propose(create_account_once(1)));
        assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{:?}", read.err());
        let written = written.unwrap_err();
        assert!(matches!(written, ProposeError::Unavailable { .. } | ProposeError::Unknown { .. }), "{written}");
        // Meanwhile the other two have gone on, and their term was not disturbed.
        assert!(cluster.write(2).await);
        lock(&cluster.net.cut).clear();
        cluster.agree().await;
    });
}

#[test]
fn voter_far_behind_gets_a_snapshot_and_follows_on() {
    simulate(8, async {
        let mut cluster = Cluster::start(8, 0).await;
        assert!(cluster.write(0).await);
        let behind = (cluster.leader().await + 1) % 3;
        let node = cluster.nodes()[behind];
        cluster.net.isolate(node, &cluster.nodes());
        for number in 1..=120 {
            assert!(cluster.write(number).await);
        }
        let leader = &cluster.voters[cluster.leader().await];
        assert!(leader.status().purged > cluster.voters[behind].status().last_log, "the log that it would need is gone");
        lock(&cluster.net.cut).clear();
        cluster.agree().await;
        // It stands on its own feet: after a restart too.
        cluster.voters[behind].shutdown().await;
        let (_, voter) = cluster.start_voter(behind).await;
        voter.recovered().await.unwrap();
        cluster.voters[behind] = voter;
        assert!(cluster.write(121).await);
        cluster.agree().await;
    });
}

#[test]
pub(super) fn snapshot_that_is_received_takes_the_place_of_all_that_was_there() {
    simulate(10, async {
        let cluster = Cluster::start(10, 0).await;
        assert!(cluster.write(0).await && cluster.write(1).await);
        let leader = cluster.leader().await;
        // A record that control nodes alone hold, which is gone by the time of the snapshot.
        cluster.voters[leader].propose(set_quota(1, Some(Quota::default()))).await.unwrap();
        cluster.agree().await;
        let behind = (leader + 1) % 3;
        cluster.net.isolate(cluster.nodes()[behind], &cluster.nodes());
        cluster.voters[cluster.leader().await].propose(set_quota(1, None)).await.unwrap();
        for number in 2..=120 {
            assert!(cluster.write(number).await);
        }
        let leader = cluster.leader().await;
        assert!(cluster.voters[leader].status().purged > cluster.voters[behind].status().last_log, "the log that it would need is gone");
        lock(&cluster.net.cut).clear();
        let newest = cluster.voters[behind].linearizable().await.unwrap();
        assert_eq!(newest.record_count(), State::from_records(newest.records()).unwrap().record_count());
        while cluster.voters.iter().any(|voter| voter.local().applied_index() != newest.applied_index()) {
            SimRuntime::sleep(Duration::from_millis(50)).await;
            assert!(cluster.voters.iter().all(|voter| voter.local().applied_index() <= newest.applied_index()), "nobody writes");
        }
        for voter in &cluster.voters {
            assert!(voter.local().records().eq(newest.records()), "each holds the same, what control nodes alone hold included");
        }
    });
}

#[test]
fn snapshot_that_comes_twice_or_damaged_leaves_no_file_behind() {
    simulate(9, async {
        let cluster = Cluster::start(9, 0).await;
        assert!(cluster.write(0).await);
        let behind = (cluster.leader().await + 1) % 3;
        cluster.net.isolate(cluster.nodes()[behind], &cluster.nodes());
        for number in 1..=120 {
            assert!(cluster.write(number).await);
        }
        lock(&cluster.net.cut).clear();
        cluster.agree().await;
        let parts = lock(&cluster.net.parts).clone();
        let left = || -> Vec<_> {
            let files = cluster.rigs[behind].disk.files();
            files.into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "incoming")).collect()
        };
        assert!(!parts.is_empty() && left().is_empty(), "{:?}", left());
        for damaged in [false, true] {
            for part in &parts {
                let mut part = part.to_vec();
                if let Some(last) = part.last_mut().filter(|_| damaged) {
                    *last ^= 1;
                }
                let answer = cluster.voters[behind].handle(PeerRpc::Snapshot, part.into()).await;
                assert!(answer.is_ok() || damaged, "{answer:?}");
            }
            assert!(left().is_empty(), "damaged {damaged}: {:?}", left());
        }
        assert!(cluster.write(121).await, "the voter goes on");
        cluster.agree().await;
    });
}
