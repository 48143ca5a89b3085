//! Proposals and reads at nodes that do not lead.

use std::time::Duration;

use openraft_rt_sim::{SimInstant, SimRuntime};

use super::{
    cluster::Cluster,
    commands::{account_id, create_account, create_account_once},
    rig::{Rig, simulate},
};
use crate::{ProposeError, ReadError, Runtime, lock};

async fn cluster_of(voters: u64, seed: u64, loss_percent: u64) -> Cluster {
    let ids: Vec<u64> = (1..=voters).collect();
    Cluster::start_over(ids.iter().map(|id| Rig::new(*id, &ids)).collect(), seed, loss_percent).await
}

fn now() -> Duration {
    SimInstant::try_now().map(SimInstant::elapsed_since_start).unwrap_or_default()
}

#[test]
fn write_at_any_node_is_read_there_at_once_and_everywhere_after() {
    for voters in [3, 5] {
        simulate(voters, async {
            let cluster = cluster_of(voters, voters, 0).await;
            assert!(cluster.write(0).await);
            cluster.agree().await;
            for (index, voter) in cluster.voters.iter().enumerate() {
                let number = 1 + index as u64;
                voter.propose(create_account(number)).await.unwrap();
                assert!(voter.local().account(account_id(number)).unwrap().is_some(), "who wrote at node {number} reads it there");
                for other in &cluster.voters {
                    let state = other.linearizable().await.unwrap();
                    assert!(state.account(account_id(number)).unwrap().is_some(), "acknowledged at node {number}");
                }
            }
        });
    }
}

#[test]
fn write_and_read_during_an_election_wait_for_it() {
    simulate(21, async {
        let cluster = cluster_of(3, 21, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        cluster.net.isolate(cluster.nodes()[leader], &cluster.nodes());
        let follower = &cluster.voters[(leader + 1) % 3];
        let (written, read) = futures::join!(follower.propose(create_account_once(1)), follower.linearizable());
        written.unwrap();
        read.unwrap();
        assert!(now() < Duration::from_secs(6), "{:?}", now());
    });
}

#[test]
fn follower_without_majority_refuses_to_read_and_to_write() {
    simulate(22, async {
        let cluster = cluster_of(3, 22, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let follower = (cluster.leader().await + 1) % 3;
        cluster.net.isolate(cluster.nodes()[follower], &cluster.nodes());
        let voter = &cluster.voters[follower];
        let (read, written) = futures::join!(voter.linearizable(), voter.propose(create_account(1)));
        assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{:?}", read.err());
        assert!(matches!(written, Err(ProposeError::Unavailable { .. })), "it never left this node: {:?}", written.err());
    });
}

/// Commands without a request key: what is said not to have been proposed was not, and nothing is in the log twice.
#[test]
pub(super) fn command_without_request_key_enters_the_log_once_through_loss_and_elections() {
    for seed in 30..36 {
        simulate(seed, async {
            let cluster = cluster_of(3, seed, 8).await;
            assert!(cluster.write(0).await);
            let (mut acknowledged, mut unknown) = (Vec::new(), 0);
            for number in 1..=60_u64 {
                if number % 20 == 10 {
                    let leader = cluster.leader().await;
                    cluster.net.isolate(cluster.nodes()[leader], &cluster.nodes());
                }
                if number % 20 == 0 {
                    lock(&cluster.net.cut).clear();
                }
                for attempt in 0..40 {
                    let voter = &cluster.voters[(number as usize + attempt) % 3];
                    match voter.propose(create_account(number)).await {
                        Ok(_) => {
                            acknowledged.push(number);
                            break;
                        }
                        Err(ProposeError::Unknown { .. }) => {
                            unknown += 1;
                            break;
                        }
                        Err(ProposeError::Refused(refusal)) => panic!("seed {seed}: account {number} was proposed twice: {refusal}"),
                        Err(_) => SimRuntime::sleep(Duration::from_millis(20)).await,
                    }
                }
            }
            lock(&cluster.net.cut).clear();
            cluster.agree().await;
            let state = cluster.voters[0].local();
            for number in &acknowledged {
                assert!(
                    state.account(account_id(*number)).unwrap().is_some(),
                    "seed {seed}: account {number} was acknowledged and is gone"
                );
            }
            assert!(acknowledged.len() > 30, "seed {seed}: {} acknowledged, {unknown} unknown", acknowledged.len());
        });
    }
}

/// With a request key a lost answer is no loss: the node itself asks again, and the first reply comes back.
#[test]
pub(super) fn command_with_request_key_is_answered_through_loss_and_elections() {
    for seed in 40..44 {
        simulate(seed, async {
            let cluster = cluster_of(5, seed, 10).await;
            assert!(cluster.write(0).await);
            let (mut answered, mut cut) = (0, None);
            for number in 1..=50_u64 {
                if number == 20 {
                    let leader = cluster.leader().await;
                    cluster.net.isolate(cluster.nodes()[leader], &cluster.nodes());
                    cut = Some(leader);
                }
                // Nodes that are cut off from all others are no use to a client.
                let connected = (0..5_usize).filter(|index| cut != Some(*index));
                let index = connected.cycle().nth(number as usize).unwrap();
                match cluster.voters[index].propose(create_account_once(number)).await {
                    Ok(_) => answered += 1,
                    Err(ProposeError::Refused(refusal)) => panic!("seed {seed}: account {number}: {refusal}"),
                    Err(_) => {}
                }
            }
            assert!(answered >= 45, "seed {seed}: {answered} of 50 were answered");
            lock(&cluster.net.cut).clear();
            cluster.agree().await;
        });
    }
}
