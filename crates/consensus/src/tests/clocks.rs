//! Clocks that step while a cluster runs: log time stays with the majority's, leadership leaves a wrong one, and writes go on.

use std::time::Duration;

use futures::future::{Either, select};
use openraft_rt_sim::SimRuntime;
use seams::{Clock, Entropy, sim::SimEntropy};
use types::UnixMillis;

use super::{
    cluster::{Cluster, VOTERS},
    commands::{create_account, create_account_once, init},
    rig::{Rig, SimClock, simulate},
};
use crate::{ClockStanding, Consensus, Runtime, lock};

const HOUR: i64 = 3_600_000;
const WEEK: i64 = 7 * 24 * HOUR;
const YEAR: i64 = 365 * 24 * HOUR;
const STEPS: [i64; 4] = [HOUR, -HOUR, YEAR, -YEAR];

/// Log time may be ahead of the middle of the voters' clocks by what two clocks may be apart, and half of the longest way.
const AHEAD_MAX_MS: u64 = 1_003;
/// And behind it by an election, and the second between two ticks.
const BEHIND_MAX_MS: u64 = 5_000;

/// The middle one of the voters' clocks.
fn middle(cluster: &Cluster) -> UnixMillis {
    let mut shown: Vec<UnixMillis> = cluster.rigs.iter().map(|rig| rig.skew.wall()).collect();
    shown.sort_unstable();
    shown[shown.len() / 2]
}

/// Looks at log time all the while.
async fn watched<T>(cluster: &Cluster, behind_max_ms: u64, run: impl Future<Output = T>) -> T {
    let watch = async {
        loop {
            let middle = middle(cluster).get();
            let times = cluster.voters.iter().map(|voter| voter.local().last_time().get());
            let newest = times.max().unwrap();
            assert!(newest <= middle + AHEAD_MAX_MS, "log time is {} ms ahead", newest - middle);
            assert!(newest == 0 || newest + behind_max_ms >= middle, "log time is {} ms behind", middle - newest);
            SimRuntime::sleep(Duration::from_millis(10)).await;
        }
    };
    match select(Box::pin(watch), Box::pin(run)).await {
        Either::Left(((), _)) => unreachable!("it watches for ever"),
        Either::Right((done, _)) => done,
    }
}

/// Waits for something that takes at most so many seconds.
async fn within(seconds: u64, what: &str, mut so: impl AsyncFnMut() -> bool) {
    let late = SimClock.monotonic() + Duration::from_secs(seconds);
    while !so().await {
        assert!(SimClock.monotonic() < late, "{what}: not within {seconds} s");
        SimRuntime::sleep(Duration::from_millis(20)).await;
    }
}

async fn leads(cluster: &Cluster, index: usize) -> bool {
    cluster.leader().await == index
}

fn standing(voter: &Consensus) -> ClockStanding {
    voter.clocks().standing
}

async fn leader_steps(seed: u64, step: i64) {
    let cluster = Cluster::start(seed, 1).await;
    assert!(cluster.write(0).await);
    watched(&cluster, BEHIND_MAX_MS, async {
        let wrong = cluster.leader().await;
        let (node, voter) = (cluster.nodes()[wrong], &cluster.voters[wrong]);
        within(5, "the clocks are known", async || cluster.voters.iter().all(|voter| standing(voter) == ClockStanding::Agrees)).await;
        cluster.rigs[wrong].skew.set(step);
        for number in 1..=20 {
            assert!(cluster.write(number).await, "writes go on");
        }
        within(10, "leadership leaves it", async || !leads(&cluster, wrong).await).await;
        assert!(matches!(standing(voter), ClockStanding::Differs { ahead_ms } if ahead_ms.abs_diff(step) < 10), "{:?}", standing(voter));
        let others = cluster.voters.iter().filter(|other| !std::ptr::eq(*other, voter));
        // With an answer lost, a right clock and the wrong one are a split for a second.
        within(5, "the others are right", async || others.clone().all(|other| standing(other) == ClockStanding::Agrees)).await;
        within(5, "the others know of it", async || {
            others.clone().all(|other| other.clocks().ahead_ms.iter().any(|row| row.0 == node && row.1.abs_diff(step) < 10))
        })
        .await;
        // Its proposals are stamped by whoever leads.
        voter.propose(create_account_once(21)).await.unwrap();
        // Once it is right it may lead again, and stays.
        cluster.rigs[wrong].skew.set(0);
        within(2, "it is seen to be right", async || standing(voter) == ClockStanding::Agrees).await;
        let led = voter.transfer(Some(node)).await.unwrap();
        assert_eq!(led, node);
        SimRuntime::sleep(Duration::from_secs(20)).await;
        assert!(leads(&cluster, wrong).await);
        assert!(cluster.write(22).await);
        cluster.agree().await;
    })
    .await;
}

#[test]
fn leader_whose_clock_steps_spoils_no_log_time_and_gives_up_leadership() {
    for (seed, step) in STEPS.into_iter().enumerate() {
        simulate(seed as u64, leader_steps(seed as u64, step));
    }
}

/// Clocks step one at a time, also while a voter is cut off; those that are right are some tenths of a second apart.
pub(super) fn clocks_go_wrong_one_at_a_time(seed: u64) {
    simulate(seed, async {
        let entropy = SimEntropy::new(seed);
        let cluster = Cluster::start(seed, 2).await;
        assert!(cluster.write(0).await);
        // With one cut off and one wrong no two clocks agree, and each new leader goes on from the log time it saw last.
        watched(&cluster, 4 * BEHIND_MAX_MS, async {
            for round in 0..12 {
                for rig in &cluster.rigs {
                    rig.skew.set((entropy.number() % 800) as i64 - 400);
                }
                let wrong = entropy.number() as usize % VOTERS.len();
                cluster.rigs[wrong].skew.set(STEPS[entropy.number() as usize % STEPS.len()]);
                lock(&cluster.net.cut).clear();
                if round % 3 == 2 {
                    cluster.net.isolate(cluster.nodes()[entropy.number() as usize % VOTERS.len()], &cluster.nodes());
                }
                for number in 1..=5 {
                    assert!(cluster.write(round * 5 + number).await, "seed {seed}: no majority");
                    SimRuntime::sleep(Duration::from_millis(entropy.number() % 1_500)).await;
                }
            }
        })
        .await;
        lock(&cluster.net.cut).clear();
        cluster.rigs.iter().for_each(|rig| rig.skew.set(0));
        watched(&cluster, u64::MAX / 2, async {
            within(20, "all agree again", async || cluster.voters.iter().all(|voter| standing(voter) == ClockStanding::Agrees)).await;
            assert!(cluster.write(100).await);
        })
        .await;
        watched(&cluster, BEHIND_MAX_MS, SimRuntime::sleep(Duration::from_secs(5))).await;
    });
}

#[test]
fn log_time_stays_with_the_majority_whichever_clock_steps() {
    (0..4).for_each(clocks_go_wrong_one_at_a_time);
}

#[test]
fn cluster_is_founded_in_the_majoritys_time_though_one_clock_is_wrong() {
    for (seed, step) in STEPS.into_iter().enumerate() {
        simulate(seed as u64, async {
            for wrong in 0..VOTERS.len() {
                let rigs: Vec<Rig> = VOTERS.map(|node| Rig::new(node, &VOTERS)).into();
                rigs[wrong].skew.set(step);
                let cluster = Cluster::start_over(rigs, seed as u64, 0).await;
                watched(&cluster, BEHIND_MAX_MS, async {
                    assert!(cluster.write(0).await);
                    assert!(cluster.write(1).await);
                })
                .await;
                for voter in &cluster.voters {
                    voter.shutdown().await;
                }
            }
        });
    }
}

#[test]
fn without_a_majority_of_clocks_log_time_goes_on_from_the_last_stamp() {
    for (seed, step) in STEPS.into_iter().enumerate() {
        simulate(seed as u64, async {
            let cluster = Cluster::start(seed as u64, 0).await;
            assert!(cluster.write(0).await);
            let leader = cluster.leader().await;
            let other = (leader + 1) % 3;
            // It is known to be silent before the clock steps.
            cluster.net.isolate(cluster.nodes()[other], &cluster.nodes());
            SimRuntime::sleep(Duration::from_secs(3)).await;
            watched(&cluster, BEHIND_MAX_MS, async {
                cluster.rigs[leader].skew.set(step);
                assert_eq!(standing(&cluster.voters[leader]), ClockStanding::Split);
                SimRuntime::sleep(Duration::from_secs(30)).await;
                assert!(cluster.voters[leader].propose(create_account_once(1)).await.is_ok());
                assert_eq!(cluster.voters[leader].status().leader, Some(cluster.nodes()[leader]), "nobody is known to be better");
                // Who comes back decides it.
                lock(&cluster.net.cut).clear();
                within(15, "leadership leaves it", async || !leads(&cluster, leader).await).await;
            })
            .await;
        });
    }
}

#[test]
fn cluster_that_slept_a_week_goes_on_in_the_present() {
    simulate(3, async {
        let cluster = Cluster::start(3, 0).await;
        assert!(cluster.write(0).await);
        let leader = cluster.leader().await;
        SimRuntime::sleep(Duration::from_secs(3)).await;
        cluster.rigs.iter().for_each(|rig| rig.skew.set(WEEK));
        within(5, "the log is in the present", async || {
            let time = cluster.voters[leader].local().last_time();
            time.get() + 2_000 > middle(&cluster).get()
        })
        .await;
        SimRuntime::sleep(Duration::from_secs(10)).await;
        assert!(leads(&cluster, leader).await, "no clock is wrong");
    });
}

#[test]
fn voter_alone_follows_its_clock_and_slows_down_when_it_went_back() {
    let rig = Rig::new(1, &[1]);
    simulate(1, async {
        let voter = rig.start(std::sync::Arc::new(())).await.unwrap();
        voter.propose(init(&[1])).await.unwrap();
        rig.skew.set(WEEK);
        voter.propose(create_account(1)).await.unwrap();
        let ahead = voter.local().last_time();
        assert!(ahead.since(SimClock.wall()) > Duration::from_millis(WEEK as u64 - 100));
        rig.skew.set(0);
        SimRuntime::sleep(Duration::from_secs(60)).await;
        let gone = voter.local().last_time().since(ahead);
        assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&gone), "{gone:?}");
    });
}
