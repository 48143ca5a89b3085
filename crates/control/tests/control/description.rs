//! What the description of the routes promises, held against what is answered.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};

use crate::{
    harness::{ACCOUNT, Ground, create_consumer, with_store},
    http::{Answer, Rest},
};

/// The description, as it is served.
struct Api(Value);

impl Api {
    async fn of(rest: &Rest) -> Self {
        Self(rest.by_nobody().send_to(Method::GET, "/client/v4/openapi.json", &[], "").await.body)
    }

    /// Every operation: its method, and its path with names in braces.
    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let all = paths.flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())));
        all.collect()
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => self.resolved(self.0.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("no {place}"))),
            None => value,
        }
    }

    /// Holds an answer against what is said of the operation.
    #[track_caller]
    fn hold(&self, method: &str, path: &str, answer: &Answer) {
        let what = format!("{method} {path}: {}", answer.status);
        let responses = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let response = responses.get(answer.status.as_str()).unwrap_or_else(|| panic!("{what} is not described: {}", answer.body));
        let schema = &self.resolved(response)["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{what}: no schema");
        self.fits(schema, &answer.body, "").unwrap_or_else(|why| panic!("{what}: {why}: {}", answer.body));
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    }

    /// Whether a value is as its schema says, as far as schemas here say anything.
    fn fits(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolved(schema);
        for key in ["oneOf", "anyOf"] {
            if let Some(several) = schema[key].as_array() {
                let fitting = several.iter().filter(|one| self.fits(one, value, at).is_ok()).count();
                if fitting == 0 || key == "oneOf" && fitting > 1 {
                    return Err(format!("{at} fits {fitting} of {key}"));
                }
            }
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.is_empty() && !types.contains(&kind) {
            return Err(format!("{at} is {kind}, and not {types:?}"));
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return Err(format!("{at} is none of {words:?}"));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                return Err(format!("{at} has no {name}"));
            }
        }
        for (name, of) in value.as_object().into_iter().flatten() {
            match schema["properties"].get(name) {
                Some(schema) => self.fits(schema, of, &format!("{at}.{name}"))?,
                None if schema["properties"].is_object() => return Err(format!("{at}.{name} is not described")),
                None => {}
            }
        }
        for one in value.as_array().into_iter().flatten() {
            if schema["items"].is_object() {
                self.fits(&schema["items"], one, &format!("{at}[]"))?;
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let ground = Ground::new();
    let node = ground.start().await;
    let account = with_store(&node.operator()).await.account_id;
    create_consumer(&node.operator(), "shop").await;
    let rest = Rest::operator(&ground, &node);
    let api = Api::of(&rest).await;
    let stores = "/accounts/{account_id}/secrets_store/stores";
    let store = format!("{stores}/{{store_id}}");
    let secrets = format!("{store}/secrets");
    let secret = format!("{secrets}/{{secret_id}}");
    let [versions, copy, rollback] = ["versions", "duplicate", "rollback"].map(|last| format!("{secret}/{last}"));
    let bindings = "/accounts/{account_id}/secrets_store/bindings";
    let unbind = format!("{bindings}/{{kind}}/{{consumer}}/{{name}}");
    let logs = "/accounts/{account_id}/logs/audit";
    let [history, products] = ["{audit_log_id}/history", "product_categories"].map(|last| format!("{logs}/{last}"));
    let paths = [&store, &secrets, &secret, &versions, &copy, &rollback, &unbind, &history, &products];
    let [store, secrets, secret, versions, copy, rollback, unbind, history, products] = paths.map(String::as_str);
    let item = |name: &str| json!({"name": name, "value": "v", "scopes": ["workers", "ai-gateway"], "comment": "c"});
    let binding = json!({"consumer": {"kind": "worker", "name": "shop"}, "name": "API_KEY", "store_id": "default", "secret_name": "KEY"});
    let whole = json!({"consumer": {"kind": "worker", "name": "shop"}, "name": "ALL", "store_id": "default"});
    let nothing = Value::Null;
    // Method, path, what stands behind it, body, status. In this order.
    let calls = [
        ("GET", "/user", "", nothing.clone(), 200),
        ("GET", "/user/tokens/verify", "", nothing.clone(), 200),
        ("GET", "/accounts", "?direction=desc&page=18446744073709551616", nothing.clone(), 200),
        ("GET", "/accounts", "?page=x", nothing.clone(), 400),
        ("GET", "/accounts/{account_id}", "", nothing.clone(), 200),
        ("GET", "/memberships", "", nothing.clone(), 200),
        ("GET", "/accounts/{account_id}/secrets_store/quota", "", nothing.clone(), 200),
        ("GET", stores, "", nothing.clone(), 200),
        ("POST", stores, "", json!({"name": "one"}), 200),
        ("POST", stores, "", json!([{"name": "two"}]), 200),
        ("POST", stores, "", json!({"name": "one"}), 409),
        ("POST", stores, "", json!({}), 400),
        ("GET", store, "", nothing.clone(), 200),
        ("POST", secrets, "", json!([item("KEY"), item("B"), item("C")]), 200),
        ("POST", secrets, "", item("A"), 200),
        ("POST", secrets, "", json!([item("KEY")]), 409),
        ("GET", secrets, "?order=created&direction=desc&search=KEY&scopes=workers,ai_gateway", nothing.clone(), 200),
        ("GET", secrets, "?order=nothing", nothing.clone(), 400),
        ("GET", secret, "", nothing.clone(), 200),
        ("PATCH", secret, "", json!({"value": "w", "scopes": ["workers"], "comment": ""}), 200),
        ("PATCH", secret, "", json!({"comment": null}), 200),
        ("PATCH", secret, "", json!({"scopes": []}), 400),
        ("GET", versions, "", nothing.clone(), 200),
        ("POST", rollback, "", nothing.clone(), 200),
        ("POST", rollback, "", json!({"version": null}), 200),
        ("POST", rollback, "", json!({"version": 77}), 404),
        ("POST", copy, "", json!({"name": "COPY"}), 200),
        ("POST", copy, "", json!({"name": "COPY"}), 409),
        ("POST", bindings, "", binding.clone(), 200),
        ("POST", bindings, "", whole, 200),
        ("GET", bindings, "?per_page=1", nothing.clone(), 200),
        ("GET", bindings, "?consumer=worker/shop", nothing.clone(), 200),
        ("GET", bindings, "?consumer=shop", nothing.clone(), 400),
        ("DELETE", secret, "", nothing.clone(), 409),
        ("DELETE", unbind, "", nothing.clone(), 200),
        ("DELETE", unbind, "", nothing.clone(), 404),
        ("DELETE", secret, "", nothing.clone(), 200),
        ("DELETE", secret, "", nothing.clone(), 404),
        ("DELETE", secrets, "", json!({"ids": ["A"]}), 202),
        ("DELETE", secrets, "", json!(["B"]), 202),
        ("DELETE", secrets, "", json!([{"id": "C"}]), 202),
        ("DELETE", secrets, "", json!({}), 400),
        ("GET", logs, "?since=2026-01-01&before=9999-12-31", nothing.clone(), 200),
        ("GET", logs, "?since=2026-01-01T00:00:00.5%2B02:00&before=2100-01-01T00:00:00-01:00&limit=2", nothing.clone(), 200),
        ("GET", logs, "", nothing.clone(), 400),
        ("GET", history, "?limit=1", nothing.clone(), 200),
        ("GET", products, "", nothing.clone(), 200),
        ("GET", "/accounts/{account_id}/audit_logs", "?per_page=3&since=1969-12-31", nothing.clone(), 200),
        ("GET", "/accounts/{account_id}/audit_logs", "?page=1000000", nothing.clone(), 200),
        ("GET", "/receipts/{position}", "", nothing.clone(), 200),
        ("GET", "/receipts/{position}", "?wait_seconds=x", nothing.clone(), 400),
        ("DELETE", store, "", nothing.clone(), 409),
        ("DELETE", store, "?force=true", nothing.clone(), 200),
        ("DELETE", store, "", nothing.clone(), 404),
    ];
    // An entry of the log that is about this account: the newest one that made something there.
    let listed = rest.get(&format!("/accounts/{ACCOUNT}/logs/audit?since=2026-01-01&before=9999-12-31&action_type=create")).await;
    let entry = listed.result()[0]["id"].as_str().unwrap().to_owned();
    let names = [
        ("{account_id}", account.as_str()),
        ("{store_id}", "default"),
        ("{secret_id}", "KEY"),
        ("{kind}", "worker"),
        ("{consumer}", "shop"),
        ("{name}", "API_KEY"),
        ("{audit_log_id}", &entry),
        ("{position}", "1.1"),
    ];
    let at = |path: &str| names.iter().fold(path.to_owned(), |path, (name, text)| path.replace(name, text));
    let mut done = BTreeSet::new();
    for (method, path, query, body, status) in calls {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let answer = rest.send(method.parse().unwrap(), &format!("{}{query}", at(path)), &[], &sent).await;
        assert_eq!(answer.status, status, "{method} {path}{query} {sent}: {}", answer.body);
        api.hold(method, path, &answer);
        if answer.status.is_success() {
            done.insert((method.to_owned(), path.to_owned()));
        }
    }
    assert_eq!(done, api.operations(), "each is done once at least");

    for (method, path) in api.operations() {
        let send = |rest: Rest, path: String| {
            let method: Method = method.parse().unwrap();
            async move { rest.send(method, &path, &[], "").await }
        };
        let stranger = send(rest.by_nobody(), at(&path)).await;
        assert_eq!(stranger.status, 401, "{method} {path}");
        api.hold(&method, &path, &stranger);
        let unknown = path.replace("{account_id}", "nobody");
        let unknown = send(rest.by(&ground.first_token()), at(&unknown)).await;
        api.hold(&method, &path, &unknown);
    }
    let other = rest.send(Method::PUT, &at(stores), &[], "").await;
    assert_eq!((other.status.as_u16(), other.header("allow").is_some()), (405, true), "{other:?}");
    node.stop().await;
}
