//! Writes through every node, and through the loss of the leader.

use std::time::Duration;

use runtime::RealClock;
use seams::Clock;

use wire::{
    ErrorKind,
    internal::{self, peers_client::PeersClient},
    v1,
};

use crate::harness::{CLUSTER, Ground, comment, create, holds, leader, show, with_store};

#[tokio::test(flavor = "multi_thread")]
async fn writes_through_each_node_go_on_within_three_seconds_of_the_leaders_end() {
    let ground = Ground::new(3).await;
    let mut nodes = ground.three().await;
    with_store(&ground.client(&[1])).await;
    for node in 1..=3 {
        let operator = ground.client(&[node]);
        operator.create_secrets(create(&format!("FROM_{node}"))).await.unwrap();
        assert!(holds(&operator, &format!("FROM_{node}")).await, "who wrote at node {node} reads it there");
    }
    for node in 1..=3 {
        let operator = ground.client(&[node]);
        for from in 1..=3 {
            assert!(holds(&operator, &format!("FROM_{from}")).await, "node {node} knows what node {from} acknowledged");
        }
    }

    let led = leader(&ground.client(&[2])).await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != led).collect();
    let gone = nodes.remove(led as usize - 1);
    let clock = RealClock::new();
    gone.kill();
    let operator = ground.client(&others);
    operator.create_secrets(create("AFTER")).await.unwrap();
    assert!(clock.monotonic() < Duration::from_secs(3), "writes went on after {:?}", clock.monotonic());

    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_comes_back_has_what_it_missed() {
    let ground = Ground::new(3).await;
    let mut nodes = ground.three().await;
    with_store(&ground.client(&[1])).await;
    nodes.remove(2).stop().await;
    ground.client(&[1, 2]).create_secrets(create("MISSED")).await.unwrap();
    let back = ground.start(3).await;
    back.ready().await;
    let there = ground.client(&[3]);
    assert!(holds(&there, "MISSED").await);
    there.create_secrets(create("BACK")).await.unwrap();
    // All of them stop and come back: none waits for one that is gone for good.
    nodes.push(back);
    for node in nodes {
        node.stop().await;
    }
    let mut nodes = Vec::new();
    for node in 1..=3 {
        nodes.push(ground.start(node).await);
    }
    for node in &nodes {
        node.ready().await;
    }
    assert!(holds(&ground.client(&[2]), "BACK").await);
    for node in nodes {
        node.stop().await;
    }
}

fn set(name: &str, value: &[u8], id: &str) -> v1::SetValueRequest {
    v1::SetValueRequest { secret: show(name).secret, value: value.to_vec(), request_id: id.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_written_at_a_locked_node_are_sealed_by_one_that_has_the_keys() {
    let ground = Ground::new(3).await;
    ground.lock(2);
    ground.lock(3);
    let mut nodes: Vec<_> = ground.three().await.into_iter().map(Some).collect();
    with_store(&ground.client(&[1])).await;
    let there = ground.once(2);
    assert!(!there.status(v1::ShowStatusRequest {}).await.unwrap().unlocked);

    let made = there.create_secrets(create("A")).await.unwrap();
    assert_eq!((made.secrets[0].name.as_str(), made.secrets[0].current_version), ("A", 1));
    assert!(holds(&there, "A").await, "who wrote here reads it here");
    // A retry is known by its id where it was done, whichever node is asked.
    let id = format!("{:032x}", 7);
    assert_eq!(there.set_value(set("A", b"second", &id)).await.unwrap().version, 2);
    for node in [2, 3, 1] {
        let again = ground.once(node).set_value(set("A", b"second", &id)).await.unwrap();
        assert_eq!(again.version, 2, "at node {node}");
    }
    let other = ground.once(3).set_value(set("A", b"another", &id)).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::RequestReused, "{}", other.error);
    let copy = v1::DuplicateSecretRequest { source: show("A").secret, name: "COPY".into(), ..Default::default() };
    assert_eq!(ground.once(3).duplicate_secret(copy).await.unwrap().secret.unwrap().name, "COPY");
    // What the other node refuses, it refuses in its own words; and a token that is none gets no further than here.
    let refused = there.create_secrets(create("A")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{}", refused.error);
    let stranger = ground.client_with(&[2], seal::OperatorToken::generate(&runtime::OsEntropy).text().expose().to_owned());
    assert_eq!(stranger.create_secrets(create("B")).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    let reader = v1::TokenGrant { role: "reporter".into(), ..Default::default() };
    let token = v1::CreateTokenRequest { name: "reader".into(), grants: vec![reader], ..Default::default() };
    let token = ground.client(&[1]).create_token(token).await.unwrap().token;
    assert_eq!(ground.client_with(&[2], token).create_secrets(create("B")).await.unwrap_err().kind(), ErrorKind::Denied);

    // The one with the keys is gone; two are a majority, and say what is missing.
    nodes[0].take().unwrap().stop().await;
    leader(&ground.client(&[2, 3])).await;
    let nobody = there.create_secrets(create("B")).await.unwrap_err();
    assert!(nobody.kind() == ErrorKind::Locked && nobody.error.message.contains("no control node that has the keys"), "{}", nobody.error);
    there.edit_secret(comment("A", "needs no key")).await.unwrap();
    for node in nodes.into_iter().flatten() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_over_is_taken_from_control_nodes_alone() {
    let ground = Ground::new(1).await;
    ground.register_edges(&[9]).await;
    let node = ground.start(1).await;
    node.ready().await;
    let request = internal::HandOverRequest { cluster: CLUSTER.as_bytes().to_vec(), from: 9, to: 1, ..Default::default() };
    let refused = PeersClient::new(ground.channel(9, 1)).hand_over(request).await.unwrap_err();
    assert_eq!(wire::PublicError::from_status(&refused).kind, ErrorKind::Denied, "{refused:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_of_a_caller_in_a_hurry_is_answered_by_the_node_before_the_callers_time_is_over() {
    let ground = Ground::new(3).await;
    let mut nodes = ground.three().await;
    let operator = ground.client(&[1]);
    with_store(&operator).await;
    operator.create_secrets(create("A")).await.unwrap();
    let left = nodes.remove(0);
    nodes.into_iter().for_each(crate::harness::Node::kill);
    // The node says what it knows, that nothing was proposed; the caller's own clock would say no more than that there was no answer.
    let hasty = ground.once(1).timeout(std::time::Duration::from_secs(3));
    let refused = hasty.edit_secret(comment("A", "x")).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded), "{}", refused.error);
    assert!(!refused.request_id().is_empty() && !refused.error.message.starts_with("no answer within 3s"), "{}", refused.error);
    left.kill();
}
