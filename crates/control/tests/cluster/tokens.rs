//! Operators' tokens at all nodes: made at one they are good at the others, revoked at one they are good nowhere. A follower that lags
//! is no exception, and between two heartbeats every follower does.

use wire::{ErrorKind, v1};

use crate::harness::{Ground, create, show, with_store};

/// How often: each time at another node, and while the followers are behind.
const ROUNDS: u64 = 12;

fn new_token() -> v1::CreateTokenRequest {
    let everything = v1::TokenGrant { role: "super-administrator".to_owned(), ..Default::default() };
    v1::CreateTokenRequest { name: "tester".to_owned(), grants: vec![everything], ..Default::default() }
}

/// Every way in which a token is shown: reads, a node's own view, changes, and a change that was answered before.
async fn kinds(client: &client::Client, before: &str) -> Vec<Option<ErrorKind>> {
    let kind = |error: client::ClientError| error.kind();
    let stored = v1::CreateAccountRequest { name: "repeated".to_owned(), request_id: before.to_owned(), ..Default::default() };
    vec![
        client.who_am_i(v1::WhoAmIRequest {}).await.map_err(kind).err(),
        client.show_secret(show("A")).await.map_err(kind).err(),
        client.status(v1::ShowStatusRequest {}).await.map_err(kind).err(),
        client.cluster_members(v1::ClusterMembersRequest {}).await.map_err(kind).err(),
        client.list_nodes(v1::ListNodesRequest::default()).await.map_err(kind).err(),
        client.create_account(stored).await.map_err(kind).err(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_good_everywhere_once_made_and_nowhere_once_revoked() {
    let ground = Ground::new(3).await;
    let nodes = ground.three().await;
    let operator = ground.client(&[1, 2, 3]);
    with_store(&operator).await;
    operator.create_secrets(create("A")).await.unwrap();
    for round in 0..ROUNDS {
        let (here, there) = (round % 3 + 1, (round + 1) % 3 + 1);
        let made = ground.client(&[here]).create_token(new_token()).await.unwrap();
        let holder = |node| ground.client_with(&[node], made.token.clone());
        let before = format!("{round:032x}");
        for node in [there, here] {
            assert_eq!(kinds(&holder(node), &before).await, [None; 6], "round {round}: made at {here}, shown at {node}");
        }
        ground.client(&[there]).revoke_token(v1::RevokeTokenRequest { token_id: made.token_id, ..Default::default() }).await.unwrap();
        for node in 1..=3 {
            let refused = kinds(&holder(node), &before).await;
            assert_eq!(refused, [Some(ErrorKind::Unauthenticated); 6], "round {round}: revoked at {there}, shown at {node}");
        }
    }
    for node in nodes {
        node.stop().await;
    }
}
