//! What a control node says of the leader when it has lost its majority.

use std::time::{Duration, Instant};

use client::Client;
use wire::{ErrorKind, v1};

use crate::harness::{Ground, Node, leader, until};

/// Far less than a call that waits for a leader takes.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Whom a node names as the leader, wherever it names one.
async fn named(operator: &Client) -> Vec<String> {
    let mut named = vec![operator.status(v1::ShowStatusRequest {}).await.unwrap().leader];
    let members = operator.cluster_members(v1::ClusterMembersRequest {}).await.unwrap().members;
    named.extend(members.into_iter().filter(|member| member.leader).map(|member| member.name));
    let fleet = operator.list_fleet(v1::ListFleetRequest::default()).await.unwrap().nodes;
    named.extend(fleet.into_iter().filter(|node| node.connected_to == "leader").map(|node| node.node_name));
    named.retain(|name| !name.is_empty());
    named
}

fn report(node: &Node) -> String {
    node.control.readiness().report()
}

/// Two of three are gone and come back; the one that is left led, or did not.
#[expect(clippy::disallowed_methods, reason = "whole nodes run in the real world")]
async fn left_alone(as_leader: bool) {
    let ground = Ground::new(3).await;
    let mut nodes: Vec<Option<Node>> = ground.three().await.into_iter().map(Some).collect();
    let leads = leader(&ground.client(&[1, 2, 3])).await;
    let left = if as_leader { leads } else { leads % 3 + 1 };
    let operator = ground.client(&[left]);
    let node = nodes[left as usize - 1].take().unwrap();
    until("it is ready", || node.control.readiness().is_ready()).await;
    let with = operator.cluster_status(v1::ClusterStatusRequest {}).await.unwrap();
    assert!(with.leaderless_ms.is_none() && with.members.iter().any(|row| row.progress.is_some()), "{with:?}");

    nodes.iter_mut().filter_map(Option::take).for_each(Node::kill);
    until("it says that there is no leader", || report(&node).contains("[-] majority not ready: no leader with a majority for ")).await;
    assert!(!node.control.readiness().is_ready());
    assert_eq!(named(&operator).await, Vec::<String>::new());
    let asked = Instant::now();
    let without = operator.cluster_status(v1::ClusterStatusRequest {}).await.unwrap();
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert!(without.leaderless_ms.is_some_and(|ms| ms >= 5_000), "{without:?}");
    let rows: Vec<_> = without.members.iter().map(|row| (row.member.as_ref().unwrap(), row.progress)).collect();
    assert!(rows.len() == 3 && rows.iter().all(|(member, progress)| !member.leader && progress.is_none()), "{without:?}");

    for other in (1..=3).filter(|other| *other != left) {
        nodes[other as usize - 1] = Some(ground.start(other).await);
    }
    until("it is ready again", || node.control.readiness().is_ready()).await;
    leader(&operator).await;
    for node in nodes.into_iter().flatten().chain([node]) {
        node.ready().await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_a_majority_names_none_and_is_not_ready_until_there_is_one() {
    left_alone(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_without_a_majority_names_no_leader_and_is_not_ready_until_there_is_one() {
    left_alone(false).await;
}

/// The least that can be configured.
const LEASE: Duration = Duration::from_secs(3);

/// What a node answers from its own view.
async fn own_view(operator: &Client) -> Vec<Option<(ErrorKind, String)>> {
    let told = |error: client::ClientError| (error.kind(), error.error.message);
    vec![
        operator.status(v1::ShowStatusRequest {}).await.map_err(told).err(),
        operator.cluster_members(v1::ClusterMembersRequest {}).await.map_err(told).err(),
        operator.cluster_status(v1::ClusterStatusRequest {}).await.map_err(told).err(),
        operator.list_fleet(v1::ListFleetRequest::default()).await.map_err(told).err(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "whole nodes run in the real world")]
async fn node_cut_off_for_longer_than_the_lease_believes_no_token_and_says_who_is_missing() {
    let ground = Ground::leased(3, LEASE).await;
    let mut nodes: Vec<Option<Node>> = ground.three().await.into_iter().map(Some).collect();
    let left = leader(&ground.client(&[1, 2, 3])).await;
    let operator = ground.once(left);
    assert_eq!(own_view(&operator).await, vec![None; 4]);
    let node = nodes[left as usize - 1].take().unwrap();
    nodes.iter_mut().filter_map(Option::take).for_each(Node::kill);

    let asked = Instant::now();
    loop {
        let answers = own_view(&operator).await;
        if answers.iter().all(Option::is_some) {
            for (kind, message) in answers.into_iter().flatten() {
                assert_eq!(kind, ErrorKind::Unavailable, "{message}");
                assert!(message.contains("ask another control node") && message.contains("/readyz"), "{message}");
            }
            break;
        }
        assert!(asked.elapsed() < crate::harness::PATIENCE, "it believes a token that may be revoked: {answers:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let missing = (1..=3).filter(|other| *other != left).map(|other| format!("control-{other}")).collect::<Vec<_>>().join(", ");
    until("its /readyz names who is missing", || report(&node).contains(&format!("; not heard from here: {missing}"))).await;

    for other in (1..=3).filter(|other| *other != left) {
        nodes[other as usize - 1] = Some(ground.start(other).await);
    }
    until("it is ready again", || node.control.readiness().is_ready()).await;
    leader(&operator).await;
    assert_eq!(own_view(&operator).await, vec![None; 4]);
    for node in nodes.into_iter().flatten().chain([node]) {
        node.ready().await;
        node.stop().await;
    }
}
