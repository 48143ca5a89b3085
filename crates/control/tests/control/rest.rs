//! REST through a whole node, as clients of Cloudflare's API speak it.

use hyper::Method;
use serde_json::{Value, json};
use wire::v1;

use crate::{
    harness::{ACCOUNT, Ground, create_consumer, with_store},
    http::{Answer, Rest},
};

#[tokio::test]
async fn secret_over_rest_is_made_shown_and_listed_without_its_value() {
    let ground = Ground::new();
    let node = ground.start().await;
    let store = with_store(&node.operator()).await;
    let rest = Rest::operator(&ground, &node);
    let stores = format!("/accounts/{}/secrets_store/stores", store.account_id);

    let listed = rest.get(&stores).await;
    assert_eq!(listed.result()[0]["id"], store.id.as_str());
    assert_eq!(listed.body["result_info"], json!({"page": 1, "per_page": 20, "count": 1, "total_count": 1, "total_pages": 1}));

    let secrets = format!("{stores}/{}/secrets", store.id);
    let item = json!({"name": "KEY", "value": "s3cr3t", "scopes": ["workers", "ai-gateway"], "comment": "of the shop"});
    let made = rest.post(&secrets, &json!([item])).await;
    let secret = &made.result()[0];
    assert_eq!(secret["name"], "KEY");
    assert_eq!(secret["scopes"], json!(["ai_gateway", "workers"]), "sorted, under their names");
    assert_eq!(secret["store_id"], store.id.as_str());
    assert_eq!(secret["status"], "pending", "there is no edge");
    assert!(secret["created"].as_str().unwrap().ends_with('Z'));
    assert!(made.header("cf-ray").is_some());

    let shown = rest.get(&format!("{secrets}/{}", secret["id"].as_str().unwrap())).await;
    assert_eq!(shown.result(), secret);
    assert_eq!(rest.get(&secrets).await.result(), &json!([secret]));
    for answer in [made, shown] {
        assert!(!answer.body.to_string().contains("s3cr3t"));
    }

    let again = rest.post(&secrets, &json!([item])).await;
    assert_eq!(again.error(), (409, 1003, "secret_name_already_exists: KEY"));
    assert_eq!(again.header("x-should-retry"), Some("false"));
    node.stop().await;
}

#[tokio::test]
async fn rest_answers_over_both_protocols_at_each_name_of_the_server_and_to_either_form_of_token() {
    let ground = Ground::new();
    let node = ground.start().await;
    let store = with_store(&node.operator()).await;
    let path = format!("/client/v4//accounts/{}//secrets_store/stores", store.account_id);
    let token = ground.first_token();
    for protocols in [&[b"http/1.1".as_slice()][..], &[b"h2".as_slice(), b"http/1.1"], &[]] {
        for host in ["localhost", "127.0.0.1"] {
            let rest = Rest::new(&ground, &node, protocols).at(host);
            let bearer = [("authorization", format!("Bearer {token}"))];
            let pair = [("x-auth-email", "a@example".to_owned()), ("x-auth-key", token.clone())];
            for headers in [&bearer[..], &pair] {
                let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let answer = rest.send_to(Method::GET, &path, &headers, "").await;
                assert_eq!(answer.result()[0]["name"], "default", "{protocols:?} {host}");
            }
            let stranger = rest.send_to(Method::GET, &path, &[], "").await;
            assert_eq!(stranger.error(), (401, 10000, "Authentication error"));
        }
    }
    node.stop().await;
}

/// A node with the store `default`, and where its secrets are.
async fn begun(node: &crate::harness::Node<'_>) -> (String, String) {
    let store = with_store(&node.operator()).await;
    let stores = format!("/accounts/{}/secrets_store/stores", store.account_id);
    let secrets = format!("{stores}/{}/secrets", store.id);
    (stores, secrets)
}

fn new(name: &str) -> Value {
    json!({"name": name, "value": "v", "scopes": ["workers"]})
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.result().as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn first_store_comes_when_somebody_lists_who_may_make_it() {
    let ground = Ground::new();
    let node = ground.start().await;
    let account = node.operator().create_account(v1::CreateAccountRequest { name: ACCOUNT.into(), ..Default::default() }).await.unwrap();
    let stores = format!("/accounts/{}/secrets_store/stores", account.account.unwrap().id);
    let rest = Rest::operator(&ground, &node);
    let grants = vec![v1::TokenGrant { role: "reporter".into(), account: ACCOUNT.into(), ..Default::default() }];
    let token = v1::CreateTokenRequest { name: "reader".into(), grants, ..Default::default() };
    let reader = rest.by(&node.operator().create_token(token).await.unwrap().token);
    assert_eq!(reader.get(&stores).await.result(), &json!([]), "who only reads makes none");
    let first = rest.get(&stores).await;
    assert_eq!(names(&first), ["default_secrets_store"]);
    assert_eq!(rest.get(&stores).await.result(), first.result(), "one");
    assert_eq!(reader.get(&stores).await.result(), first.result());
    node.stop().await;
}

#[tokio::test]
async fn stores_are_made_shown_and_deleted_in_both_forms() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (stores, secrets) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    let one = rest.post(&stores, &json!({"name": "one"})).await;
    assert_eq!(one.result()["name"], "one");
    let two = rest.post(&stores, &json!([{"name": "two"}])).await;
    assert_eq!(names(&two), ["two"], "a list is answered with a list");
    assert_eq!(rest.post(&stores, &json!({"name": "one"})).await.error(), (409, 1003, "store_name_already_exists"));
    assert_eq!(rest.post(&stores, &json!({})).await.error(), (400, 1001, "store_name_empty"));
    assert_eq!(rest.post(&stores, &json!({"name": "a b"})).await.error(), (400, 1001, "store_name_invalid"));
    let shown = rest.get(&format!("{stores}/{}", one.result()["id"].as_str().unwrap())).await;
    assert_eq!(shown.result(), one.result());
    assert_eq!(rest.get(&format!("{stores}/one")).await.result(), one.result(), "by its name");
    let listed = rest.get(&format!("{stores}?order=created&direction=desc&per_page=2")).await;
    assert_eq!(names(&listed), ["two", "one"]);
    assert_eq!(listed.body["result_info"]["total_count"], 3);
    assert_eq!(rest.get(&format!("{stores}?page=3&per_page=2")).await.result(), &json!([]), "past the end");

    rest.post(&secrets, &json!([new("KEY")])).await.result();
    assert_eq!(rest.delete(&format!("{stores}/default")).await.error(), (409, 1003, "store_not_empty"));
    assert!(rest.delete(&format!("{stores}/default?force=true")).await.result().is_null());
    assert_eq!(rest.get(&secrets).await.error(), (404, 1001, "store_not_found"));
    assert_eq!(rest.get(&format!("{stores}/{}", "0".repeat(32))).await.error(), (404, 1001, "store_not_found"));
    node.stop().await;
}

#[tokio::test]
async fn secret_is_changed_duplicated_rolled_back_and_deleted() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (stores, secrets) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    let made = rest.post(&secrets, &new("KEY")).await;
    assert_eq!(made.result()["name"], "KEY", "an object is answered with an object");
    assert_eq!(made.result().get("comment"), None);
    let one = format!("{secrets}/{}", made.result()["id"].as_str().unwrap());

    let nothing = rest.patch(&one, &json!({})).await;
    assert_eq!((&nothing.result()["version"], &nothing.result()["scopes"]), (&json!(1), &json!(["workers"])));
    let all = rest.patch(&one, &json!({"value": "w", "scopes": ["workers", "access"], "comment": "c", "other": 1})).await;
    let shown = all.result();
    assert_eq!((&shown["version"], &shown["scopes"], &shown["comment"]), (&json!(2), &json!(["access", "workers"]), &json!("c")));
    assert_eq!(rest.patch(&one, &json!({"comment": ""})).await.result().get("comment"), None, "cleared");

    let copy = rest.post(&format!("{one}/duplicate"), &json!({"name": "COPY"})).await;
    assert_eq!(copy.result()["scopes"], json!(["access", "workers"]), "the source's");
    let copy = rest.post(&format!("{one}/duplicate"), &json!({"name": "COPY", "scopes": ["workers"], "comment": ""})).await;
    assert_eq!(copy.error(), (409, 1003, "secret_name_already_exists: COPY"));

    let versions = rest.get(&format!("{one}/versions")).await;
    assert_eq!(versions.result()[0]["version"], 2);
    assert_eq!(rest.send(Method::POST, &format!("{one}/rollback"), &[], "").await.result()["version"], 1);
    assert_eq!(rest.post(&format!("{one}/rollback"), &json!({"version": 2})).await.result()["version"], 2);

    let deleted = rest.delete(&one).await;
    assert!(deleted.result().is_null());
    let receipt = deleted.header("cinnabar-receipt").unwrap();
    assert_eq!(rest.get(&format!("/receipts/{receipt}")).await.result()["live"], true, "there is no edge");
    assert_eq!(rest.get(&one).await.error(), (404, 1001, "secret_not_found"));
    assert_eq!(rest.delete(&one).await.error(), (404, 1001, "secret_not_found"));
    assert_eq!(names(&rest.get(&format!("{stores}/default/secrets")).await), ["COPY"]);
    node.stop().await;
}

#[tokio::test]
async fn secrets_are_made_and_deleted_all_or_none() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (_, secrets) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    let twice = rest.post(&secrets, &json!([new("A"), new("B"), new("A")])).await;
    assert_eq!(twice.error(), (409, 1003, "secret_name_already_exists: A"));
    assert_eq!(rest.get(&secrets).await.result(), &json!([]));
    let forms = |ids: &[&str]| {
        let objects: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        [json!({ "ids": ids }), json!({ "secret_ids": ids }), json!(ids), json!(objects)]
    };
    for place in 0..4 {
        let made = rest.post(&secrets, &json!([new("A"), new("B")])).await;
        let ids: Vec<&str> = made.result().as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        let unknown = "0".repeat(32);
        let missing = rest.send(Method::DELETE, &secrets, &[], &forms(&[ids[0], &unknown])[place].to_string()).await;
        assert_eq!(missing.error(), (404, 1001, "secret_not_found"));
        let deleted = rest.send(Method::DELETE, &secrets, &[], &forms(&ids)[place].to_string()).await;
        assert_eq!(deleted.status, 202);
        assert_eq!(rest.get(&secrets).await.result(), &json!([]));
    }
    rest.post(&secrets, &json!([new("A")])).await.result();
    for body in ["", "{}", "null", r#"{"ids":"A"}"#, "{\"ids\":[\"A\"],\"ids\":[\"A\"]}"] {
        assert_eq!(rest.send(Method::DELETE, &secrets, &[], body).await.error(), (400, 1001, "invalid_json_body"), "{body}");
    }
    for body in [r#"{"ids":[]}"#, "[]"] {
        assert_eq!(rest.send(Method::DELETE, &secrets, &[], body).await.error().0, 400, "{body}");
    }
    assert_eq!(names(&rest.get(&secrets).await), ["A"], "nothing ever means all");
    node.stop().await;
}

#[tokio::test]
async fn wrong_secret_is_refused_by_the_word_that_clients_know() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (_, secrets) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    let with = |field: &str, value: Value| {
        let mut item = new("A");
        item[field] = value;
        json!([item])
    };
    let cases = [
        (with("name", json!("")), "secret_name_empty"),
        (with("name", json!("a.b")), "secret_name_invalid"),
        (with("scopes", json!([])), "secret_scopes_empty"),
        (with("scopes", json!(["workers", "nowhere"])), "secret_scope_invalid"),
        (with("value", json!("x".repeat(65_537))), "secret_value_too_long"),
        (with("value", json!(7)), "invalid_json_body"),
        (with("comment", json!("c".repeat(1025))), "secret_comment_invalid"),
        (json!("x"), "invalid_json_body"),
    ];
    for (body, word) in cases {
        let answer = rest.post(&secrets, &body).await;
        assert_eq!(answer.error(), (400, 1001, word));
        assert!(!answer.body.to_string().contains("xxxx"), "no part of a value is shown");
    }
    rest.post(&secrets, &with("value", json!("é".repeat(32_768)))).await.result();
    let quota = format!("/accounts/{ACCOUNT}/secrets_store/quota");
    assert_eq!(rest.get(&quota).await.result()["secrets"], json!({"quota": 100, "usage": 1}));
    let set = v1::SetQuotaRequest { account: ACCOUNT.into(), secrets_max: Some(1), stores_max: Some(1), ..Default::default() };
    node.operator().set_quota(set).await.unwrap();
    assert_eq!(rest.post(&secrets, &json!([new("B")])).await.error(), (400, 1003, "maximum_secrets_exceeded: max 1"));
    let stores = format!("/accounts/{ACCOUNT}/secrets_store/stores");
    assert_eq!(rest.post(&stores, &json!({"name": "x"})).await.error(), (400, 1003, "maximum_stores_exceeded"));
    node.stop().await;
}

#[tokio::test]
async fn list_is_paged_sorted_searched_and_filtered() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (_, secrets) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    let one = |name: &str, scopes: &[&str], comment: &str| json!({"name": name, "value": "v", "scopes": scopes, "comment": comment});
    let all = [
        one("beta", &["workers"], "3"),
        one("KEY_2", &["ai_gateway"], "2"),
        one("alpha", &["workers", "dex"], "the key of alpha"),
        one("KEY", &["dex"], ""),
    ];
    for item in &all {
        rest.post(&secrets, &json!([item])).await.result();
    }
    let cases = [
        ("", &["KEY", "KEY_2", "alpha", "beta"][..], 4),
        ("?direction=desc", &["beta", "alpha", "KEY_2", "KEY"], 4),
        ("?per_page=3", &["KEY", "KEY_2", "alpha"], 4),
        ("?per_page=3&page=2", &["beta"], 4),
        ("?per_page=3&page=2&direction=desc", &["KEY"], 4),
        ("?per_page=3&page=3", &[], 4),
        ("?page=18446744073709551615", &[], 4),
        ("?order=comment", &["KEY", "KEY_2", "beta", "alpha"], 4),
        ("?order=created", &["beta", "KEY_2", "alpha", "KEY"], 4),
        ("?order=modified&direction=desc&per_page=2", &["KEY", "alpha"], 4),
        ("?order=created&per_page=2&page=2", &["alpha", "KEY"], 4),
        ("?order=status", &["KEY", "KEY_2", "alpha", "beta"], 4),
        ("?search=KEY", &["KEY", "KEY_2", "alpha"], 3),
        ("?search=key_2", &["KEY_2"], 1),
        ("?search=KEY&direction=desc", &["KEY", "alpha", "KEY_2"], 3),
        ("?search=KEY&order=name&direction=desc", &["alpha", "KEY_2", "KEY"], 3),
        ("?scopes=dex", &["KEY", "alpha"], 2),
        ("?scopes=dex&scopes=ai_gateway", &["KEY", "KEY_2", "alpha"], 3),
        ("?scopes=dex,ai-gateway&per_page=1", &["KEY"], 3),
        ("?search=beta&scopes=dex", &[], 0),
        ("?order=created&page=1000000&per_page=100", &[], 4),
        ("?search=KEY&page=18446744073709551616", &[], 3),
    ];
    for (query, expected, total) in cases {
        let answer = rest.get(&format!("{secrets}{query}")).await;
        assert_eq!(names(&answer), expected, "{query}");
        assert_eq!(answer.body["result_info"]["total_count"], total, "{query}");
        assert_eq!(answer.body["result_info"]["count"], expected.len(), "{query}");
    }
    for query in ["?order=value", "?direction=up", "?page=x", "?scopes=nowhere"] {
        assert_eq!(rest.get(&format!("{secrets}{query}")).await.error().0, 400, "{query}");
    }
    node.stop().await;
}

#[tokio::test]
async fn caller_learns_who_it_is_and_which_accounts_it_sees() {
    let ground = Ground::new();
    let node = ground.start().await;
    let store = with_store(&node.operator()).await;
    let rest = Rest::operator(&ground, &node);
    assert_eq!(rest.get("/user/tokens/verify").await.result()["status"], "active");
    assert!(rest.get("/user").await.result()["email"].is_string());
    assert_eq!(rest.get("/accounts").await.result()[0]["id"], store.account_id.as_str());
    assert_eq!(rest.get(&format!("/accounts/{}", store.account_id)).await.result()["name"], ACCOUNT);
    let memberships = rest.get("/memberships?page=1").await;
    assert_eq!(memberships.result()[0]["account"]["id"], store.account_id.as_str());
    assert_eq!(memberships.result()[0]["roles"], json!(["super-administrator"]));
    let unknown = rest.by(seal::OperatorToken::generate(&runtime::OsEntropy).text().expose());
    assert_eq!(unknown.get("/user/tokens/verify").await.error(), (401, 1000, "Invalid API Token"));
    for nobody in [rest.by_nobody(), rest.by("cbo_nonsense"), unknown] {
        assert_eq!(nobody.get("/accounts").await.error(), (401, 10000, "Authentication error"));
    }
    node.stop().await;
}

#[tokio::test]
async fn unknown_path_method_and_account_are_told_in_the_envelope() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (stores, _) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    for path in ["/client/v4", "/client/v4/nothing", "/", "/client/v3/accounts", "/client/v4/accounts/x/../y/secrets_store/stores"] {
        let answer = rest.send_to(Method::GET, path, &[], "").await;
        assert_eq!((answer.error().0, answer.error().1), (404, 7003), "{path}");
        assert!(answer.header("cf-ray").is_some());
    }
    assert_eq!(rest.send(Method::PUT, &stores, &[], "").await.error().0, 405);
    for account in ["0".repeat(32), "nobody".to_owned(), "%00".to_owned(), "a%2Fb".to_owned()] {
        let answer = rest.get(&format!("/accounts/{account}/secrets_store/stores")).await;
        assert_ne!(answer.error().0, 500, "{account}");
        assert_ne!(answer.error().0, 401, "{account}");
    }
    assert_eq!(rest.by_nobody().send_to(Method::GET, "/client/v4/openapi.json", &[], "").await.body["openapi"], "3.1.0");
    let labelled = rest.send(Method::GET, "/user", &[("cinnabar-request-id", "mine-1")], "").await;
    assert_eq!((labelled.header("cf-ray"), labelled.header("cinnabar-request-id")), (Some("mine-1"), Some("mine-1")));
    node.stop().await;
}

#[tokio::test]
async fn request_that_comes_again_gets_its_first_answer_and_an_equal_one_is_another() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (_, secrets) = begun(&node).await;
    let rest = Rest::operator(&ground, &node);
    let body = json!([new("A")]).to_string();
    let send = |headers: &'static [(&'static str, &'static str)]| rest.send(Method::POST, &secrets, headers, &body);
    let (first, again) = (&[("x-stainless-retry-count", "0")], &[("x-stainless-retry-count", "1")]);
    let made = send(first).await;
    let id = made.result()[0]["id"].clone();
    assert_eq!(send(again).await.result()[0]["id"], id, "the first answer");
    assert_eq!(send(first).await.error().0, 409, "an equal request is another");
    assert_eq!(send(&[]).await.error().0, 409);
    rest.delete(&format!("{secrets}/A")).await.result();
    let anew = send(first).await;
    assert_ne!(anew.result()[0]["id"], id);
    assert_eq!(send(again).await.result()[0]["id"], anew.result()[0]["id"], "that of the last try");
    // What was made is gone again, so a repetition whose first try never came makes it.
    rest.delete(&format!("{secrets}/A")).await.result();
    assert_ne!(send(again).await.result()[0]["id"], anew.result()[0]["id"]);
    // A first try that never came.
    let other = json!([new("B")]).to_string();
    let lost = rest.send(Method::POST, &secrets, again, &other).await;
    assert_eq!(rest.send(Method::POST, &secrets, again, &other).await.result(), lost.result());

    let keyed: &[(&str, &str)] = &[("idempotency-key", "order 17")];
    let body = json!([new("C")]).to_string();
    let made = rest.send(Method::POST, &secrets, keyed, &body).await;
    assert_eq!(rest.send(Method::POST, &secrets, keyed, &body).await.result(), made.result());
    let other = rest.send(Method::POST, &secrets, keyed, &json!([new("D")]).to_string()).await;
    assert_eq!(other.error().0, 409, "the key was used for something else");
    node.stop().await;
}

#[tokio::test]
async fn binding_over_rest_is_made_once_listed_and_ended() {
    let ground = Ground::new();
    let node = ground.start().await;
    let (_, secrets) = begun(&node).await;
    create_consumer(&node.operator(), "shop").await;
    let rest = Rest::operator(&ground, &node);
    rest.post(&secrets, &json!([new("KEY"), new("NEXT"), {"name": "OTHER", "value": "v", "scopes": ["dex"]}])).await.result();
    let bindings = format!("/accounts/{ACCOUNT}/secrets_store/bindings");
    let bind = |secret: &str| json!({"consumer": {"kind": "worker", "name": "shop"}, "name": "API_KEY", "store_id": "default", "secret_name": secret});
    let denied = (400, 10021, "secrets store binding authorization failed, check permissions and secret scopes");
    assert_eq!(rest.post(&bindings, &bind("OTHER")).await.error(), denied, "its scopes leave workers out");
    assert_eq!(rest.post(&bindings, &bind("NONE")).await.error(), denied);
    let made = rest.post(&bindings, &bind("KEY")).await;
    assert_eq!(made.result()["secret_name"], "KEY");
    assert_eq!(rest.post(&bindings, &bind("KEY")).await.result(), made.result(), "it is bound so already");
    let twice = rest.post(&bindings, &bind("NEXT")).await;
    assert_eq!((twice.error().0, twice.error().1), (409, 10021));
    assert!(twice.error().2.contains("API_KEY"), "{twice:?}");
    for query in ["", "?consumer=worker/shop"] {
        assert_eq!(rest.get(&format!("{bindings}{query}")).await.result(), &json!([made.result()]), "{query}");
    }
    assert_eq!(rest.delete(&format!("{secrets}/KEY")).await.error(), (409, 1003, "secret_in_use"));
    rest.delete(&format!("{bindings}/worker/shop/API_KEY")).await.result();
    assert_eq!(rest.get(&bindings).await.result(), &json!([]));
    rest.delete(&format!("{secrets}/KEY")).await.result();
    node.stop().await;
}
