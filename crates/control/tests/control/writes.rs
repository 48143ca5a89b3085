//! Every operation that writes: what it replies, and what is there afterwards.

use wire::{
    ErrorKind,
    v1::{self, PointerMove, SecretStatus, Stage},
};

use crate::harness::{
    ACCOUNT, Ground, bind, create, create_consumer, create_store, delete, item, refused, secret, set, show, store, until, with_store,
    worker,
};

fn moved(name: &str, to: PointerMove, version: u64) -> v1::MovePointerRequest {
    v1::MovePointerRequest { secret: secret(name), r#move: to.into(), version, request_id: String::new() }
}

fn pointers(secret: &v1::Secret) -> (u64, u64, u64) {
    (secret.current_version, secret.previous_version, secret.candidate_version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_of_secrets_is_created_whole_or_not_at_all() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    let default = with_store(&client).await;

    let reply = client.create_secrets(create(vec![item("A", "a"), item("B", "b")])).await.unwrap();
    let names: Vec<_> = reply.secrets.iter().map(|secret| (&*secret.name, secret.current_version, &secret.store_id)).collect();
    assert_eq!(names, [("A", 1, &default.id), ("B", 1, &default.id)]);
    assert!(reply.secrets.iter().all(|secret| secret.status() == SecretStatus::Pending), "no edge has them");
    let receipt = reply.receipt.unwrap().position.unwrap();

    let message = refused(client.create_secrets(create(vec![item("C", "c"), item("A", "again")])).await, ErrorKind::AlreadyExists);
    assert!(message.contains('A'), "{message}");
    refused(show(&client, "C").await, ErrorKind::NotFound);
    refused(client.create_secrets(create(vec![item("D", "d"), item("D", "d")])).await, ErrorKind::AlreadyExists);
    refused(client.create_secrets(create(Vec::new())).await, ErrorKind::InvalidArgument);
    let long = item("L", vec![0; types::VALUE_BYTES_MAX + 1]);
    let message = refused(client.create_secrets(create(vec![item("E", "e"), long])).await, ErrorKind::TooLarge);
    assert!(message.contains("secrets[1]"), "{message}");
    let many = (0..=state::limits::ITEMS_MAX).map(|n| item(&format!("M{n}"), "m")).collect();
    refused(client.create_secrets(create(many)).await, ErrorKind::TooLarge);
    let no_scope = v1::NewSecret { scopes: Vec::new(), ..item("S", "s") };
    refused(client.create_secrets(create(vec![no_scope])).await, ErrorKind::InvalidArgument);

    let listed = client.list_secrets(v1::ListSecretsRequest { store: store("default"), page: None }).await.unwrap();
    let mut names: Vec<_> = listed.secrets.into_iter().map(|secret| secret.name).collect();
    names.sort();
    assert_eq!(names, ["A", "B"]);
    let next = client.create_secrets(create(vec![item("C", "c")])).await.unwrap().receipt.unwrap().position.unwrap();
    assert!(next.revision > receipt.revision, "positions grow");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn value_set_with_an_expectation_that_fails_changes_nothing() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    let default = with_store(&client).await;
    client.create_secrets(create(vec![item("A", "one")])).await.unwrap();

    let reply = client.set_value(v1::SetValueRequest { expect_version: Some(1), ..set("A", "two") }).await.unwrap();
    assert_eq!((reply.version, pointers(&reply.secret.unwrap())), (2, (2, 1, 0)));
    refused(client.set_value(v1::SetValueRequest { expect_version: Some(1), ..set("A", "three") }).await, ErrorKind::Precondition);
    refused(client.set_value(set("NONE", "x")).await, ErrorKind::NotFound);
    refused(client.set_value(v1::SetValueRequest { stage: 77, ..set("A", "x") }).await, ErrorKind::InvalidArgument);
    refused(client.set_value(set("A", vec![0; types::VALUE_BYTES_MAX + 1])).await, ErrorKind::TooLarge);
    assert_eq!(pointers(&show(&client, "A").await.unwrap()), (2, 1, 0));
    node.stop().await;

    let log = ground.log().await;
    let id = default.id.parse().unwrap();
    assert_eq!(log.value(&ground, id, "A", 1), b"one");
    assert_eq!(log.value(&ground, id, "A", 2), b"two");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pointers_move_without_a_new_value() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("A", "one")])).await.unwrap();
    let shown = async |request| pointers(&client.move_pointer(request).await.unwrap().secret.unwrap());

    refused(client.move_pointer(moved("A", PointerMove::Promote, 0)).await, ErrorKind::Precondition);
    refused(client.move_pointer(moved("A", PointerMove::Revert, 0)).await, ErrorKind::Precondition);
    refused(client.move_pointer(moved("A", PointerMove::Unspecified, 0)).await, ErrorKind::InvalidArgument);
    let staged = client.set_value(v1::SetValueRequest { stage: Stage::Candidate.into(), ..set("A", "two") }).await.unwrap();
    assert_eq!((staged.version, pointers(&staged.secret.unwrap())), (2, (1, 0, 2)));
    assert_eq!(shown(moved("A", PointerMove::Promote, 0)).await, (2, 1, 0));
    assert_eq!(shown(moved("A", PointerMove::Revert, 0)).await, (1, 2, 0));
    client.set_value(set("A", "three")).await.unwrap();
    assert_eq!(shown(moved("A", PointerMove::Rollback, 2)).await, (2, 3, 0));
    refused(client.move_pointer(moved("A", PointerMove::Rollback, 99)).await, ErrorKind::NotFound);
    client.set_value(v1::SetValueRequest { stage: Stage::Candidate.into(), ..set("A", "four") }).await.unwrap();
    assert_eq!(shown(moved("A", PointerMove::DropCandidate, 0)).await, (2, 3, 0));

    let versions = client.list_versions(v1::ListVersionsRequest { secret: secret("A") }).await.unwrap().versions;
    let flags: Vec<_> = versions.iter().map(|one| (one.version, one.current, one.previous, one.candidate)).collect();
    assert!(flags.is_sorted_by(|a, b| a.0 > b.0), "newest first: {flags:?}");
    assert!(flags.contains(&(2, true, false, false)) && flags.contains(&(3, false, true, false)), "{flags:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_changes_what_it_names_and_no_value() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("A", "one")])).await.unwrap();

    let request = v1::EditSecretRequest { secret: secret("A"), comment: Some("for the web".into()), ..Default::default() };
    let edited = client.edit_secret(request).await.unwrap().secret.unwrap();
    assert_eq!((&*edited.comment, &edited.scopes[..], edited.current_version), ("for the web", &["workers".to_owned()][..], 1));
    let scopes = Some(v1::ScopeList { scopes: vec!["workers".into(), "dex".into()] });
    let edited = client.edit_secret(v1::EditSecretRequest { secret: secret("A"), scopes, ..Default::default() }).await.unwrap();
    let edited = edited.secret.unwrap();
    assert_eq!((&*edited.comment, edited.scopes.len(), edited.current_version), ("for the web", 2, 1));
    let none = Some(v1::ScopeList::default());
    let message = refused(
        client.edit_secret(v1::EditSecretRequest { secret: secret("A"), scopes: none, ..Default::default() }).await,
        ErrorKind::InvalidArgument,
    );
    assert!(message.contains("scopes"), "{message}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicate_holds_the_value_under_its_own_name_and_seal() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    let default = with_store(&client).await;
    client.create_secrets(create(vec![item("A", "one")])).await.unwrap();
    client.set_value(set("A", "two")).await.unwrap();

    let request = v1::DuplicateSecretRequest { source: secret("A"), name: "B".into(), comment: "copy".into(), ..Default::default() };
    let copy = client.duplicate_secret(request.clone()).await.unwrap().secret.unwrap();
    assert_eq!((&*copy.name, &*copy.comment, &copy.scopes[..]), ("B", "copy", &["workers".to_owned()][..]));
    assert_eq!(pointers(&copy), (1, 0, 0));
    refused(client.duplicate_secret(request).await, ErrorKind::AlreadyExists);
    // A copy stands alone: what becomes of the source does not change it.
    client.set_value(set("A", "three")).await.unwrap();
    node.stop().await;

    let log = ground.log().await;
    let (id, state) = (default.id.parse().unwrap(), log.state());
    assert_eq!(log.value(&ground, id, "B", 1), b"two");
    let sealed = |name: &str, at: usize| {
        let (secret, record) = state.secret_by_name(id, &name.parse().unwrap()).unwrap().unwrap();
        state.value(secret, record.versions[at].value_id).unwrap().unwrap().sealed
    };
    assert!(sealed("A", 1) != sealed("B", 0), "the ciphertext is not copied");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_secret_is_deleted_only_by_force_and_its_binding_says_so() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("A", "a"), item("B", "b")])).await.unwrap();
    create_consumer(&client, "web").await;
    let bound = client.bind(bind("web", "DB", "A")).await.unwrap().binding.unwrap();
    assert_eq!((&*bound.name, &*bound.secret_name, &*bound.store_name, bound.target_deleted), ("DB", "A", "default", false));
    // Bound twice to the same is one binding; to something else it is refused.
    client.bind(bind("web", "DB", "A")).await.unwrap();
    refused(client.bind(bind("web", "DB", "B")).await, ErrorKind::AlreadyExists);

    let message = refused(client.delete_secrets(delete(&["B", "A"], false)).await, ErrorKind::Precondition);
    assert!(message.contains("worker/web") && message.contains("DB"), "names the consumer: {message}");
    assert!(show(&client, "B").await.is_ok(), "nothing was deleted");
    refused(client.delete_secrets(delete(&["B", "NONE"], false)).await, ErrorKind::NotFound);
    refused(client.delete_secrets(delete(&[], false)).await, ErrorKind::InvalidArgument);
    client.delete_secrets(delete(&["B"], false)).await.unwrap();
    client.delete_secrets(delete(&["A"], true)).await.unwrap();
    refused(show(&client, "A").await, ErrorKind::NotFound);
    let list = v1::ListBindingsRequest { account: ACCOUNT.into(), consumer: worker("web"), page: None };
    let bindings = client.list_bindings(list).await.unwrap().bindings;
    assert!(matches!(&bindings[..], [one] if one.target_deleted), "{bindings:?}");
    // The name is free again.
    client.create_secrets(create(vec![item("A", "new")])).await.unwrap();
    let unbind = v1::UnbindRequest { consumer: worker("web"), name: "DB".into(), request_id: String::new() };
    client.unbind(unbind.clone()).await.unwrap();
    refused(client.unbind(unbind).await, ErrorKind::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_store_is_gone_at_once_and_emptied_in_the_background() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    create_store(&client, "other").await;
    let items = (0..50).map(|n| item(&format!("S{n}"), "value")).collect();
    client.create_secrets(create(items)).await.unwrap();
    let quota = async || client.show_quota(v1::ShowQuotaRequest { account: ACCOUNT.into() }).await.unwrap();
    assert_eq!((quota().await.stores, quota().await.secrets), (2, 50));

    let request = |force| v1::DeleteStoreRequest { store: store("default"), force, request_id: String::new() };
    let message = refused(client.delete_store(request(false)).await, ErrorKind::Precondition);
    assert!(message.contains("not empty"), "{message}");
    client.delete_store(request(true)).await.unwrap();
    refused(client.show_store(v1::ShowStoreRequest { store: store("default") }).await, ErrorKind::NotFound);
    refused(show(&client, "S1").await, ErrorKind::NotFound);
    refused(client.create_secrets(create(vec![item("A", "a")])).await, ErrorKind::NotFound);
    let stores = client.list_stores(v1::ListStoresRequest { account: ACCOUNT.into(), page: None }).await.unwrap().stores;
    assert!(matches!(&stores[..], [one] if one.name == "other"), "{stores:?}");
    until("the store was emptied", async || (quota().await.secrets == 0).then_some(())).await;
    // The name is free while and after the old one is emptied.
    create_store(&client, "default").await;
    client.create_secrets(create(vec![item("S1", "new")])).await.unwrap();
    node.stop().await;

    let log = ground.log().await;
    assert!(log.state().next_job().is_none(), "no job is left");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_bounds_what_is_created_and_keeps_what_is_not_named() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    let set_quota = v1::SetQuotaRequest { account: ACCOUNT.into(), secrets_max: Some(2), ..Default::default() };
    let quota = client.set_quota(set_quota).await.unwrap().quota.unwrap();
    assert_eq!((quota.secrets_max, quota.stores), (2, 1));
    assert!(quota.stores_max > 2, "what is not named stays: {quota:?}");
    refused(client.create_secrets(create(vec![item("A", ""), item("B", ""), item("C", "")])).await, ErrorKind::QuotaExceeded);
    client.create_secrets(create(vec![item("A", ""), item("B", "")])).await.unwrap();
    refused(client.create_secrets(create(vec![item("C", "")])).await, ErrorKind::QuotaExceeded);
    let wide = v1::SetQuotaRequest { account: ACCOUNT.into(), stores_max: Some(1 << 32), ..Default::default() };
    refused(client.set_quota(wide).await, ErrorKind::InvalidArgument);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_tokens_are_made_rolled_and_revoked() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    create_consumer(&client, "web").await;
    let make = v1::CreateConsumerTokenRequest { consumer: worker("web"), lifetime_ms: 0, request_id: String::new() };
    let first = client.create_consumer_token(make.clone()).await.unwrap();
    assert!(seal::ConsumerToken::parse(&first.token).is_ok() && first.expires_ms == 0);
    let roll = v1::RollConsumerTokenRequest {
        consumer: worker("web"),
        token_id: first.token_id.clone(),
        lifetime_ms: 60_000,
        grace_ms: 1000,
        request_id: String::new(),
    };
    let second = client.roll_consumer_token(roll).await.unwrap();
    assert!(second.token_id != first.token_id && second.token != first.token && second.expires_ms > 0);
    let list = async || {
        let request = v1::ListConsumerTokensRequest { consumer: worker("web") };
        let tokens = client.list_consumer_tokens(request).await.unwrap().tokens;
        tokens.into_iter().map(|token| (token.token_id, token.expires_ms > 0)).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(list().await, [(first.token_id.clone(), true), (second.token_id.clone(), true)].into());
    let revoke = v1::RevokeConsumerTokenRequest { consumer: worker("web"), token_id: first.token_id, request_id: String::new() };
    client.revoke_consumer_token(revoke).await.unwrap();
    assert_eq!(list().await, [(second.token_id, true)].into());
    refused(
        client.create_consumer_token(v1::CreateConsumerTokenRequest { lifetime_ms: u64::MAX, ..make.clone() }).await,
        ErrorKind::InvalidArgument,
    );
    let gone = v1::DeleteConsumerRequest { consumer: worker("web"), request_id: String::new() };
    client.delete_consumer(gone).await.unwrap();
    refused(client.create_consumer_token(make).await, ErrorKind::NotFound);
    node.stop().await;
}
