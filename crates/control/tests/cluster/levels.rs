//! A cluster of mixed builds: nodes are updated one by one under load, the level rises at the end, and who then knows too little stays out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use client::Client;
use runtime::RealClock;
use seams::Clock;
use wire::{ErrorKind, v1};

use crate::harness::{Ground, create, holds, with_store};

/// Between two writes, so that the account's quota lasts for the whole update.
const BETWEEN: Duration = Duration::from_millis(20);

fn raise() -> v1::RaiseLevelRequest {
    v1::RaiseLevelRequest { to: Some(2), request_id: String::new() }
}

async fn levels(operator: &Client) -> v1::ShowLevelReply {
    operator.show_level(v1::ShowLevelRequest {}).await.unwrap()
}

/// Waits until so many nodes have reported that they know the newest level.
async fn known_by(operator: &Client, nodes: usize) {
    while levels(operator).await.nodes.iter().filter(|node| node.feature_level == state::FEATURE_LEVEL_MAX.get()).count() != nodes {
        tokio::task::yield_now().await;
    }
}

/// Writes until told to end; every error must be one that a caller may answer by trying again. Returns the names of what was acknowledged.
async fn load(operator: Client, end: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..90 {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("S{number}");
        match operator.create_secrets(create(&name)).await {
            Ok(_) => acknowledged.push(name),
            Err(error) => assert!(error.kind().retryable(), "{error}"),
        }
        RealClock::new().sleep(BETWEEN).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn level_rises_after_a_rolling_update_under_load() {
    let ground = Ground::held(3, 1).await;
    let mut nodes = ground.three().await;
    let all = ground.client(&[1, 2, 3]);
    with_store(&all).await;
    assert_eq!(levels(&all).await.in_force, 1, "the founder knew no more");
    let end = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(load(all.clone(), end.clone()));

    ground.hold(None);
    for (place, node) in [3, 2, 1].into_iter().enumerate() {
        nodes.remove(nodes.len() - 1 - place).stop().await;
        let updated = ground.start(node).await;
        updated.ready().await;
        nodes.push(updated);
        let at = ground.client(&[node]);
        known_by(&at, place + 1).await;
        if place < 2 {
            let refused = at.raise_level(raise()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Level);
            let message = &refused.error.message;
            assert!(message.contains("control-1 knows feature levels up to 1, not 2"), "{message}");
        }
    }
    assert_eq!(levels(&all).await.blockers, Vec::<String>::new());
    assert_eq!(all.raise_level(raise()).await.unwrap().in_force, 2);
    end.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.unwrap();
    assert!(!acknowledged.is_empty());
    for name in &acknowledged {
        assert!(holds(&all, name).await, "{name} was acknowledged");
    }

    // A node that goes back to the older build does not start, and says why.
    nodes.pop().unwrap().stop().await;
    ground.hold(Some(1));
    let error = ground.try_start(1).await.err().unwrap();
    assert!(error.contains("the state is of feature level 2, this node knows up to 1: update this node"), "{error}");
    for node in nodes {
        node.stop().await;
    }
}
