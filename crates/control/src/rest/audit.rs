//! The audit log in the two forms that Cloudflare's API has: see `docs/audit.md`.
//!
//! An entry is one event; a note of calls is as many as it has rows. What Cloudflare's API knows of a request and the log does not keep (method,
//! path, status, user agent) is left out.

use std::sync::Arc;

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use state::{AuditEntry, AuditOutcome, AuditPrincipal, CallRow, State};
use types::{AccountId, UnixMillis};
use utoipa::ToSchema;
use wire::{ErrorKind, PublicError, parse::FieldError, v1};

use super::{
    answer::{Answer, Envelope, Failure, respond},
    ask::Ask,
    codes::Said,
    instant::{Instant, instant},
    objects::time,
};
use crate::{
    audit::{self, Asked, Page, Span},
    call::Call,
    core::Core,
    error::damaged,
};

/// Events of a page where nothing is said, and at the most.
const LIMIT: u64 = 100;
const LIMIT_MAX: u64 = 1000;
/// How deep the older form may page: it has no cursor, so each page begins anew.
const DEPTH_MAX: u64 = 10_000;
/// Looks of bounded length that one page of the older form, or of a history, takes at most.
const LOOKS_MAX: usize = 16;
const PRODUCT: &str = "secrets_store";

/// What is asked of the log: entries of an account, in a stretch of time.
struct Wanted {
    account: String,
    since: Option<UnixMillis>,
    before: Option<UnixMillis>,
    cursor: Option<u64>,
    newest_first: bool,
    limit: usize,
    looks: usize,
    form: Form,
    filters: Vec<Filter>,
    /// For a history: the event whose resource it is of.
    of: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V1,
    V2,
}

/// A condition on a field of an event.
struct Filter {
    pointer: String,
    values: Vec<String>,
    not: bool,
}

struct Found {
    events: Vec<Value>,
    next: Option<u64>,
}

impl Filter {
    fn of(ask: &Ask, fields: &[(&str, &str)]) -> Vec<Self> {
        let one = |(name, pointer): &(&str, &str)| {
            let filter = |key: String, not: bool| Self { pointer: (*pointer).to_owned(), values: ask.query.all(&key), not };
            [filter((*name).to_owned(), false), filter(format!("{name}.not"), true)]
        };
        fields.iter().flat_map(one).filter(|filter| !filter.values.is_empty()).collect()
    }

    fn fits(&self, event: &Value) -> bool {
        let text = event.pointer(&self.pointer).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let there = text.is_some_and(|text| self.values.iter().any(|wanted| wanted.eq_ignore_ascii_case(&text)));
        there != self.not
    }
}

const FIELDS_V2: [(&str, &str); 18] = [
    ("id", "/id"),
    ("audit_log_id", "/id"),
    ("account_name", "/account/name"),
    ("action_result", "/action/result"),
    ("action_type", "/action/type"),
    ("actor_context", "/actor/context"),
    ("actor_email", "/actor/email"),
    ("actor_id", "/actor/id"),
    ("actor_ip_address", "/actor/ip_address"),
    ("actor_token_id", "/actor/token_id"),
    ("actor_token_name", "/actor/token_name"),
    ("actor_type", "/actor/type"),
    ("raw_cf_ray_id", "/raw/cf_ray_id"),
    ("resource_id", "/resource/id"),
    ("resource_product", "/resource/product"),
    ("resource_scope", "/resource/scope"),
    ("resource_type", "/resource/type"),
    ("zone_id", "/zone/id"),
];

const FIELDS_V1: [(&str, &str); 4] =
    [("id", "/id"), ("action.type", "/action/type"), ("actor.email", "/actor/email"), ("actor.ip", "/actor/ip")];

/// Goes through the log, in bounded looks.
async fn browse(core: Arc<Core>, call: Call, wanted: Wanted) -> Result<Found, PublicError> {
    let named = v1::AuditFilter { account: wanted.account.clone(), ..Default::default() };
    let Asked { sight, filter, state } = audit::asked(&core, &call, Some(named)).await?;
    let account = filter.account.ok_or_else(|| PublicError::new(ErrorKind::NotFound, "no account"))?;
    let about = Arc::new(About { account, name: name_of(&state, account)? });
    drop(state);
    let Wanted { form, mut filters, of, .. } = wanted;
    let mut span =
        Span { since: wanted.since, before: wanted.before, cursor: wanted.cursor, newest_first: wanted.newest_first, limit: wanted.limit };
    if let Some(sequence) = of {
        let (about, sight, filter) = (about.clone(), sight.clone(), filter.clone());
        let one = Span { cursor: Some(sequence.saturating_add(1)), newest_first: true, limit: 1, since: None, before: None };
        let Page { items, .. } = audit::look(&core, move |log| {
            audit::scan(log, &one, |entry, _| {
                Some((entry.sequence == sequence).then(|| filter.pick(&sight, entry)).flatten().map(|entry| about.events(&entry, Form::V2)))
            })
        })
        .await?;
        let resource = items.into_iter().flatten().flatten().next().and_then(|event| event.pointer("/resource/id").cloned());
        let resource = resource.and_then(|id| id.as_str().map(str::to_owned));
        let resource = resource.ok_or_else(|| PublicError::new(ErrorKind::NotFound, format!("no audit log {sequence}")))?;
        filters.push(Filter { pointer: "/resource/id".to_owned(), values: vec![resource], not: false });
        span.cursor = Some(sequence.saturating_add(1));
    }
    let filters = Arc::new(filters);
    let mut found = Found { events: Vec::new(), next: None };
    for _ in 0..wanted.looks {
        let (about, filters, sight, filter, look) = (about.clone(), filters.clone(), sight.clone(), filter.clone(), span.clone());
        let Page { items, next, .. } = audit::look(&core, move |log| {
            audit::scan(log, &look, |entry, _| {
                let mut events = about.events(&filter.pick(&sight, entry)?, form);
                events.retain(|event| filters.iter().all(|filter| filter.fits(event)));
                (!events.is_empty()).then_some(events)
            })
        })
        .await?;
        found.events.extend(items.into_iter().flatten());
        found.next = next;
        if next.is_none() || found.events.len() >= wanted.limit {
            break;
        }
        span.cursor = next;
        span.limit = wanted.limit - found.events.len();
    }
    Ok(found)
}

fn name_of(state: &State, account: AccountId) -> Result<String, PublicError> {
    Ok(state.account(account).map_err(damaged)?.map(|record| record.name.to_string()).unwrap_or_default())
}

/// The account that events are shown in.
struct About {
    account: AccountId,
    name: String,
}

/// What an event is, whatever the form.
struct Event<'a> {
    id: String,
    when: UnixMillis,
    kind: &'static str,
    description: String,
    done: bool,
    principal: &'a AuditPrincipal,
    peer: &'a str,
    label: &'a str,
    resource: (String, &'static str),
    details: Map<String, Value>,
}

/// What kind of action a command or a call is, by the beginning of its name's last part.
fn kind(name: &str) -> &'static str {
    let verb = name.rsplit('.').next().unwrap_or(name);
    let begins = |all: &[&str]| all.iter().any(|one| verb.starts_with(one));
    if begins(&["create", "duplicate", "bind", "enrol", "register", "init", "mint"]) {
        "create"
    } else if begins(&["delete", "destroy", "revoke", "unbind"]) {
        "delete"
    } else if begins(&["list", "show", "get", "versions", "usage", "exposure", "export", "members", "status", "save", "who", "verify"]) {
        "view"
    } else {
        "update"
    }
}

impl About {
    fn events(&self, entry: &AuditEntry, form: Form) -> Vec<Value> {
        let show = |event: Event<'_>| match form {
            Form::V1 => self.v1(event),
            Form::V2 => self.v2(event),
        };
        match &entry.outcome {
            AuditOutcome::Noted { notes, .. } => {
                let row = |(place, row): (usize, &CallRow)| {
                    let principal = audit::filter::principal_of(row);
                    show(noted(entry.sequence, place, row, &principal))
                };
                notes.rows.iter().enumerate().map(row).collect()
            }
            AuditOutcome::Done { .. } | AuditOutcome::Refused { .. } => vec![show(command(entry))],
        }
    }

    fn v2(&self, event: Event<'_>) -> Value {
        let actor = Actor::of(&event);
        let account = json!({"id": self.account.to_string(), "name": self.name});
        json!({
            "id": event.id,
            "account": account,
            "action": {
                "description": event.description,
                "result": if event.done { "success" } else { "failure" },
                "time": time(event.when.get()),
                "type": event.kind,
            },
            "actor": {
                "id": actor.id,
                "context": actor.context,
                "email": actor.name,
                "ip_address": actor.ip,
                "token_id": actor.token,
                "token_name": actor.name,
                "type": actor.kind,
            },
            "raw": {"cf_ray_id": event.label},
            "resource": {
                "id": event.resource.0,
                "product": PRODUCT,
                "request": event.details,
                "response": {},
                "scope": "accounts",
                "type": event.resource.1,
            },
        })
    }

    fn v1(&self, event: Event<'_>) -> Value {
        let actor = Actor::of(&event);
        json!({
            "id": event.id,
            "when": time(event.when.get()),
            "action": {"type": event.kind, "result": event.done},
            "actor": {"id": actor.id, "email": actor.name, "ip": actor.ip, "type": actor.kind},
            "resource": {"id": event.resource.0, "type": event.resource.1},
            "owner": {"id": self.account.to_string()},
            "interface": "API",
            "metadata": event.details,
            "newValue": "",
            "oldValue": "",
        })
    }
}

/// Who acted, as Cloudflare's API says it.
struct Actor {
    id: String,
    name: String,
    token: String,
    ip: String,
    kind: &'static str,
    context: &'static str,
}

impl Actor {
    fn of(event: &Event<'_>) -> Self {
        let (id, name, token, kind, context) = match event.principal {
            AuditPrincipal::Operator { token, name } => (token.to_string(), name.to_string(), token.to_string(), "user", "api_token"),
            AuditPrincipal::Node { node } => (format!("node:{node}"), String::new(), String::new(), "system", "api"),
            AuditPrincipal::System => ("system".to_owned(), String::new(), String::new(), "system", "api"),
            AuditPrincipal::Unknown => ("unknown".to_owned(), String::new(), String::new(), "user", "api_token"),
            AuditPrincipal::RecoveryKey => ("recovery-key".to_owned(), String::new(), String::new(), "system", "api_key"),
        };
        // The peer without its port, where it is an address.
        let peer = event.peer.split(' ').next().unwrap_or_default();
        let ip = peer.parse::<std::net::SocketAddr>().map_or_else(|_| peer.to_owned(), |address| address.ip().to_string());
        Self { id, name, token, ip, kind, context }
    }
}

/// The event of a command.
fn command(entry: &AuditEntry) -> Event<'_> {
    let target = &entry.target;
    let mut details = Map::new();
    let mut say = |name: &str, value: Value| drop(details.insert(name.to_owned(), value));
    say("action", json!(entry.action.name()));
    if let Some(store) = target.store {
        say("store_id", json!(store.to_string()));
    }
    if target.secrets.len() > 1 {
        say("secret_ids", json!(target.secrets.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    if let Some(source) = target.duplicated_from {
        say("duplicated_from_id", json!(source.to_string()));
    }
    if target.value_modified {
        say("value_modified", json!(true));
    }
    if let Some(name) = &target.binding {
        say("binding", json!(name.to_string()));
    }
    if let Some(request) = entry.request {
        say("request_id", json!(request.to_string()));
    }
    let done = match &entry.outcome {
        AuditOutcome::Done { .. } | AuditOutcome::Noted { .. } => true,
        AuditOutcome::Refused { kind, message } => {
            say("refused", json!(kind.name()));
            say("message", json!(message));
            false
        }
    };
    let consumer = target.consumer.as_ref().map(|consumer| format!("{}/{}", consumer.kind, consumer.name));
    let resource = match (target.secrets.first(), consumer, target.token, target.node, target.store, target.account) {
        (_, Some(consumer), ..) => (consumer, if target.binding.is_some() { "binding" } else { "consumer" }),
        (Some(secret), ..) => (secret.to_string(), "secret"),
        (_, _, Some(token), ..) => (token.to_string(), "token"),
        (_, _, _, Some(node), ..) => (node.to_string(), "node"),
        (_, _, _, _, Some(store), _) => (store.to_string(), "store"),
        (.., Some(account)) => (account.to_string(), "account"),
        _ => (String::new(), "cluster"),
    };
    Event {
        id: entry.sequence.to_string(),
        when: entry.time,
        kind: kind(entry.action.name()),
        description: entry.action.name().replace('-', " "),
        done,
        principal: &entry.principal,
        peer: &entry.origin.peer,
        label: &entry.origin.request,
        resource,
        details,
    }
}

/// The event of calls that were noted together.
fn noted<'a>(sequence: u64, place: usize, row: &'a CallRow, principal: &'a AuditPrincipal) -> Event<'a> {
    let mut details = Map::new();
    details.insert("call".to_owned(), json!(row.call));
    details.insert("count".to_owned(), json!(row.count));
    details.insert("first".to_owned(), json!(time(row.times.0.get())));
    if let Some(refused) = row.refused {
        details.insert("refused".to_owned(), json!(refused.name()));
    }
    let resource = match (row.store, row.account) {
        (Some(store), _) => (store.to_string(), "store"),
        (None, Some(account)) => (account.to_string(), "account"),
        (None, None) => (String::new(), "cluster"),
    };
    Event {
        id: format!("{sequence}.{place}"),
        when: row.times.1,
        kind: kind(&row.call),
        description: row.call.replace(['.', '_'], " "),
        done: row.refused.is_none(),
        principal,
        peer: &row.peer,
        label: &row.request,
        resource,
        details,
    }
}

/// An event: docs/audit.md names its fields.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(super) struct Logged(Value);

/// What stands around a part of the log: an envelope, with what its list can say of itself. Nobody counts the whole log.
#[derive(Serialize, ToSchema)]
pub(super) struct Log<I> {
    success: bool,
    errors: Vec<Said>,
    messages: Vec<Said>,
    result: Vec<Logged>,
    result_info: I,
}

/// Where the list goes on.
#[derive(Serialize, ToSchema)]
pub(super) struct Further {
    /// Events on this page.
    count: usize,
    /// For the next page; empty when this was the last.
    cursor: String,
    cursors: Cursors,
}

/// The same, as newer clients read it.
#[derive(Serialize, ToSchema)]
pub(super) struct Cursors {
    after: String,
    before: String,
}

/// Which page this is.
#[derive(Serialize, ToSchema)]
pub(super) struct LogPage {
    page: u64,
    per_page: u64,
    /// Events on this page.
    count: usize,
}

impl<I: Serialize> Log<I> {
    fn of(events: Vec<Value>, result_info: I) -> Response {
        let result = events.into_iter().map(Logged).collect();
        respond(StatusCode::OK, &Self { success: true, errors: Vec::new(), messages: Vec::new(), result, result_info })
    }
}

/// The envelope of a list with a cursor, in both of its forms.
fn listed(Found { events, next }: Found) -> Response {
    let cursor = next.map(|next| next.to_string()).unwrap_or_default();
    let cursors = Cursors { after: cursor.clone(), before: String::new() };
    let count = events.len();
    Log::of(events, Further { count, cursor, cursors })
}

/// Lists what was done in an account, newest first.
#[utoipa::path(
    get, path = "/accounts/{account_id}/logs/audit", tag = "audit",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("since" = Instant, Query, description = "Of this time or later: a date, or RFC 3339"),
        ("before" = Instant, Query, description = "Before this time"),
        ("limit" = Option<u64>, Query, description = "100 if not said, at most 1000"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,19}$", description = "From the page before"),
        ("direction" = Option<String>, Query, pattern = "^(asc|desc)$", description = "desc if not said, or asc"),
        ("action_type" = Option<String>, Query, description = "This and others: FIELD=VALUE, or FIELD.not=VALUE; docs/audit.md lists the fields"),
    ),
    responses((status = 200, body = Log<Further>)),
)]
pub(super) async fn list(ask: Ask) -> Result<Response, Failure> {
    let need = |key: &str| -> Result<UnixMillis, FieldError> { instant(key, ask.query.get(key).ok_or_else(|| FieldError::missing(key))?) };
    let (since, before) = (need("since")?, need("before")?);
    let wanted = Wanted {
        account: ask.param("account_id"),
        since: Some(since),
        before: Some(before),
        cursor: cursor(&ask)?,
        newest_first: ask.query.get("direction").is_none() || ask.query.falls()?,
        limit: limit(&ask)?,
        looks: 1,
        form: Form::V2,
        filters: Filter::of(&ask, &FIELDS_V2),
        of: None,
    };
    Ok(listed(ask.read("audit.list", wanted, browse).await?))
}

fn cursor(ask: &Ask) -> Result<Option<u64>, FieldError> {
    let parse = |text: &str| text.parse().map_err(|_| FieldError::new("cursor", "is not one that a page before this one gave out"));
    ask.query.get("cursor").map(parse).transpose()
}

fn limit(ask: &Ask) -> Result<usize, PublicError> {
    let limit = ask.query.number("limit")?.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    Ok(usize::try_from(limit).unwrap_or(1))
}

/// Lists what was done to the resource of one event, that event and those before it.
#[utoipa::path(
    get, path = "/accounts/{account_id}/logs/audit/{audit_log_id}/history", tag = "audit",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("audit_log_id" = String, Path, description = "The event's id"),
        ("limit" = Option<u64>, Query, description = "100 if not said, at most 1000"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,19}$", description = "From the page before"),
    ),
    responses((status = 200, body = Log<Further>)),
)]
pub(super) async fn history(ask: Ask) -> Result<Response, Failure> {
    let id = ask.param("audit_log_id");
    let sequence = id.split('.').next().and_then(|id| id.parse().ok());
    let sequence = sequence.ok_or_else(|| PublicError::new(ErrorKind::NotFound, format!("no audit log {id}")))?;
    let wanted = Wanted {
        account: ask.param("account_id"),
        since: None,
        before: None,
        cursor: cursor(&ask)?,
        newest_first: true,
        limit: limit(&ask)?,
        looks: LOOKS_MAX,
        form: Form::V2,
        filters: Vec::new(),
        of: Some(sequence),
    };
    Ok(listed(ask.read("audit.list", wanted, browse).await?))
}

/// Lists the products whose events there are.
#[utoipa::path(
    get, path = "/accounts/{account_id}/logs/audit/product_categories", tag = "audit",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    responses((status = 200, body = Envelope<Vec<Logged>>)),
)]
pub(super) async fn product_categories(ask: Ask) -> Result<Answer<Vec<Logged>>, Failure> {
    let filter = v1::AuditFilter { account: ask.param("account_id"), ..Default::default() };
    ask.read("audit.list", filter, async |core, call, filter| audit::asked(&core, &call, Some(filter)).await.map(drop)).await?;
    Ok(Answer::of(vec![Logged(json!({"name": "Secrets Store", "products": [PRODUCT]}))]))
}

/// Lists what was done in an account, in the older form.
#[utoipa::path(
    get, path = "/accounts/{account_id}/audit_logs", tag = "audit",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("since" = Option<Instant>, Query, description = "Of this time or later: a date, or RFC 3339"),
        ("before" = Option<Instant>, Query, description = "Before this time"),
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("direction" = Option<String>, Query, pattern = "^(asc|desc)$", description = "desc if not said, or asc"),
        ("action.type" = Option<String>, Query, description = "create, delete, update or view; also actor.email, actor.ip, id"),
        ("hide_user_logs" = Option<bool>, Query, description = "Only what nodes did"),
    ),
    responses((status = 200, body = Log<LogPage>)),
)]
pub(super) async fn list_v1(ask: Ask) -> Result<Response, Failure> {
    let (page, per_page) = (ask.query.page, ask.query.per_page);
    let reach = page.saturating_mul(per_page);
    let bound = |key: &str| ask.query.get(key).map(|text| instant(key, text)).transpose();
    let mut filters = Filter::of(&ask, &FIELDS_V1);
    if ask.query.flag("hide_user_logs")? {
        filters.push(Filter { pointer: "/actor/type".to_owned(), values: vec!["user".to_owned()], not: true });
    }
    let wanted = Wanted {
        account: ask.param("account_id"),
        since: bound("since")?,
        before: bound("before")?,
        cursor: None,
        newest_first: ask.query.get("direction").is_none() || ask.query.falls()?,
        limit: usize::try_from(reach.min(DEPTH_MAX)).unwrap_or(usize::MAX),
        looks: LOOKS_MAX,
        form: Form::V1,
        filters,
        of: None,
    };
    let Found { events, next } = ask.read("audit.list", wanted, browse).await?;
    let wanted_from = usize::try_from(reach - per_page).unwrap_or(usize::MAX);
    // Past the end there is nothing; that this is the end, a log that goes on does not say.
    if reach > DEPTH_MAX && next.is_some() {
        let text = format!("lies too deep: at most {DEPTH_MAX} events can be paged through; narrow since and before, or use logs/audit");
        return Err(FieldError::new("page", text).into());
    }
    if events.len() < wanted_from && next.is_some() {
        let text = "as much of the log was looked at as one page takes: narrow since and before, or use logs/audit with its cursor";
        return Err(FieldError::new("page", text).into());
    }
    let shown: Vec<Value> = events.into_iter().skip(wanted_from).take(usize::try_from(per_page).unwrap_or(1)).collect();
    let info = LogPage { page, per_page, count: shown.len() };
    Ok(Log::of(shown, info))
}
