//! Feature levels: a cluster begins at the highest that its founder knows, a node held at an older one is as an older build, and a
//! level rises when all know it. And what level 2 brought; of level 3 the members are tested by themselves.

use client::Client;
use control::{Control, ControlOptions};
use runtime::config::ControlConfig;
use types::FeatureLevel;
use wire::{ErrorKind, v1};

use crate::harness::{ACCOUNT, Ground, metrics, refused, with_store};

/// A node that goes along up to a level only, as an older build would.
async fn held(level: u32, config: ControlConfig) -> Result<Control, control::ControlError> {
    let options = ControlOptions { level_max: Some(FeatureLevel::new(level)), ..ControlOptions::new(config, metrics()) };
    Control::start(options).await
}

async fn levels(client: &Client) -> v1::ShowLevelReply {
    client.show_level(v1::ShowLevelRequest {}).await.unwrap()
}

/// Waits until the node has reported that it knows `level`.
async fn reported(client: &Client, level: u32) -> v1::ShowLevelReply {
    loop {
        let shown = levels(client).await;
        if shown.nodes.iter().all(|node| node.feature_level >= level) {
            return shown;
        }
        tokio::task::yield_now().await;
    }
}

fn raise(to: Option<u32>) -> v1::RaiseLevelRequest {
    v1::RaiseLevelRequest { to, request_id: String::new() }
}

fn quota(stores: Option<u64>, secrets: Option<u64>) -> v1::SetQuotaRequest {
    v1::SetQuotaRequest { account: ACCOUNT.into(), stores_max: stores, secrets_max: secrets, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn level_rises_when_all_know_it_and_nodes_that_do_not_stay_out() {
    let ground = Ground::new();
    let node = ground.node(held(1, ground.config()).await.unwrap());
    let client = node.operator();
    with_store(&client).await;
    let shown = levels(&client).await;
    assert_eq!(shown.in_force, 1, "the founder knows no more");
    let message = refused(client.raise_level(raise(None)).await, ErrorKind::Level);
    assert!(message.contains("this control node knows feature levels up to 1, not 2"), "{message}");
    // What level 2 does otherwise works at level 1 too, in level 1's way.
    let changed = client.set_quota(quota(None, Some(7))).await.unwrap().quota.unwrap();
    assert_eq!((changed.stores_max, changed.secrets_max), (10, 7));
    node.stop().await;

    // The build is replaced: it says so, and then the level may rise, once.
    let node = ground.start().await;
    let client = node.operator();
    let shown = reported(&client, 3).await;
    assert_eq!((shown.in_force, shown.nodes.len(), shown.blockers), (1, 1, vec![]));
    refused(client.raise_level(raise(Some(3))).await, ErrorKind::Precondition);
    let request = v1::RaiseLevelRequest { to: Some(2), request_id: "0".repeat(32) };
    assert_eq!(client.raise_level(request.clone()).await.unwrap().in_force, 2);
    assert_eq!(client.raise_level(request).await.unwrap().in_force, 2, "a retry");
    refused(client.raise_level(raise(Some(2))).await, ErrorKind::Precondition);
    // What level 3 brought is refused until it is in force.
    let member = v1::CreateMemberRequest {
        member: Some(v1::MemberRef { name: "ann@example.com".into(), ..Default::default() }),
        ..Default::default()
    };
    let message = refused(client.create_member(member.clone()).await, ErrorKind::Level);
    assert!(message.contains("create-member needs feature level 3, in force is 2"), "{message}");
    assert_eq!(client.raise_level(raise(None)).await.unwrap().in_force, 3);
    client.create_member(member).await.unwrap();
    let message = refused(client.raise_level(raise(None)).await, ErrorKind::Level);
    assert!(message.contains("up to 3, not 4"), "{message}");
    node.stop().await;

    let error = held(1, ground.config()).await.err().unwrap();
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text = text.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(text.contains("the state is of feature level 3, this node knows up to 1: update this node"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_quota_that_are_changed_at_the_same_time_all_last() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    assert_eq!(levels(&client).await.in_force, 3, "a new cluster begins at the highest level");
    for round in 1..20_u64 {
        let (stores, secrets) = tokio::join!(client.set_quota(quota(Some(round), None)), client.set_quota(quota(None, Some(round))));
        stores.unwrap();
        secrets.unwrap();
        let now = client.show_quota(v1::ShowQuotaRequest { account: ACCOUNT.into() }).await.unwrap();
        assert_eq!((now.stores_max, now.secrets_max), (round, round));
    }
    refused(client.set_quota(quota(None, None)).await, ErrorKind::InvalidArgument);
    node.stop().await;
}
