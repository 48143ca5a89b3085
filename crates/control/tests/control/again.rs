//! Deletions that come again from clients which count them, and lists in pages.

use hyper::Method;
use serde_json::{Value, json};
use wire::v1;

use crate::{
    harness::{ACCOUNT, Ground, bind, create, create_consumer, item, with_store},
    http::{Answer, Rest},
};

const FIRST: &[(&str, &str)] = &[("x-stainless-retry-count", "0")];
const AGAIN: &[(&str, &str)] = &[("x-stainless-retry-count", "1")];

#[tokio::test]
async fn deletion_that_comes_again_gets_its_first_answer_as_long_as_it_is_true() {
    let ground = Ground::new();
    let node = ground.start().await;
    let store = with_store(&node.operator()).await;
    create_consumer(&node.operator(), "shop").await;
    let rest = Rest::operator(&ground, &node);
    let grant = v1::TokenGrant { role: "admin".into(), account: ACCOUNT.into(), ..Default::default() };
    let token = v1::CreateTokenRequest { name: "other".into(), grants: vec![grant], ..Default::default() };
    let other = rest.by(&node.operator().create_token(token).await.unwrap().token);
    let stores = format!("/accounts/{}/secrets_store/stores", store.account_id);
    let secrets = format!("{stores}/default/secrets");
    let make = async |name: &str| {
        let made = rest.post(&secrets, &json!([{"name": name, "value": "v", "scopes": ["workers"]}])).await;
        made.result()[0]["id"].as_str().unwrap().to_owned()
    };
    let delete = async |rest: &Rest, path: &str, headers: &[(&str, &str)], body: &str| rest.send(Method::DELETE, path, headers, body).await;
    let receipt = |answer: &Answer| {
        assert!(answer.result().is_null());
        answer.header("cinnabar-receipt").unwrap().to_owned()
    };

    let by_id = format!("{secrets}/{}", make("A").await);
    assert_eq!(delete(&rest, &format!("{secrets}/NONE"), AGAIN, "").await.error().0, 404, "nobody has deleted it");
    let first = receipt(&delete(&rest, &by_id, FIRST, "").await);
    assert_eq!(receipt(&delete(&rest, &by_id, AGAIN, "").await), first);
    assert_eq!(receipt(&delete(&rest, &by_id, &[("x-stainless-retry-count", "2")], "").await), first);
    assert_eq!(delete(&rest, &by_id, FIRST, "").await.error(), (404, 1001, "secret_not_found"), "an equal request is another");
    assert_eq!(delete(&rest, &by_id, &[], "").await.error().0, 404);
    assert_eq!(delete(&other, &by_id, AGAIN, "").await.error().0, 404, "another token's deletion is another");

    // By its name: what was made anew under it is not said to be gone, but deleted.
    let by_name = format!("{secrets}/A");
    make("A").await;
    let first = receipt(&delete(&rest, &by_name, FIRST, "").await);
    let anew = make("A").await;
    let second = receipt(&delete(&rest, &by_name, AGAIN, "").await);
    assert_ne!(first, second);
    assert_eq!(rest.get(&format!("{secrets}/{anew}")).await.error().0, 404);
    assert_eq!(receipt(&delete(&rest, &by_name, AGAIN, "").await), second, "the newest of them");

    let both = json!({"ids": [make("A").await, make("B").await]}).to_string();
    let first = delete(&rest, &secrets, FIRST, &both).await;
    let again = delete(&rest, &secrets, AGAIN, &both).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(receipt(&first), receipt(&again));
    assert_eq!(delete(&rest, &secrets, FIRST, &both).await.error().0, 404);

    make("KEY").await;
    node.operator().bind(bind("shop", "API_KEY", "KEY")).await.unwrap();
    let refused = delete(&rest, &format!("{secrets}/KEY"), FIRST, "").await;
    assert_eq!(refused.error(), (409, 1003, "secret_in_use"));
    let bound = format!("/accounts/{ACCOUNT}/secrets_store/bindings/worker/shop/API_KEY");
    let first = receipt(&delete(&rest, &bound, FIRST, "").await);
    assert_eq!(receipt(&delete(&rest, &bound, AGAIN, "").await), first);
    assert_eq!(delete(&rest, &bound, FIRST, "").await.error().0, 404);
    receipt(&delete(&rest, &format!("{secrets}/KEY"), AGAIN, "").await);

    let spare = format!("{stores}/{}", rest.post(&stores, &json!({"name": "spare"})).await.result()["id"].as_str().unwrap());
    let first = receipt(&delete(&rest, &spare, FIRST, "").await);
    assert_eq!(receipt(&delete(&rest, &spare, AGAIN, "").await), first);
    assert_eq!(delete(&rest, &spare, FIRST, "").await.error(), (404, 1001, "store_not_found"));
    node.stop().await;
}

#[tokio::test]
async fn bindings_are_paged_as_other_lists_are() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("KEY", "v")])).await.unwrap();
    for (consumer, number) in [("shop", 23), ("till", 2)] {
        create_consumer(&client, consumer).await;
        for place in 0..number {
            client.bind(bind(consumer, &format!("B{place:02}"), "KEY")).await.unwrap();
        }
    }
    let rest = Rest::operator(&ground, &node);
    let bindings = format!("/accounts/{ACCOUNT}/secrets_store/bindings");
    let list = async |query: &str| {
        let answer = rest.get(&format!("{bindings}{query}")).await;
        let name = |one: &Value| format!("{}/{}", one["consumer"]["name"].as_str().unwrap(), one["name"].as_str().unwrap());
        let names: Vec<String> = answer.result().as_array().unwrap().iter().map(name).collect();
        let info = &answer.body["result_info"];
        assert_eq!(info["count"], names.len(), "{query}");
        (names, info["total_count"].as_u64().unwrap(), info["total_pages"].as_u64().unwrap())
    };
    let (all, total, _) = list("?per_page=100").await;
    assert_eq!((all.len(), total), (25, 25));
    let (first, total, pages) = list("").await;
    assert_eq!((&first[..], total, pages), (&all[..20], 25, 2));
    assert_eq!(list("?page=2").await, (all[20..].to_vec(), 25, 2));
    assert_eq!(list("?page=3").await, (Vec::new(), 25, 2), "past the end");
    assert_eq!(list("?page=18446744073709551615&per_page=100").await.0, Vec::<String>::new());
    assert_eq!(list("?consumer=worker/shop&page=3&per_page=10").await, (all[20..23].to_vec(), 23, 3));
    assert_eq!(list("?consumer=worker/till").await, (vec!["till/B00".to_owned(), "till/B01".to_owned()], 2, 1));

    // Who reads one store sees and counts what is bound to that one.
    let grant = v1::TokenGrant { role: "reporter".into(), account: ACCOUNT.into(), store: "other".into() };
    crate::harness::create_store(&client, "other").await;
    let token = v1::CreateTokenRequest { name: "reader".into(), grants: vec![grant], ..Default::default() };
    let reader = rest.by(&client.create_token(token).await.unwrap().token);
    let seen = reader.get(&bindings).await;
    assert_eq!((seen.result(), &seen.body["result_info"]["total_count"]), (&json!([]), &json!(0)));
    node.stop().await;
}

#[tokio::test]
async fn quota_and_account_show_all_that_is_limited_to_who_may_know() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("A", "v"), item("B", "v")])).await.unwrap();
    let grant = |store: &str| v1::TokenGrant { role: "reporter".into(), account: ACCOUNT.into(), store: store.into() };
    let token = |store: &str| v1::CreateTokenRequest { name: "t".into(), grants: vec![grant(store)], ..Default::default() };
    let rest = Rest::operator(&ground, &node);
    let whole = rest.by(&client.create_token(token("")).await.unwrap().token);
    let one = rest.by(&client.create_token(token("default")).await.unwrap().token);
    rest.delete(&format!("/accounts/{ACCOUNT}/secrets_store/stores/default/secrets/A")).await.result();

    let quota = whole.get(&format!("/accounts/{ACCOUNT}/secrets_store/quota")).await;
    let quota = quota.result();
    assert_eq!(quota["secrets"], json!({"quota": 100, "usage": 1}));
    assert_eq!(quota["stores"], json!({"quota": 10, "usage": 1}));
    assert_eq!(quota["tokens"], json!({"quota": 100, "usage": 2}));
    assert_eq!(quota["deleted_secrets"]["usage"], 1);
    assert!(quota["deleted_bytes"]["usage"].as_u64() > Some(0) && quota["deleted_bytes"]["quota"].as_u64() > Some(0));
    assert_eq!((&quota["value_bytes_max"], &quota["undelete_window_ms"]), (&json!(65_536), &json!(7 * 86_400_000)));
    for rest in [&rest, &whole] {
        assert_eq!(&rest.get("/accounts").await.result()[0]["quota"], quota);
        assert_eq!(&rest.get(&format!("/accounts/{ACCOUNT}")).await.result()["quota"], quota);
    }
    let account = one.get(&format!("/accounts/{ACCOUNT}")).await;
    assert_eq!((&account.result()["name"], account.result().get("quota")), (&json!(ACCOUNT), None));
    assert_eq!(one.get(&format!("/accounts/{ACCOUNT}/secrets_store/quota")).await.error().0, 403);
    node.stop().await;
}

#[tokio::test]
async fn what_a_path_or_binding_names_and_cannot_be_is_answered_as_what_is_not_there() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("KEY", "v")])).await.unwrap();
    create_consumer(&client, "shop").await;
    let rest = Rest::operator(&ground, &node);
    let secrets = format!("/accounts/{ACCOUNT}/secrets_store/stores/default/secrets");
    for name in ["a.b", "NONE", "%00", "a%2Fb"] {
        assert_eq!(rest.delete(&format!("{secrets}/{name}")).await.error(), (404, 1001, "secret_not_found"), "{name}");
        let many = rest.send(Method::DELETE, &secrets, &[], &json!({"ids": ["KEY", name]}).to_string()).await;
        assert_eq!(many.error(), (404, 1001, "secret_not_found"), "{name}");
    }
    let bindings = |account: &str| format!("/accounts/{account}/secrets_store/bindings");
    let new = |name: &str, store: &str, secret: &str| json!({"consumer": {"kind": "worker", "name": "shop"}, "name": name, "store_id": store, "secret_name": secret});
    let denied = (400, 10021, "secrets store binding authorization failed, check permissions and secret scopes");
    for (store, secret) in [("default", "a.b"), ("a.b", "KEY"), ("none", "KEY"), ("default", "NONE"), ("", "KEY")] {
        assert_eq!(rest.post(&bindings(ACCOUNT), &new("API_KEY", store, secret)).await.error(), denied, "{store} {secret}");
    }
    for account in ["nobody".to_owned(), "0".repeat(32)] {
        let answer = rest.post(&bindings(&account), &new("API_KEY", "default", "KEY")).await;
        assert_eq!((answer.error().0, answer.error().1), (404, 7003), "an account that is not there is told as everywhere");
    }
    let answer = rest.post(&bindings(ACCOUNT), &new("1st", "default", "KEY")).await;
    assert_eq!((answer.error().0, answer.error().1), (400, 1001));
    assert!(answer.error().2.contains("a binding name"), "{answer:?}");
    for path in ["robot/shop/API_KEY", "worker/shop/1st", "worker/.shop/API_KEY", "worker/shop/API_KEY", "worker/none/API_KEY"] {
        assert_eq!(rest.delete(&format!("{}/{path}", bindings(ACCOUNT))).await.error(), (404, 1000, "not_found"), "{path}");
    }
    for position in ["0", "x", "1.x", "-1.1", "9.9", "99999999999999999999.1"] {
        assert_eq!(rest.get(&format!("/receipts/{position}")).await.error(), (404, 1000, "not_found"), "{position}");
    }
    node.stop().await;
}
