//! The routes of REST, and under which row of the table each stands.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use state::Operation as O;
use tests::clients::{Answer, Rest};

use super::{Place, Rule, TAKEN, Verdict, calls::Fresh};

pub(super) struct Route {
    pub(super) method: &'static str,
    /// As the description of the routes has it.
    pub(super) path: &'static str,
    /// What stands behind the question mark.
    query: &'static str,
    pub(super) rule: Rule,
    pub(super) fresh: Fresh,
    pub(super) body: fn(&Place) -> Value,
}

impl Route {
    /// With a place's own ids, and what is fresh.
    pub(super) fn path(&self, place: &Place, fresh: &str) -> String {
        let ids = [
            ("{account_id}", place.account.as_str()),
            ("{store_id}", &place.store),
            ("{secret_id}", &place.secret),
            ("{kind}", "worker"),
            ("{consumer}", place.consumer),
            ("{name}", fresh),
            ("{audit_log_id}", "999999999"),
            ("{position}", "1.1"),
        ];
        let path = ids.iter().fold(self.path.to_owned(), |path, (name, id)| path.replace(name, id));
        format!("/client/v4{path}{}", self.query)
    }
}

const fn route(method: &'static str, path: &'static str, rule: Rule, body: fn(&Place) -> Value) -> Route {
    Route { method, path, query: "", rule, fresh: Fresh::Nothing, body }
}

const fn read(path: &'static str, rule: Rule) -> Route {
    route("GET", path, rule, |_| Value::Null)
}

pub(super) fn all() -> Vec<Route> {
    let nothing: fn(&Place) -> Value = |_| Value::Null;
    let stores = "/accounts/{account_id}/secrets_store/stores";
    let store = "/accounts/{account_id}/secrets_store/stores/{store_id}";
    let secrets = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets";
    let secret = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}";
    let copy = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}/duplicate";
    let back = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}/rollback";
    let bindings = "/accounts/{account_id}/secrets_store/bindings";
    let see = Rule::Account(O::ReadMetadata);
    let change = Rule::Account(O::ManageSecrets);
    let audit = Rule::Within(O::ReadAudit);
    vec![
        read("/accounts", Rule::Known),
        read("/accounts/{account_id}", see),
        read("/memberships", Rule::Known),
        read("/user", Rule::Known),
        read("/user/tokens/verify", Rule::Known),
        read("/receipts/{position}", Rule::Known),
        read("/accounts/{account_id}/secrets_store/quota", see),
        read(stores, see),
        route("POST", stores, Rule::Account(O::ManageStores), |_| json!({ "name": "store" })),
        read(store, see),
        // It holds secrets.
        route("DELETE", store, Rule::Account(O::ManageStores), nothing),
        read(secrets, see),
        route("POST", secrets, change, |_| json!([{ "name": TAKEN, "value": "v", "scopes": ["workers"] }])),
        // It is bound.
        route("DELETE", secrets, change, |place| json!({ "ids": [place.secret] })),
        read(secret, see),
        route("PATCH", secret, change, |_| json!({ "comment": "the same" })),
        route("DELETE", secret, change, nothing),
        route("POST", copy, change, |_| json!({ "name": TAKEN, "scopes": ["workers"] })),
        read("/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}/versions", see),
        route("POST", back, change, |_| json!({ "version": 999 })),
        read(bindings, see),
        route("POST", bindings, Rule::Account(O::Bind), |place| {
            let consumer = json!({ "kind": "worker", "name": place.consumer });
            json!({ "consumer": consumer, "name": place.binding, "store_id": place.store, "secret_name": "KEPT" })
        }),
        Route {
            fresh: Fresh::Binding,
            ..route("DELETE", "/accounts/{account_id}/secrets_store/bindings/{kind}/{consumer}/{name}", Rule::Account(O::Bind), nothing)
        },
        Route { query: "?since=2026-01-01&before=2100-01-01", ..read("/accounts/{account_id}/logs/audit", audit) },
        read("/accounts/{account_id}/logs/audit/{audit_log_id}/history", audit),
        read("/accounts/{account_id}/logs/audit/product_categories", audit),
        read("/accounts/{account_id}/audit_logs", audit),
    ]
}

/// What the server says of its routes.
pub(super) async fn declared(rest: &mut Rest) -> BTreeSet<String> {
    let answer = rest.get("/client/v4/openapi.json").await;
    let api: Value = serde_json::from_slice(&answer.body).unwrap();
    let mut found = BTreeSet::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        found.extend(methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    found
}

pub(super) fn verdict(answer: &Answer) -> Verdict {
    if (200..300).contains(&answer.status) {
        answer.result();
        return Verdict::Allowed;
    }
    // Of a binding that is refused, clients know one code for all reasons; ours stands behind it.
    let why = answer.envelope()["errors"][0]["error_chain"][0]["message"].as_str().unwrap_or_default().to_owned();
    match answer.refusal() {
        (401, ..) => Verdict::Stranger,
        (403, 9109, _) => Verdict::Refused,
        (404, 7003, _) => Verdict::Hidden,
        (400, 10021, _) if why.contains("may not bind") => Verdict::Refused,
        (400 | 404 | 409, ..) => Verdict::Allowed,
        _ => panic!("{answer:?}"),
    }
}
