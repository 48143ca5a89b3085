//! Deleted secrets that are brought back or destroyed, and what is noted of the times of secrets.

use client::Client;
use wire::{ErrorKind, v1};

use crate::harness::{
    ACCOUNT, Ground, bind, create, create_consumer, delete, item, metrics, refused, secret, set, show, store, until, with_store,
};

async fn deleted(client: &Client) -> Vec<v1::Secret> {
    let request = v1::ListDeletedSecretsRequest { store: store("default"), page: None };
    client.list_deleted_secrets(request).await.unwrap().secrets
}

fn undelete(name: &str) -> v1::UndeleteSecretRequest {
    v1::UndeleteSecretRequest { secret: secret(name), ..Default::default() }
}

fn destroy(name: &str, version: u64) -> v1::DestroySecretRequest {
    v1::DestroySecretRequest { secret: secret(name), version, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_secret_comes_back_with_its_id_versions_and_values_or_is_destroyed() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    let in_store = with_store(&client).await;
    let made = client.create_secrets(create(vec![item("A", "one"), item("B", "other")])).await.unwrap().secrets;
    client.set_value(set("A", "two")).await.unwrap();
    create_consumer(&client, "web").await;
    client.bind(bind("web", "KEY", "A")).await.unwrap();

    client.delete_secrets(delete(&["A"], true)).await.unwrap();
    refused(show(&client, "A").await, ErrorKind::NotFound);
    let kept = deleted(&client).await;
    assert_eq!((kept.len(), kept[0].id.as_str(), kept[0].name.as_str()), (1, made[0].id.as_str(), "A"));
    assert_eq!(kept[0].status(), v1::SecretStatus::Deleted);
    assert_eq!(kept[0].undelete_until_ms - kept[0].deleted_ms, 7 * 86_400_000);
    let quota = client.show_quota(v1::ShowQuotaRequest { account: ACCOUNT.into() }).await.unwrap();
    assert_eq!((quota.secrets, quota.deleted_secrets, quota.tokens_max), (1, 1, 100));

    let request = v1::UndeleteSecretRequest { request_id: "c".repeat(32), ..undelete("A") };
    for _ in 0..2 {
        let reply = client.undelete_secret(request.clone()).await.unwrap();
        assert!(reply.receipt.is_some());
    }
    let back = show(&client, "A").await.unwrap();
    assert_eq!((back.id.as_str(), back.current_version, back.previous_version), (made[0].id.as_str(), 2, 1));
    let listed = client.list_bindings(v1::ListBindingsRequest { account: ACCOUNT.into(), ..Default::default() }).await.unwrap();
    assert!(listed.bindings.iter().all(|binding| !binding.target_deleted));
    refused(client.undelete_secret(undelete("A")).await, ErrorKind::NotFound);

    // Destroyed: a version, and what could be brought back.
    refused(client.destroy_secret(destroy("A", 2)).await, ErrorKind::Precondition);
    refused(client.destroy_secret(destroy("B", 0)).await, ErrorKind::NotFound);
    client.destroy_secret(destroy("A", 1)).await.unwrap();
    let versions = client.list_versions(v1::ListVersionsRequest { secret: secret("A") }).await.unwrap().versions;
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2]);
    client.delete_secrets(delete(&["B"], false)).await.unwrap();
    client.destroy_secret(destroy("B", 0)).await.unwrap();
    refused(client.undelete_secret(undelete("B")).await, ErrorKind::NotFound);
    assert_eq!(deleted(&client).await, []);

    // Of two that had the name, the id tells which.
    for _ in 0..2 {
        client.create_secrets(create(vec![item("C", "c")])).await.unwrap();
        client.delete_secrets(delete(&["C"], false)).await.unwrap();
    }
    let message = refused(client.undelete_secret(undelete("C")).await, ErrorKind::Precondition);
    let both = deleted(&client).await;
    assert!(both.iter().any(|one| message.contains(&one.id)), "{message}");
    client.undelete_secret(undelete(&both[1].id)).await.unwrap();
    refused(client.undelete_secret(undelete(&both[0].id)).await, ErrorKind::AlreadyExists);
    node.stop().await;

    // The value is there again as it was sealed.
    let log = ground.log().await;
    assert_eq!(log.value(&ground, in_store.id.parse().unwrap(), "A", 2), b"two");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_is_one_of_the_account_or_of_all_and_nothing_is_kept_without_one() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    let all = v1::SetQuotaRequest { all_accounts: true, undelete_window_ms: Some(0), tokens_max: Some(7), ..Default::default() };
    client.set_quota(all.clone()).await.unwrap();
    refused(client.set_quota(v1::SetQuotaRequest { account: ACCOUNT.into(), ..all.clone() }).await, ErrorKind::InvalidArgument);
    refused(client.set_quota(v1::SetQuotaRequest { secrets_max: Some(1), ..all }).await, ErrorKind::InvalidArgument);
    client.create_secrets(create(vec![item("A", "a"), item("B", "b")])).await.unwrap();
    client.delete_secrets(delete(&["A"], false)).await.unwrap();
    assert_eq!(deleted(&client).await, []);
    let own = v1::SetQuotaRequest { account: ACCOUNT.into(), undelete_window_ms: Some(60_000), secrets_max: Some(5), ..Default::default() };
    let quota = client.set_quota(own).await.unwrap().quota.unwrap();
    assert_eq!((quota.undelete_window_ms, quota.secrets_max, quota.tokens_max), (60_000, 5, 7));
    client.delete_secrets(delete(&["B"], false)).await.unwrap();
    assert_eq!(deleted(&client).await.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reminder_is_shown_and_counted_and_nothing_more() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    let reminder = Some(v1::Reminder { expires_ms: 1, rotate_every_ms: 86_400_000 });
    let create = v1::CreateSecretsRequest { reminder, ..create(vec![item("A", "a"), item("B", "b")]) };
    let made = client.create_secrets(create).await.unwrap().secrets;
    assert!(made.iter().all(|secret| secret.overdue && secret.due_ms == 1 && secret.rotate_every_ms == 86_400_000));
    client.set_value(set("A", "still set")).await.unwrap();
    let edit = v1::EditSecretRequest { secret: secret("A"), expires_ms: Some(0), ..Default::default() };
    let edited = client.edit_secret(edit).await.unwrap().secret.unwrap();
    assert_eq!((edited.expires_ms, edited.overdue), (0, false));
    assert!(edited.due_ms > edited.created_ms);
    let listed = client.list_secrets(v1::ListSecretsRequest { store: store("default"), ..Default::default() }).await.unwrap().secrets;
    assert_eq!(listed.iter().map(|secret| secret.overdue).collect::<Vec<_>>(), [false, true]);
    until("one overdue secret in the metrics", || async {
        let text = metrics().render();
        text.contains("cinnabar_control_secrets_overdue{kind=\"expiry\"} 1").then_some(())
    })
    .await;
    node.stop().await;
}
