//! Writes through every node, and through the loss of the leader.

use std::time::Duration;

use runtime::RealClock;
use seams::Clock;

use crate::harness::{Ground, create, holds, leader, with_store};

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
