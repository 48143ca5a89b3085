//! Snapshots for people: saved over the public API and by schedule, read back with the node's key.

use std::time::Duration;

use control::snapshots::{self, Opened, Origin};
use runtime::config::{Never, SnapshotsConfig};
use seal::NodeKeyPair;
use state::{Grant, GrantScope, Role};
use wire::{
    ErrorKind,
    v1::{self, save_snapshot_reply::Part},
};

use crate::harness::{Ground, create, item, refused, until, with_store};

/// All bytes that a save gives, and what it said before and after them.
async fn save(client: &client::Client) -> (v1::SnapshotBegin, Vec<u8>) {
    let mut parts = client.save_snapshot().await.unwrap();
    let Some(Part::Begin(begin)) = parts.next().await.unwrap() else { panic!("the beginning comes first") };
    let mut bytes = Vec::new();
    loop {
        match parts.next().await.unwrap() {
            Some(Part::Data(data)) => bytes.extend_from_slice(&data),
            Some(Part::End(end)) => {
                assert_eq!(end.bytes, bytes.len() as u64);
                assert!(parts.next().await.unwrap().is_none());
                return (begin, bytes);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn open(ground: &Ground, bytes: &[u8]) -> Opened {
    let key = runtime::read_secret_file(&ground.at("node.key")).unwrap();
    snapshots::open(bytes, &NodeKeyPair::from_file_bytes(&key).unwrap(), Origin::Unproven).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_saved_holds_all_that_was_acknowledged_and_no_name_in_the_clear() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    // Several chunks.
    let items = (0..20).map(|number| item(&format!("HIDDEN-NAME-{number}"), vec![b'v'; 30_000])).collect();
    let receipt = client.create_secrets(create(items)).await.unwrap().receipt.unwrap();
    let (begin, bytes) = save(&client).await;
    assert!(begin.bytes_about.abs_diff(bytes.len() as u64) < 1000, "{} is about {}", begin.bytes_about, bytes.len());
    assert!(!bytes.windows(11).any(|window| window == b"HIDDEN-NAME"));
    assert!(snapshots::check(&bytes[..]).unwrap().chunks > 1);
    let opened = open(&ground, &bytes);
    assert_eq!((opened.contents.accounts, opened.contents.stores, opened.contents.secrets), (1, 1, 20));
    assert!(opened.checked.header.position >= receipt.position.unwrap().into());
    assert_eq!(Some(v1::Position::from(opened.checked.header.position)), begin.position);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_whose_token_is_revoked_meanwhile_is_cut() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    // Far more than is on its way at a time.
    for batch in 0..8 {
        let items = (0..10).map(|number| item(&format!("S-{batch}-{number}"), vec![b'v'; 60_000])).collect();
        operator.create_secrets(create(items)).await.unwrap();
    }
    let everything = v1::TokenGrant { role: "super-administrator".to_owned(), ..Default::default() };
    let request = v1::CreateTokenRequest { name: "backup".to_owned(), grants: vec![everything], ..Default::default() };
    let made = operator.create_token(request).await.unwrap();
    let mut parts = node.client(&made.token).save_snapshot().await.unwrap();
    assert!(matches!(parts.next().await.unwrap(), Some(Part::Begin(_))));
    operator.revoke_token(v1::RevokeTokenRequest { token_id: made.token_id, ..Default::default() }).await.unwrap();
    let end = loop {
        match parts.next().await {
            Ok(Some(Part::Data(_))) => {}
            end => break end,
        }
    };
    refused(end, ErrorKind::Unauthenticated);
    save(&operator).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_is_for_super_administrators_of_the_cluster() {
    let ground = Ground::new();
    let node = ground.start().await;
    with_store(&node.operator()).await;
    let account = node.operator().list_accounts(v1::ListAccountsRequest::default()).await.unwrap().accounts.remove(0).id.parse().unwrap();
    node.stop().await;
    let of = |role, scope| vec![Grant { role, scope }];
    let [admin, own_account, cluster] = ground
        .operators([
            of(Role::Admin, GrantScope::Cluster),
            of(Role::SuperAdministrator, GrantScope::Account(account)),
            of(Role::SuperAdministrator, GrantScope::Cluster),
        ])
        .await;
    let node = ground.start().await;
    for token in [admin, own_account] {
        let refusal = node.client(&token).save_snapshot().await.map(drop);
        assert!(refused(refusal, ErrorKind::Denied).contains("may not save snapshots"));
    }
    save(&node.client(&cluster)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_by_schedule_are_whole_and_kept_to_their_number() {
    let ground = Ground::new();
    let mut config = ground.config();
    let folder = ground.at("backups");
    config.snapshots = SnapshotsConfig { folder: folder.clone(), every: Never::after(Duration::from_secs(1)), keep: 2 };
    let node = ground.start_with(config).await;
    let names = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    };
    let first = until("a snapshot by schedule", async || names().first().cloned()).await;
    until("the first to be pushed out by two others", async || (names().len() == 2 && !names().contains(&first)).then_some(())).await;
    node.stop().await;
    let kept = names();
    assert!((2..=3).contains(&kept.len()), "{kept:?}");
    for name in kept {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        let header = open(&ground, &bytes).checked.header;
        assert!(name.ends_with(&format!("-{}.cbsnap", header.position)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_cut_off_by_a_stopping_node_is_an_error_and_no_end() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    // More than the connection's windows take.
    for batch in 0..2 {
        let items = (0..50).map(|number| item(&format!("S-{batch}-{number}"), vec![b'v'; 60_000])).collect();
        client.create_secrets(create(items)).await.unwrap();
    }
    let mut parts = client.save_snapshot().await.unwrap();
    parts.next().await.unwrap();
    node.stop().await;
    let refusal = loop {
        match parts.next().await {
            Ok(Some(Part::Data(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{}", refusal.error);
}
