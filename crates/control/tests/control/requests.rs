//! Request ids: a retry gets the first answer, also when what it was about is gone by now.

use wire::{ErrorKind, v1};

use crate::harness::{
    ACCOUNT, Ground, bind, create, create_consumer, create_store, delete, item, refused, secret, set, show, store, with_store, worker,
};

fn id(n: u8) -> String {
    format!("{n:032x}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_of_a_secrets_change_gets_the_first_answer_also_when_all_is_gone() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    let creating = v1::CreateSecretsRequest { request_id: id(1), ..create(vec![item("A", "one"), item("B", "two")]) };
    let created = client.create_secrets(creating.clone()).await.unwrap();
    assert_eq!(client.create_secrets(creating.clone()).await.unwrap(), created);
    let setting = v1::SetValueRequest { request_id: id(2), expect_version: Some(1), ..set("A", "three") };
    let first = client.set_value(setting.clone()).await.unwrap();
    let again = client.set_value(setting.clone()).await.unwrap();
    assert_eq!((again.version, again.receipt), (2, first.receipt), "not a third version, and no failed expectation");
    let copying = v1::DuplicateSecretRequest { source: secret("A"), name: "C".into(), request_id: id(3), ..Default::default() };
    let copied = client.duplicate_secret(copying.clone()).await.unwrap();
    assert_eq!(client.duplicate_secret(copying.clone()).await.unwrap(), copied);
    let deleting = v1::DeleteSecretsRequest { request_id: id(4), ..delete(&["A", "B"], false) };
    let deleted = client.delete_secrets(deleting.clone()).await.unwrap();
    assert_eq!(client.delete_secrets(deleting.clone()).await.unwrap(), deleted, "what it names is gone");

    let again = client.create_secrets(creating.clone()).await.unwrap();
    let ids = |reply: &v1::CreateSecretsReply| reply.secrets.iter().map(|secret| secret.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&again), again.receipt), (ids(&created), created.receipt), "the first answer, and nothing made again");
    assert!(again.secrets.iter().all(|secret| secret.status() == v1::SecretStatus::Deleted));
    refused(show(&client, "A").await, ErrorKind::NotFound);
    assert_eq!(client.set_value(setting.clone()).await.unwrap().version, 2);

    // The whole store goes; the answers stay, over a restart too.
    let dropping = v1::DeleteStoreRequest { store: store("default"), force: true, request_id: id(5) };
    let dropped = client.delete_store(dropping.clone()).await.unwrap();
    node.stop().await;
    let node = ground.start().await;
    let client = node.operator();
    assert_eq!(client.delete_store(dropping).await.unwrap(), dropped);
    let again = client.create_secrets(creating).await.unwrap();
    assert_eq!((ids(&again), again.receipt), (ids(&created), created.receipt));
    assert_eq!(client.set_value(setting).await.unwrap().receipt, first.receipt);
    assert_eq!(client.delete_secrets(deleting).await.unwrap(), deleted);
    assert_eq!(client.duplicate_secret(copying).await.unwrap().receipt, copied.receipt);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_of_other_changes_gets_the_first_answer() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    let account = v1::CreateAccountRequest { name: ACCOUNT.into(), id: String::new(), request_id: id(1) };
    let made = client.create_account(account.clone()).await.unwrap();
    assert_eq!(client.create_account(account).await.unwrap(), made);
    let store = v1::CreateStoreRequest { account: ACCOUNT.into(), name: "default".into(), request_id: id(2) };
    let stored = client.create_store(store.clone()).await.unwrap();
    assert_eq!(client.create_store(store).await.unwrap(), stored);
    client.create_secrets(create(vec![item("A", "a")])).await.unwrap();
    let consumer = v1::CreateConsumerRequest { consumer: worker("web"), request_id: id(3) };
    let consumed = client.create_consumer(consumer.clone()).await.unwrap();
    assert_eq!(client.create_consumer(consumer.clone()).await.unwrap(), consumed);
    let binding = v1::BindRequest { request_id: id(4), ..bind("web", "DB", "A") };
    let bound = client.bind(binding.clone()).await.unwrap();
    assert_eq!(client.bind(binding.clone()).await.unwrap(), bound);
    let unbinding = v1::UnbindRequest { consumer: worker("web"), name: "DB".into(), request_id: id(5) };
    let unbound = client.unbind(unbinding.clone()).await.unwrap();
    assert_eq!(client.unbind(unbinding.clone()).await.unwrap(), unbound, "the binding is gone");
    let again = client.bind(binding.clone()).await.unwrap();
    assert_eq!(again.receipt, bound.receipt, "and not made again");
    let list = v1::ListBindingsRequest { account: ACCOUNT.into(), ..Default::default() };
    assert!(client.list_bindings(list).await.unwrap().bindings.is_empty());
    let quota = v1::SetQuotaRequest { account: ACCOUNT.into(), secrets_max: Some(9), request_id: id(6), ..Default::default() };
    let limited = client.set_quota(quota.clone()).await.unwrap();
    assert_eq!(client.set_quota(quota).await.unwrap(), limited);

    // A refusal is an answer too: it is not asked again, though it would pass by now. That something is missing is none, for a node that
    // is behind may have looked it up.
    let early = v1::BindRequest { request_id: id(7), ..bind("later", "DB", "A") };
    refused(client.bind(early.clone()).await, ErrorKind::NotFound);
    create_consumer(&client, "later").await;
    client.bind(early).await.unwrap();
    let taken = v1::CreateConsumerRequest { consumer: worker("web"), request_id: id(9) };
    refused(client.create_consumer(taken.clone()).await, ErrorKind::AlreadyExists);

    let deleting = v1::DeleteConsumerRequest { consumer: worker("web"), request_id: id(8) };
    let deleted = client.delete_consumer(deleting.clone()).await.unwrap();
    assert_eq!(client.delete_consumer(deleting).await.unwrap(), deleted);
    refused(client.create_consumer(taken).await, ErrorKind::AlreadyExists);
    assert_eq!(client.unbind(unbinding).await.unwrap(), unbound);
    assert_eq!(client.create_consumer(consumer).await.unwrap().receipt, consumed.receipt);
    refused(client.create_consumer_token(token("web", "")).await, ErrorKind::NotFound);
    node.stop().await;
}

fn token(consumer: &str, request_id: &str) -> v1::CreateConsumerTokenRequest {
    v1::CreateConsumerTokenRequest { consumer: worker(consumer), lifetime_ms: 60_000, request_id: request_id.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_of_a_token_creation_names_the_token_and_shows_none() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    create_consumer(&client, "web").await;
    let first = client.create_consumer_token(token("web", &id(1))).await.unwrap();
    assert!(!first.token.is_empty());
    let again = client.create_consumer_token(token("web", &id(1))).await.unwrap();
    assert_eq!((&again.token_id, &*again.token, again.receipt), (&first.token_id, "", first.receipt));
    let roll =
        v1::RollConsumerTokenRequest { consumer: worker("web"), token_id: first.token_id.clone(), request_id: id(2), ..Default::default() };
    let rolled = client.roll_consumer_token(roll.clone()).await.unwrap();
    assert!(!rolled.token.is_empty());
    let again = client.roll_consumer_token(roll).await.unwrap();
    assert_eq!((&again.token_id, &*again.token), (&rolled.token_id, ""));
    let revoke = v1::RevokeConsumerTokenRequest { consumer: worker("web"), token_id: rolled.token_id.clone(), request_id: id(3) };
    let revoked = client.revoke_consumer_token(revoke.clone()).await.unwrap();
    assert_eq!(client.revoke_consumer_token(revoke).await.unwrap(), revoked);
    client.delete_consumer(v1::DeleteConsumerRequest { consumer: worker("web"), request_id: String::new() }).await.unwrap();
    let again = client.create_consumer_token(token("web", &id(1))).await.unwrap();
    assert_eq!((&again.token_id, &*again.token), (&first.token_id, ""), "also when token and consumer are gone");

    // Several at once under one id: one token is made, and shown at most once.
    create_consumer(&client, "web").await;
    let racing = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.create_consumer_token(token("web", &id(9))).await.unwrap() })
    });
    let mut replies = Vec::new();
    for task in racing.collect::<Vec<_>>() {
        replies.push(task.await.unwrap());
    }
    assert!(replies.iter().all(|reply| reply.token_id == replies[0].token_id), "one token");
    assert_eq!(replies.iter().filter(|reply| !reply.token.is_empty()).count(), 1, "shown once");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_id_with_other_content_is_refused_and_of_another_operator_is_another() {
    let ground = Ground::new();
    ground.start().await.stop().await;
    let [second] =
        ground.operators([vec![state::Grant { role: state::Role::SuperAdministrator, scope: state::GrantScope::Cluster }]]).await;
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    let creating = |name: &str, value: &str| v1::CreateSecretsRequest { request_id: id(1), ..create(vec![item(name, value)]) };
    client.create_secrets(creating("A", "one")).await.unwrap();
    refused(client.create_secrets(creating("A", "two")).await, ErrorKind::RequestReused);
    refused(client.create_secrets(creating("B", "one")).await, ErrorKind::RequestReused);
    // Another operation, even one whose message encodes the same.
    let store = v1::CreateStoreRequest { account: ACCOUNT.into(), name: "x".into(), request_id: id(1) };
    refused(client.create_store(store).await, ErrorKind::RequestReused);
    for value in ["one", "two"] {
        let setting = v1::SetValueRequest { request_id: id(2), ..set("A", value) };
        match value {
            "one" => assert_eq!(client.set_value(setting).await.unwrap().version, 2),
            _ => drop(refused(client.set_value(setting).await, ErrorKind::RequestReused)),
        }
    }
    let malformed = v1::SetValueRequest { request_id: "short".into(), ..set("A", "x") };
    let message = refused(client.set_value(malformed).await, ErrorKind::InvalidArgument);
    assert!(message.contains("request_id"), "{message}");
    // The memory is the token's own: another one's id says nothing about it.
    let other = node.client(&second);
    other.create_secrets(creating("B", "two")).await.unwrap();
    create_store(&other, "more").await;
    node.stop().await;
}
