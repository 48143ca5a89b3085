//! Lists over several pages.

use std::collections::BTreeSet;

use wire::{ErrorKind, v1};

use crate::harness::{ACCOUNT, Ground, bind, create, create_consumer, create_store, item, page, refused, store, with_store, worker};

/// Reads a list two by two: each entry once, in pages that are full but for the last.
macro_rules! all_pages {
    ($client:expr, $list:ident, $items:ident, $name:expr, $request:expr) => {{
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let reply = $client.$list($request(page(2, token))).await.unwrap();
            pages += 1;
            assert!(reply.$items.len() == 2 || reply.next_page.is_empty(), "only the last page is short");
            seen.extend(reply.$items.into_iter().map($name));
            token = reply.next_page;
            if token.is_empty() {
                break;
            }
        }
        assert!(pages > 1, "several pages");
        let distinct: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "each once: {seen:?}");
        distinct
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_goes_on_where_the_page_before_ended() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    let names = |prefix: &str| (0..5).map(|n| format!("{prefix}{n}")).collect::<BTreeSet<_>>();
    for name in names("acc") {
        client.create_account(v1::CreateAccountRequest { name, ..Default::default() }).await.unwrap();
    }
    for name in names("store") {
        create_store(&client, &name).await;
    }
    client.create_secrets(create(names("S").iter().map(|name| item(name, "v")).collect())).await.unwrap();
    for name in names("web") {
        create_consumer(&client, &name).await;
    }
    for name in names("B") {
        client.bind(bind("web0", &name, "S0")).await.unwrap();
    }
    client.bind(bind("web1", "OTHER", "S0")).await.unwrap();

    let request = |page| v1::ListAccountsRequest { page };
    let found = all_pages!(client, list_accounts, accounts, |one| one.name, request);
    assert_eq!(found, names("acc").into_iter().chain([ACCOUNT.to_owned()]).collect());
    let request = |page| v1::ListStoresRequest { account: ACCOUNT.into(), page };
    let found = all_pages!(client, list_stores, stores, |one| one.name, request);
    assert_eq!(found, names("store").into_iter().chain(["default".to_owned()]).collect());
    let request = |page| v1::ListSecretsRequest { store: store("default"), page };
    assert_eq!(all_pages!(client, list_secrets, secrets, |one| one.name, request), names("S"));
    let request = |page| v1::ListConsumersRequest { account: ACCOUNT.into(), page };
    assert_eq!(all_pages!(client, list_consumers, consumers, |one| one.name, request), names("web"));
    let request = |page| v1::ListBindingsRequest { account: ACCOUNT.into(), consumer: worker("web0"), page };
    assert_eq!(all_pages!(client, list_bindings, bindings, |one| one.name, request), names("B"));
    let request = |page| v1::ListBindingsRequest { account: ACCOUNT.into(), consumer: None, page };
    let found = all_pages!(client, list_bindings, bindings, |one| format!("{} {}", one.consumer_name, one.name), request);
    assert_eq!(found, names("web0 B").into_iter().chain(["web1 OTHER".to_owned()]).collect());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_token_that_no_page_gave_out_is_refused() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    create_store(&client, "other").await;
    let there =
        |name: &str| v1::CreateSecretsRequest { store: store(name), ..create((0..3).map(|n| item(&format!("{name}{n}"), "v")).collect()) };
    client.create_secrets(there("default")).await.unwrap();
    client.create_secrets(there("other")).await.unwrap();
    let secrets = async |name: &str, token: &str| {
        client.list_secrets(v1::ListSecretsRequest { store: store(name), page: page(1, token.to_owned()) }).await
    };
    let good = secrets("default", "").await.unwrap().next_page;
    assert!(secrets("default", &good).await.is_ok());
    for forged in
        ["zz", "0", "é", "ffff", "-1", &good[..good.len() - 1], &good.replacen('0', "+", 1), &format!("ff{good}"), &"0".repeat(5000)]
    {
        let message = refused(secrets("default", forged).await, ErrorKind::InvalidArgument);
        assert!(message.contains("page.token"), "{message}");
        refused(
            client.list_stores(v1::ListStoresRequest { account: ACCOUNT.into(), page: page(1, forged.to_owned()) }).await,
            ErrorKind::InvalidArgument,
        );
        refused(client.list_accounts(v1::ListAccountsRequest { page: page(1, forged.to_owned()) }).await, ErrorKind::InvalidArgument);
    }
    // A token of another list shows nothing of that list: refused, or no more than an own page.
    let stores = client.list_stores(v1::ListStoresRequest { account: ACCOUNT.into(), page: page(1, String::new()) }).await.unwrap();
    let foreign = secrets("other", "").await.unwrap().next_page;
    for token in [stores.next_page, foreign] {
        match secrets("default", &token).await {
            Ok(reply) => assert!(reply.secrets.iter().all(|secret| secret.store_name == "default"), "{reply:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument),
        }
    }
    node.stop().await;
}
