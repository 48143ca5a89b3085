use serde_json::json;

use super::*;
use crate::rest::{answer::Failure, query::Query};

#[test]
fn description_in_the_docs_is_the_one_that_is_served() {
    let (_, api) = described().split_for_parts();
    let text = openapi::text(&openapi::completed(api));
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == text, "docs/openapi.json is not what the code says: UPDATE_GOLDENFILES=1 writes it anew");
    // No description shows a value on its way out.
    let api: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(api["components"]["schemas"]["Secret"]["properties"]["value"].is_null());
    for (name, most) in [("InKind_NewStore", 1), ("InKind_NewSecret", 1000), ("IdsInAnyForm", 1000)] {
        let list = &api["components"]["schemas"][name]["oneOf"][1];
        assert_eq!((&list["minItems"], &list["maxItems"]), (&json!(1), &json!(most)), "{name}: nothing ever means all");
    }
    // Nothing is referred to that is not there.
    for reference in text.split("\"#/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(api.pointer(&format!("/{reference}")).is_some(), "{reference}");
    }
}

#[test]
fn slashes_are_joined_and_nothing_else_is() {
    let cases = [
        ("/client/v4//accounts", Some("/client/v4/accounts")),
        ("//client///v4/accounts//?page=1&search=a//b", Some("/client/v4/accounts/?page=1&search=a//b")),
        ("https://localhost:7400/client/v4//user", Some("https://localhost:7400/client/v4/user")),
        ("/client/v4/accounts?search=//", None),
        ("/client/v4/accounts/%2F%2F/secrets_store", None),
        ("/client/v4/../v4/user", None),
    ];
    for (sent, expected) in cases {
        assert_eq!(joined(&sent.parse().unwrap()).map(|uri| uri.to_string()).as_deref(), expected, "{sent}");
    }
}

#[test]
fn query_takes_both_forms_of_a_list_and_bounds_a_page() {
    let query = Query::of("scopes=workers&scopes=ai_gateway,dex&scopes[]=access&page=0&per_page=100000&search=a+b%20c").unwrap();
    assert_eq!(query.all("scopes"), ["workers", "ai_gateway", "dex", "access"]);
    assert_eq!((query.page, query.per_page, query.get("search")), (1, 100, Some("a b c")));
    let query = Query::of("").unwrap();
    assert_eq!((query.page, query.per_page, query.get("search")), (1, 20, None));
    let query = Query::of("page=18446744073709551616&per_page=99999999999999999999999").unwrap();
    assert_eq!((query.page, query.per_page), (u64::MAX, 100), "as great as a number can be");
    for wrong in ["page=x", "per_page=-1", "page=1e3", "page=%2B1"] {
        assert!(Query::of(wrong).is_err(), "{wrong}");
    }
    assert!(Query::of("direction=up").unwrap().falls().is_err());
    assert!(Query::of("force=yes").unwrap().flag("force").is_err());
}

#[tokio::test]
async fn failure_says_in_its_header_whether_to_send_it_again() {
    let kinds = wire::ErrorKind::all().map(|kind| (kind, Failure::from(wire::PublicError::new(kind, "text")).into_response()));
    for (kind, response) in kinds {
        let (status, headers) = (response.status().as_u16(), response.headers());
        assert!((400..600).contains(&status), "{kind:?}");
        assert_eq!(headers.get("x-should-retry").is_none(), kind.retryable(), "{kind:?}");
        assert_eq!(headers.contains_key("retry-after"), matches!(status, 429 | 503), "{kind:?}");
        // Terraform forgets what is not found.
        assert!(status != 404 || !kind.retryable(), "{kind:?}");
        assert!(status != 409 || headers.contains_key("x-should-retry"), "{kind:?}");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["success"], &body["result"], &body["messages"]), (&json!(false), &json!(null), &json!([])), "{kind:?}");
        assert_eq!(body["errors"].as_array().unwrap().len(), 1, "{kind:?}");
    }
}
