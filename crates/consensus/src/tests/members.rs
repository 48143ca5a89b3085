//! Who votes, changed while the cluster runs.

use std::time::Duration;

use openraft_rt_sim::{SimInstant, SimRuntime};
use types::NodeId;

use super::{
    cluster::Cluster,
    commands::{account_id, create_account_once},
    rig::simulate,
};
use crate::{ChangeError, Consensus, Membership, Runtime, lock};

fn now() -> Duration {
    SimInstant::try_now().map(SimInstant::elapsed_since_start).unwrap_or_default()
}

fn voters(membership: &Membership) -> Vec<u64> {
    membership.voters.iter().map(|(node, _)| node.get()).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = now() + Duration::from_secs(30);
    while !holds() {
        assert!(now() < deadline, "never: {what}");
        SimRuntime::sleep(Duration::from_millis(1)).await;
    }
}

async fn promoted(voter: &Consensus, node: u64) {
    voter.add_learner(NodeId::new(node), format!("voter-{node}")).await.unwrap();
    while let Err(error) = voter.promote(NodeId::new(node)).await {
        assert!(matches!(error, ChangeError::Behind { .. }), "{error}");
    }
}

#[test]
fn learner_catches_up_by_a_snapshot_is_promoted_and_votes() {
    simulate(51, async {
        let mut cluster = Cluster::start(51, 0).await;
        for number in 0..=120 {
            assert!(cluster.write(number).await);
        }
        assert!(cluster.voters[cluster.leader().await].status().purged.is_some(), "the beginning of the log is gone");
        let fourth = cluster.join(4).await;
        // Asked of a node that does not lead.
        let asked = (cluster.leader().await + 1) % 3;
        cluster.voters[asked].add_learner(NodeId::new(4), "voter-4").await.unwrap();
        until("the learner has everything", || cluster.voters[fourth].local().account(account_id(120)).unwrap().is_some()).await;
        let membership = cluster.voters[fourth].membership();
        assert_eq!((voters(&membership), membership.learners.len()), (vec![1, 2, 3], 1));
        promoted(&cluster.voters[asked], 4).await;
        until("all know", || cluster.voters.iter().all(|voter| voters(&voter.membership()) == [1, 2, 3, 4])).await;
        // It counts: with one of the old ones gone, three of four go on.
        cluster.net.isolate(NodeId::new(1), &cluster.nodes());
        cluster.voters[fourth].propose(create_account_once(500)).await.unwrap();
    });
}

#[test]
fn learner_that_is_behind_is_not_promoted() {
    simulate(52, async {
        let mut cluster = Cluster::start(52, 0).await;
        assert!(cluster.write(0).await);
        cluster.join(4).await;
        let leader = cluster.leader().await;
        cluster.net.isolate(NodeId::new(4), &cluster.nodes());
        let leader = &cluster.voters[leader];
        leader.add_learner(NodeId::new(4), "voter-4").await.unwrap();
        let error = leader.promote(NodeId::new(4)).await.unwrap_err();
        assert!(matches!(error, ChangeError::Behind { matched: None, .. }), "{error}");
        assert_eq!(voters(&leader.membership()), [1, 2, 3]);
        assert!(cluster.write(1).await, "a learner that cannot be reached holds up nothing");
    });
}

#[test]
fn voter_whose_disk_is_lost_is_replaced_under_a_new_identity() {
    for lost in 0..3 {
        simulate(60 + lost as u64, async {
            let mut cluster = Cluster::start(60 + lost as u64, 0).await;
            for number in 0..=60 {
                assert!(cluster.write(number).await);
            }
            let gone = cluster.nodes()[lost];
            cluster.net.forget(gone);
            cluster.net.isolate(gone, &[1, 2, 3, 4].map(NodeId::new));
            let asked = (lost + 1) % 3;
            cluster.voters[asked].propose(create_account_once(61)).await.unwrap();
            let new = cluster.join(4).await;
            promoted(&cluster.voters[asked], 4).await;
            cluster.voters[asked].remove(gone, false).await.unwrap();
            let rest: Vec<u64> = [1, 2, 3, 4].into_iter().filter(|node| *node != gone.get()).collect();
            until("all know", || {
                let known = cluster.voters.iter().enumerate().filter(|(index, _)| *index != lost);
                known.map(|(_, voter)| voter.membership()).all(|membership| voters(&membership) == rest && !membership.joint)
            })
            .await;
            cluster.voters[new].propose(create_account_once(62)).await.unwrap();
            cluster.agree_but(&[lost]).await;
            let state = cluster.voters[new].local();
            for number in 1..=62 {
                assert!(state.account(account_id(number)).unwrap().is_some(), "account {number} was acknowledged and is gone");
            }
        });
    }
}

#[test]
fn change_that_was_interrupted_is_finished_by_the_next_one() {
    simulate(70, async {
        let mut cluster = Cluster::start(70, 0).await;
        assert!(cluster.write(0).await);
        cluster.join(4).await;
        let leader = cluster.leader().await;
        let (node, other) = (cluster.nodes()[leader], (leader + 1) % 3);
        cluster.voters[leader].add_learner(NodeId::new(4), "voter-4").await.unwrap();
        let everybody = cluster.nodes();
        // The leader is cut off as soon as another one has the joint membership.
        let interrupted = async {
            until("a joint membership", || cluster.voters[other].membership().joint).await;
            cluster.net.isolate(node, &everybody);
        };
        let (promotion, ()) = futures::join!(cluster.voters[leader].promote(NodeId::new(4)), interrupted);
        assert!(matches!(promotion, Err(ChangeError::Unknown { .. })), "{promotion:?}");
        until("another leader", || cluster.voters[other].status().leader.is_some_and(|leader| leader != node)).await;
        let joint = cluster.voters[other].membership();
        assert!(joint.joint, "{joint:?}");
        // The next change of any kind finishes it, and is made itself.
        cluster.voters[other].remove(node, false).await.unwrap();
        let rest: Vec<u64> = [1, 2, 3, 4].into_iter().filter(|id| *id != node.get()).collect();
        until("the change is finished", || {
            let membership = cluster.voters[other].membership();
            voters(&membership) == rest && !membership.joint
        })
        .await;
        cluster.voters[other].propose(create_account_once(1)).await.unwrap();
    });
}

/// Found by seed 947 of the simulation: the second answer was taken from the leader's own log, and the entry went with that leader.
#[test]
fn change_that_only_the_leader_has_is_not_done_however_often_it_is_asked_for() {
    simulate(73, async {
        let mut cluster = Cluster::start(73, 0).await;
        assert!(cluster.write(0).await);
        cluster.join(4).await;
        let leader = cluster.leader().await;
        cluster.net.isolate(cluster.nodes()[leader], &cluster.nodes());
        for _ in 0..2 {
            let answer = cluster.voters[leader].add_learner(NodeId::new(4), "voter-4").await;
            assert!(matches!(answer, Err(ChangeError::Unknown { .. } | ChangeError::Unavailable { .. })), "{answer:?}");
        }
        assert!(cluster.voters[leader].membership().holds(NodeId::new(4)), "it is in the leader's log, and nowhere else");
        let other = &cluster.voters[(leader + 1) % 3];
        until("another leader", || other.status().leader.is_some_and(|led| led != cluster.nodes()[leader])).await;
        assert!(!other.membership().holds(NodeId::new(4)));
        lock(&cluster.net.cut).clear();
        cluster.voters[leader].add_learner(NodeId::new(4), "voter-4").await.unwrap();
        until("all know", || cluster.voters.iter().all(|voter| voter.membership().holds(NodeId::new(4)))).await;
    });
}

#[test]
fn removal_of_the_leader_hands_over_first_and_writes_go_on() {
    simulate(71, async {
        let cluster = Cluster::start(71, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        let (node, other) = (cluster.nodes()[leader], &cluster.voters[(leader + 1) % 3]);
        let started = now();
        other.remove(node, false).await.unwrap();
        other.propose(create_account_once(1)).await.unwrap();
        assert!(now() - started < Duration::from_millis(500), "no election timeout was waited for: {:?}", now() - started);
        assert!(!other.membership().holds(node));
        assert!(other.status().leader.is_some_and(|leader| leader != node));
    });
}

#[test]
fn removal_that_costs_the_majority_is_refused_unless_forced() {
    simulate(72, async {
        let cluster = Cluster::start(72, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        let (dead, alive) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.net.isolate(cluster.nodes()[dead], &cluster.nodes());
        SimRuntime::sleep(Duration::from_secs(5)).await;
        let (voter, alive) = (&cluster.voters[leader], cluster.nodes()[alive]);
        let refused = voter.remove(alive, false).await.unwrap_err();
        assert!(matches!(&refused, ChangeError::Refused { reason } if reason.contains("no majority")), "{refused}");
        // The dead one may go; then the other too, for the one that is left is a majority of itself.
        voter.remove(cluster.nodes()[dead], false).await.unwrap();
        voter.remove(alive, true).await.unwrap();
        let last = voter.remove(cluster.nodes()[leader], true).await.unwrap_err();
        assert!(matches!(&last, ChangeError::Refused { reason } if reason.contains("last voter")), "{last}");
        let stranger = voter.remove(NodeId::new(9), false).await.unwrap_err();
        assert!(matches!(stranger, ChangeError::Refused { .. }), "{stranger}");
        voter.propose(create_account_once(1)).await.unwrap();
    });
}

#[test]
fn leadership_goes_where_it_is_asked_to_and_nowhere_else() {
    simulate(73, async {
        let cluster = Cluster::start(73, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        let to = cluster.nodes()[(leader + 1) % 3];
        // Asked of the third.
        assert_eq!(cluster.voters[(leader + 2) % 3].transfer(Some(to)).await.unwrap(), to);
        until("all follow", || cluster.voters.iter().all(|voter| voter.status().leader == Some(to))).await;
        assert!(matches!(cluster.voters[0].transfer(Some(NodeId::new(9))).await, Err(ChangeError::Refused { .. })));
        assert!(cluster.write(1).await);
    });
}

#[test]
fn leader_that_shuts_down_hands_over_first() {
    simulate(74, async {
        let cluster = Cluster::start(74, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        let (node, term) = (cluster.nodes()[leader], cluster.voters[leader].status().term);
        let started = now();
        let other = &cluster.voters[(leader + 1) % 3];
        let follow = async {
            until("another leader", || other.status().leader.is_some_and(|leader| leader != node)).await;
            other.propose(create_account_once(1)).await.unwrap();
            now() - started
        };
        let ((), took) = futures::join!(cluster.voters[leader].shutdown(), follow);
        assert!(took < Duration::from_millis(400), "no election timeout was waited for: {took:?}");
        assert_eq!(other.status().term, term + 1);
    });
}

#[test]
fn voter_that_was_cut_off_does_not_disturb_when_it_returns() {
    simulate(75, async {
        let cluster = Cluster::start(75, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        let term = cluster.voters[leader].status().term;
        let away = (leader + 1) % 3;
        cluster.net.isolate(cluster.nodes()[away], &cluster.nodes());
        SimRuntime::sleep(Duration::from_secs(20)).await;
        assert!(cluster.voters[leader].propose(create_account_once(1)).await.is_ok());
        lock(&cluster.net.cut).clear();
        cluster.agree().await;
        SimRuntime::sleep(Duration::from_secs(5)).await;
        for voter in &cluster.voters {
            assert_eq!((voter.status().term, voter.status().leader), (term, Some(cluster.nodes()[leader])));
        }
    });
}

#[test]
fn peer_that_hangs_holds_up_neither_writes_nor_reads() {
    simulate(76, async {
        let cluster = Cluster::start(76, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        lock(&cluster.net.hung).insert(cluster.nodes()[(leader + 1) % 3]);
        for number in 1..=50 {
            let started = now();
            cluster.voters[leader].propose(create_account_once(number)).await.unwrap();
            cluster.voters[leader].linearizable().await.unwrap();
            assert!(now() - started < Duration::from_millis(100), "{:?}", now() - started);
        }
        lock(&cluster.net.hung).clear();
        cluster.agree().await;
    });
}

#[test]
fn overview_says_how_far_members_are_at_any_node() {
    simulate(77, async {
        let cluster = Cluster::start(77, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        let leader = cluster.leader().await;
        let away = (leader + 1) % 3;
        cluster.net.isolate(cluster.nodes()[away], &cluster.nodes());
        SimRuntime::sleep(Duration::from_secs(5)).await;
        let overview = cluster.voters[(leader + 2) % 3].overview().await.unwrap();
        assert_eq!(overview.leader, cluster.nodes()[leader]);
        for row in overview.progress {
            let is_away = row.node == cluster.nodes()[away];
            assert_eq!(row.contact.is_none_or(|contact| contact > Duration::from_secs(3)), is_away, "{row:?}");
        }
    });
}

#[test]
fn member_that_moved_gets_another_address_and_keeps_its_vote() {
    simulate(78, async {
        let cluster = Cluster::start(78, 0).await;
        assert!(cluster.write(0).await);
        cluster.agree().await;
        for (index, voter) in cluster.voters.iter().enumerate() {
            let node = cluster.nodes()[index];
            // Each tells of itself.
            voter.add_learner(node, format!("elsewhere-{node}")).await.unwrap();
            until("it is known", || voter.membership().address(node) == Some(&format!("elsewhere-{node}"))).await;
            assert_eq!(voters(&voter.membership()), [1, 2, 3]);
            assert!(cluster.write(index as u64 + 1).await);
        }
    });
}
