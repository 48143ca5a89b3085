//! What REST reads of a request, part by part, by the functions that a request goes through: for tests that feed them with anything.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Serialize;
use serde_json::{Value, json};
use types::{BindingName, Comment, SecretName, StoreName};
use wire::{
    PublicError,
    parse::{self, ConsumerTarget, SecretTarget, StoreTarget},
    v1,
};
use zeroize::Zeroizing;

use super::{bindings, body, headers::Told, instant::instant, joined, objects, query::Query, secrets, stores, versions};
use crate::{call::shown_token, operations::parsed};

/// A part of a request, and what reads it.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Which part.
    pub name: &'static str,
    /// Reads it, or says what is wrong with it.
    pub read: fn(&[u8]) -> Result<Read, String>,
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// All of it that an answer may show. Never a value.
    pub said: String,
    /// The same part as it would be sent by who sends back what an answer shows. It says the same.
    pub again: Option<Vec<u8>>,
}

const FORMS: &[Form] = &[
    Form { name: "a store to be made", read: |bytes| store(bytes).map_err(shown) },
    Form { name: "secrets to be made", read: |bytes| new_secrets(bytes).map_err(shown) },
    Form { name: "a change of a secret", read: |bytes| edits(bytes).map_err(shown) },
    Form { name: "a copy of a secret", read: |bytes| copy(bytes).map_err(shown) },
    Form { name: "secrets to be deleted", read: |bytes| ids(bytes).map_err(shown) },
    Form { name: "a binding to be made", read: |bytes| binding(bytes).map_err(shown) },
    Form { name: "a version to roll back to", read: |bytes| rollback(bytes).map_err(shown) },
    Form { name: "a query", read: |bytes| query(bytes).map_err(shown) },
    Form { name: "headers", read: |bytes| headers(bytes).map_err(shown) },
    Form { name: "an address", read: address },
];

/// All parts.
pub const fn forms() -> &'static [Form] {
    FORMS
}

fn shown(error: PublicError) -> String {
    error.message
}

/// The JSON of an answer.
fn json_of(answer: impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

fn read(said: String, again: &Value) -> Read {
    Read { said, again: Some(again.to_string().into_bytes()) }
}

fn store(bytes: &[u8]) -> Result<Read, PublicError> {
    let (_, wanted) = stores::wanted(bytes)?;
    let name: StoreName = parse::name("name", wanted.name)?;
    let answer = objects::Store::from(v1::Store { name: name.to_string(), ..Default::default() });
    Ok(read(name.to_string(), &json_of(answer)))
}

fn secret(name: &SecretName, scopes: types::ScopeSet, comment: &Comment) -> (String, Value) {
    let names = scopes.iter().map(|scope| scope.name().to_owned()).collect();
    let secret = v1::Secret { name: name.to_string(), scopes: names, comment: comment.as_str().to_owned(), ..Default::default() };
    let said = format!("{:?} {:?} {:?}", secret.name, secret.scopes, secret.comment);
    (said, json_of(objects::Secret::from(secret)))
}

fn new_secrets(bytes: &[u8]) -> Result<Read, PublicError> {
    let (_, wanted) = secrets::wanted(bytes)?;
    let (mut all, mut again) = (String::new(), Vec::new());
    for message in secrets::new_secrets(wanted)? {
        let (new, value) = parse::new_secret(message)?;
        drop(Zeroizing::new(value));
        let (said, mut answer) = secret(&new.name, new.scopes, &new.comment);
        answer["value"] = json!("");
        all.push_str(&said);
        again.push(answer);
    }
    Ok(read(all, &Value::Array(again)))
}

fn edits(bytes: &[u8]) -> Result<Read, PublicError> {
    let secrets::Edits { scopes, comment, .. } = body::json(bytes)?;
    let scopes = scopes.map(|names| parse::scopes("scopes", &names)).transpose()?;
    let comment: Option<Comment> = comment.map(|text| parse::name("comment", text)).transpose()?;
    let scopes = scopes.map(|set| set.iter().map(|scope| scope.name()).collect::<Vec<_>>());
    let comment = comment.as_ref().map(Comment::as_str);
    Ok(read(format!("{scopes:?} {comment:?}"), &json!({ "scopes": scopes, "comment": comment })))
}

fn copy(bytes: &[u8]) -> Result<Read, PublicError> {
    let secrets::Copy { name, scopes, comment } = body::json(bytes)?;
    let name: SecretName = parse::name("name", name)?;
    let comment: Comment = parse::name("comment", comment.unwrap_or_default())?;
    let scopes = scopes.unwrap_or_default();
    if scopes.is_empty() {
        return Ok(Read { said: format!("{name} with the scopes of its source"), again: None });
    }
    let (said, answer) = secret(&name, parse::scopes("scopes", &scopes)?, &comment);
    Ok(read(said, &answer))
}

fn ids(bytes: &[u8]) -> Result<Read, PublicError> {
    let body::Ids { ids } = body::ids(bytes)?;
    Ok(read(format!("{ids:?}"), &json!({ "ids": ids })))
}

fn binding(bytes: &[u8]) -> Result<Read, PublicError> {
    let v1::BindRequest { consumer, name, target, .. } = bindings::wanted("acme".to_owned(), bytes)?;
    let consumer: ConsumerTarget = parsed("consumer", consumer)?;
    let name: BindingName = parse::name("name", name)?;
    let (store_id, secret_name) = match target {
        Some(v1::bind_request::Target::Secret(secret)) => {
            let target: SecretTarget = parsed("secret", Some(secret))?;
            (target.store.map(|store| store.to_string()).unwrap_or_default(), Some(target.secret.to_string()))
        }
        Some(v1::bind_request::Target::Store(store)) => (parsed::<StoreTarget, _>("store", Some(store))?.store.to_string(), None),
        None => return Err(parse::FieldError::missing("target").into()),
    };
    let said = format!("{}/{} {name} {store_id} {secret_name:?}", consumer.kind, consumer.name);
    let mut answer = json_of(bindings::Binding::from(v1::Binding {
        consumer_kind: v1::ConsumerKind::from(consumer.kind).into(),
        consumer_name: consumer.name.to_string(),
        name: name.to_string(),
        store_id,
        ..Default::default()
    }));
    answer["secret_name"] = json!(secret_name);
    Ok(read(said, &answer))
}

fn rollback(bytes: &[u8]) -> Result<Read, PublicError> {
    let wanted = versions::wanted(bytes)?;
    Ok(read(format!("{wanted:?}"), &json!({ "version": wanted.version })))
}

/// All that any route asks of a query.
fn query(bytes: &[u8]) -> Result<Read, PublicError> {
    let query = Query::of(&String::from_utf8_lossy(bytes))?;
    let (falls, force) = (query.falls()?, query.flag("force")?);
    let numbers = [query.number("limit")?, query.number("wait_seconds")?];
    let instants = [query.get("since"), query.get("before")].map(|text| text.map(|text| instant("since", text)).transpose());
    let [since, before] = instants;
    let times = [since?, before?].map(|time| time.map(|time| objects::time(time.get())));
    let consumer = query.get("consumer").map(|text| bindings::consumer_of(text, String::new())).transpose()?;
    let consumer = consumer.map(|named| parsed::<ConsumerTarget, _>("consumer", Some(named))).transpose()?;
    let consumer = consumer.map(|named| format!("{}/{}", named.kind, named.name));
    let (order, search, scopes) = (query.get("order"), query.get("search"), query.all("scopes"));
    let (page, per_page) = (query.page, query.per_page);
    let said = format!("{page} {per_page} {falls} {force} {numbers:?} {times:?} {consumer:?} {order:?} {search:?} {scopes:?}");
    let mut again = form_urlencoded::Serializer::new(String::new());
    again.append_pair("direction", if falls { "desc" } else { "asc" }).append_pair("force", if force { "true" } else { "false" });
    let ([limit, wait], [since, before]) = (numbers.map(|number| number.map(|number| number.to_string())), times);
    let numbers = [("page", Some(page.to_string())), ("per_page", Some(per_page.to_string())), ("limit", limit), ("wait_seconds", wait)];
    let texts = [("since", since), ("before", before), ("consumer", consumer)];
    let others = [("order", order.map(str::to_owned)), ("search", search.map(str::to_owned))];
    let scopes = scopes.into_iter().map(|scope| ("scopes", Some(scope)));
    for (key, text) in numbers.into_iter().chain(texts).chain(others).chain(scopes) {
        if let Some(text) = text {
            again.append_pair(key, &text);
        }
    }
    Ok(Read { said, again: Some(again.finish().into_bytes()) })
}

/// Lines of a name, a colon and a value.
fn headers(bytes: &[u8]) -> Result<Read, PublicError> {
    let mut map = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            map.append(name, value);
        }
    }
    let Told { id, count } = Told::of(&map)?;
    let token = match shown_token(&map) {
        None => "no token",
        Some(None) => "no good token",
        Some(Some(_)) => "a token",
    };
    let mut again = Vec::new();
    let ids = id.map(|id| format!("idempotency-key: {id}\n"));
    let counts = count.map(|count| format!("x-stainless-retry-count: {count}\n"));
    for line in [ids, counts].into_iter().flatten() {
        again.extend_from_slice(line.as_bytes());
    }
    let again = (token == "no token").then_some(again);
    Ok(Read { said: format!("{id:?} {count:?} {token}"), again })
}

/// Joined slashes are joined for good.
fn address(bytes: &[u8]) -> Result<Read, String> {
    let uri = Uri::try_from(bytes).map_err(|error| error.to_string())?;
    let single = joined(&uri).unwrap_or(uri).to_string();
    Ok(Read { again: Some(single.clone().into_bytes()), said: single })
}
