//! Three voters, clients at each of them that write and read at once, a network that cuts and loses, and power that fails.
//!
//! The oracle knows only what the clients saw. A write that was acknowledged is in every read that began later, at any node, and in
//! the log once; what was said not to have been proposed was not; and no node shows an older state after a restart than before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use openraft_rt_sim::SimRuntime;
use seams::{Entropy, sim::SimEntropy};
use types::{NodeId, Position};

use super::{
    cluster::{Cluster, VOTERS},
    commands::{account_id, create_account, create_account_once},
    rig::{Rig, simulate},
};
use crate::{ProposeError, Runtime, lock};

const CLIENTS: u64 = 6;
const ROUNDS: u64 = 3;

/// What the clients know.
#[derive(Default)]
struct Known {
    acknowledged: Vec<u64>,
    next: u64,
    reads: u64,
    unknown: u64,
}

struct Run {
    seed: u64,
    entropy: SimEntropy,
    known: Mutex<Known>,
}

impl Run {
    fn below(&self, bound: u64) -> u64 {
        self.entropy.number() % bound
    }

    fn node(&self) -> usize {
        self.below(VOTERS.len() as u64) as usize
    }

    /// Writes an account and reads, again and again.
    async fn client(&self, cluster: &Cluster) {
        loop {
            if self.below(3) == 0 {
                self.read(cluster, self.node()).await;
            } else {
                self.write(cluster).await;
            }
            SimRuntime::sleep(Duration::from_millis(self.below(10))).await;
        }
    }

    async fn read(&self, cluster: &Cluster, at: usize) {
        let before = lock(&self.known).acknowledged.clone();
        let Ok(state) = cluster.voters[at].linearizable().await else { return };
        lock(&self.known).reads += 1;
        for number in before {
            let there = state.account(account_id(number)).unwrap().is_some();
            assert!(there, "seed {}: a read at node {} misses account {number}, acknowledged before", self.seed, VOTERS[at]);
        }
    }

    async fn write(&self, cluster: &Cluster) {
        let number = {
            let mut known = lock(&self.known);
            known.next += 1;
            known.next
        };
        let once = number.is_multiple_of(2);
        let command = if once { create_account_once(number) } else { create_account(number) };
        for _ in 0..50 {
            let at = self.node();
            match cluster.voters[at].propose(command.clone()).await {
                Ok(_) => {
                    lock(&self.known).acknowledged.push(number);
                    return self.read(cluster, at).await;
                }
                Err(ProposeError::Unknown { .. }) if !once => {
                    lock(&self.known).unknown += 1;
                    return;
                }
                Err(ProposeError::Refused(refusal)) => panic!("seed {}: account {number} was taken twice: {refusal}", self.seed),
                Err(_) => SimRuntime::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Cuts the network here and there, and mends it.
    async fn faults(&self, cluster: &Cluster) {
        let nodes = cluster.nodes();
        loop {
            SimRuntime::sleep(Duration::from_millis(200 + self.below(1_500))).await;
            let (one, other) = (nodes[self.node()], nodes[self.node()]);
            match self.below(6) {
                0 => cluster.net.isolate(one, &nodes),
                1 => {
                    lock(&cluster.net.cut).insert((one, other));
                }
                2 => {
                    lock(&cluster.net.hung).insert(one);
                }
                3 => {
                    // Nobody waits for it: a node that is cut off hands over nothing.
                    let _ = SimRuntime::timeout(Duration::from_secs(1), cluster.voters[self.node()].transfer(None)).await;
                }
                _ => {
                    lock(&cluster.net.cut).clear();
                    lock(&cluster.net.hung).clear();
                }
            }
        }
    }
}

/// After a restart a node shows nothing older than before, once it says that it has recovered.
async fn recovers(seed: u64, cluster: &Cluster, shown: &BTreeMap<NodeId, Position>) {
    let each = cluster.voters.iter().zip(cluster.nodes()).map(|(voter, node)| async move {
        while voter.recovered().await.is_err() {}
        let (now, before) = (voter.local().position(), shown.get(&node).copied());
        assert!(before <= Some(now), "seed {seed}: node {node} recovered at {now}, and had shown {before:?}");
    });
    join_all(each).await;
}

fn run(seed: u64) -> Known {
    let run = Arc::new(Run { seed, entropy: SimEntropy::new(seed), known: Mutex::default() });
    let mut rigs: Vec<Rig> = VOTERS.map(|node| Rig::new(node, &VOTERS)).into();
    let (mut told, mut shown) = (BTreeMap::new(), BTreeMap::new());
    for round in 0..ROUNDS {
        let (kept, before, run) = (std::mem::take(&mut rigs), std::mem::take(&mut shown), run.clone());
        let (survivors, heard, after) = simulate(seed * 1000 + round, async {
            let cluster = Cluster::start_over(kept, run.entropy.number(), run.below(4)).await;
            cluster.net.pipelined.store(run.below(3) > 0, Ordering::Relaxed);
            let work = async {
                recovers(seed, &cluster, &before).await;
                if round == 0 {
                    assert!(cluster.write(0).await, "seed {seed}: no majority");
                }
                let clients = (0..CLIENTS).map(|_| run.client(&cluster));
                SimRuntime::select2(Box::pin(join_all(clients)), Box::pin(run.faults(&cluster))).await;
            };
            let power = SimRuntime::sleep(Duration::from_millis(2_000 + run.below(3_000)));
            SimRuntime::select2(Box::pin(power), Box::pin(work)).await;
            let after: BTreeMap<_, _> =
                cluster.nodes().into_iter().zip(cluster.voters.iter().map(|voter| voter.local().position())).collect();
            (cluster.rigs.iter().map(Rig::survivor).collect::<Vec<_>>(), cluster.heard.clone(), after)
        });
        (rigs, shown) = (survivors, after);
        for (position, hash) in heard.iter().flat_map(|heard| heard.sets()) {
            assert!(told.insert(position, hash).is_none_or(|other| other == hash), "seed {seed}: two chains at {position}");
        }
        rigs.iter().for_each(|rig| rig.crash(run.entropy.number()));
    }
    // All come back, and hold all of it.
    simulate(seed * 1000 + ROUNDS, async {
        let cluster = Cluster::start_over(rigs, run.entropy.number(), 0).await;
        recovers(seed, &cluster, &shown).await;
        for at in 0..VOTERS.len() {
            run.read(&cluster, at).await;
        }
        cluster.agree().await;
    });
    std::mem::take(&mut *lock(&run.known))
}

#[test]
fn clients_at_every_node_see_one_history_through_faults() {
    for seed in [1, 2, 3, 5, 6, 7] {
        let known = run(seed);
        assert!(known.acknowledged.len() > 50 && known.reads > 50, "seed {seed}: {} written", known.acknowledged.len());
    }
}
