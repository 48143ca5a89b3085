//! That the tests of the API's rules can fail: each rule is left out, and a test of what it protects must miss it.

use std::panic::catch_unwind;

use client::Client;
use hyper::Method;
use seams::mutation::{Mutation, with};
use serde_json::json;
use wire::{ErrorKind, v1};

use crate::{
    harness::{ACCOUNT, Ground, create, create_store, item, refused, secret, set, show, until, with_store},
    http::Rest,
};

// A deliberate bug is on in one thread, so these nodes run in the thread of their test.

async fn token(client: &Client, role: &str, store: &str, permission: &str) -> String {
    let grant = v1::TokenGrant { role: role.into(), account: ACCOUNT.into(), store: store.into() };
    let permission = permission.into();
    let request = v1::CreateTokenRequest { name: "tested".into(), grants: vec![grant], permission, ..Default::default() };
    client.create_token(request).await.unwrap().token
}

#[tokio::test]
async fn token_for_reading_changes_nothing_whatever_its_roles() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    operator.create_secrets(create(vec![item("KEY", "v")])).await.unwrap();
    let reader = node.client(&token(&operator, "admin", "", "read").await);
    assert_eq!(show(&reader, "KEY").await.unwrap().current_version, 1);
    refused(reader.set_value(set("KEY", "w")).await, ErrorKind::Denied);
    node.stop().await;
}

#[tokio::test]
async fn token_for_one_store_reaches_no_other() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    create_store(&operator, "other").await;
    operator.create_secrets(create(vec![item("KEY", "v")])).await.unwrap();
    let narrow = node.client(&token(&operator, "admin", "other", "").await);
    refused(show(&narrow, "KEY").await, ErrorKind::NotFound);
    refused(narrow.set_value(set("KEY", "w")).await, ErrorKind::NotFound);
    node.stop().await;
}

#[tokio::test]
async fn account_of_others_is_as_unknown_as_none() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    let theirs = operator.create_account(v1::CreateAccountRequest { name: "theirs".into(), ..Default::default() }).await.unwrap();
    let admin = node.client(&token(&operator, "admin", "", "").await);
    for account in [theirs.account.unwrap().id, "0".repeat(32)] {
        refused(admin.show_account(v1::ShowAccountRequest { account }).await, ErrorKind::NotFound);
    }
    node.stop().await;
}

#[tokio::test]
async fn quota_of_secrets_is_kept() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    let set = v1::SetQuotaRequest { account: ACCOUNT.into(), secrets_max: Some(1), stores_max: Some(1), ..Default::default() };
    operator.set_quota(set).await.unwrap();
    operator.create_secrets(create(vec![item("ONE", "v")])).await.unwrap();
    refused(operator.create_secrets(create(vec![item("TWO", "v")])).await, ErrorKind::QuotaExceeded);
    refused(operator.show_secret(v1::ShowSecretRequest { secret: secret("TWO") }).await, ErrorKind::NotFound);
    node.stop().await;
}

#[tokio::test]
async fn request_sent_again_gets_its_first_answer() {
    let ground = Ground::new();
    let node = ground.start().await;
    with_store(&node.operator()).await;
    let rest = Rest::operator(&ground, &node);
    let stores = format!("/accounts/{ACCOUNT}/secrets_store/stores");
    let body = json!({"name": "spare"}).to_string();
    let first = rest.send(Method::POST, &stores, &[("x-stainless-retry-count", "0")], &body).await;
    let again = rest.send(Method::POST, &stores, &[("x-stainless-retry-count", "1")], &body).await;
    assert_eq!(first.result()["id"], again.result()["id"]);
    node.stop().await;
}

#[tokio::test]
async fn token_that_changes_too_often_is_told_to_wait() {
    let ground = Ground::new();
    let mut config = ground.config();
    (config.rates.writes_per_second, config.rates.writes_burst) = (1, 6);
    let node = ground.start_with(config).await;
    let operator = node.operator();
    with_store(&operator).await;
    let mut waits = 0;
    for _ in 0..40 {
        let error = operator.set_value(set("NONE", "x")).await.expect_err("there is none");
        waits += u32::from(error.kind() == ErrorKind::Busy);
    }
    assert!(waits > 0, "nobody was told to wait");
    node.stop().await;
}

#[tokio::test]
async fn refusal_at_the_door_is_noted_over_a_restart() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    let curious = node.client(&token(&operator, "reporter", "", "").await);
    refused(curious.create_secrets(create(vec![item("KEY", "v")])).await, ErrorKind::Denied);
    // What is read after it is noted after it, at the end of the node at the latest.
    curious.list_secrets(v1::ListSecretsRequest { store: crate::harness::store("default"), ..Default::default() }).await.unwrap();
    node.stop().await;
    let node = ground.start().await;
    let operator = node.operator();
    let filter = v1::AuditFilter { principal: "tested".into(), outcome: "noted".into(), ..Default::default() };
    let rows = until("the read is noted", || async {
        let request = v1::ListAuditRequest { filter: Some(filter.clone()), ..Default::default() };
        let rows: Vec<_> = operator.list_audit(request).await.unwrap().entries.into_iter().flat_map(|entry| entry.calls).collect();
        rows.iter().any(|row| row.call == "secrets.list").then_some(rows)
    })
    .await;
    assert!(rows.iter().any(|row| row.refusal == "denied" && row.call == "secrets.create"), "{rows:?}");
    node.stop().await;
}

#[test]
fn rule_of_the_api_that_is_left_out_is_caught_by_the_test_of_what_it_protects() {
    let table: [(Mutation, fn()); 7] = [
        (Mutation::ReadPermissionIgnored, token_for_reading_changes_nothing_whatever_its_roles),
        (Mutation::ReachIgnored, token_for_one_store_reaches_no_other),
        (Mutation::ForeignAccountShown, account_of_others_is_as_unknown_as_none),
        (Mutation::QuotaIgnored, quota_of_secrets_is_kept),
        (Mutation::RepetitionUnseen, request_sent_again_gets_its_first_answer),
        (Mutation::RateIgnored, token_that_changes_too_often_is_told_to_wait),
        (Mutation::RefusalUnnoted, refusal_at_the_door_is_noted_over_a_restart),
    ];
    let survives = |(mutation, test): &(Mutation, fn())| catch_unwind(|| with(*mutation, *test)).is_ok();
    let survivors: Vec<Mutation> = table.iter().filter(|row| survives(row)).map(|(mutation, _)| *mutation).collect();
    assert_eq!(survivors, [], "not caught");
}
