//! The audit log through the public API: filters, pages, who may read what, and the export.

use client::Client;
use runtime::OsEntropy;
use seal::OperatorToken;
use wire::{
    ErrorKind,
    v1::{self, export_audit_reply::Part},
};

use crate::harness::{ACCOUNT, Ground, create, item, refused, set, until, with_store};

fn ask(filter: v1::AuditFilter) -> v1::ListAuditRequest {
    v1::ListAuditRequest { filter: Some(filter), ..Default::default() }
}

async fn sequences(client: &Client, filter: v1::AuditFilter) -> Vec<u64> {
    client.list_audit(ask(filter)).await.unwrap().entries.iter().map(|entry| entry.sequence).collect()
}

async fn token(client: &Client, name: &str, role: &str, account: &str, store: &str) -> v1::TokenReply {
    let grant = v1::TokenGrant { role: role.to_owned(), account: account.to_owned(), store: store.to_owned() };
    client.create_token(v1::CreateTokenRequest { name: name.to_owned(), grants: vec![grant], ..Default::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_log_is_listed_by_filters_in_pages_both_ways_and_never_holds_a_value() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    let store = with_store(&operator).await;
    operator.create_secrets(create(vec![item("KEY", "swordfish-1"), item("OTHER", "swordfish-2")])).await.unwrap();
    let request = v1::SetValueRequest { request_id: "ab".repeat(16), ..set("KEY", "swordfish-3") };
    operator.set_value(request).await.unwrap();
    refused(operator.create_secrets(create(vec![item("KEY", "swordfish-4")])).await, ErrorKind::AlreadyExists);

    let all = operator.list_audit(v1::ListAuditRequest::default()).await.unwrap();
    let head = all.head.clone().unwrap();
    assert_eq!((all.entries[0].sequence, &all.entries[0].hash), (head.sequence, &head.hash), "newest first, and the head is the newest");
    assert_eq!((all.held_from, all.missing.len(), all.next_cursor.as_str()), (1, 0, ""));
    assert!(all.entries.windows(2).all(|two| two[0].previous == two[1].hash), "they are one chain");
    assert!(!format!("{all:?}").contains("swordfish"));

    // What was done, to what, by whom, under which id, and how it ended.
    let with = |change: fn(&mut v1::AuditFilter)| {
        let mut filter = v1::AuditFilter::default();
        change(&mut filter);
        filter
    };
    let set = operator.list_audit(ask(with(|filter| filter.actions = vec!["set-value".into()]))).await.unwrap().entries;
    let [entry] = &set[..] else { panic!("{set:?}") };
    let target = entry.target.clone().unwrap();
    assert_eq!((target.store_id, target.value_modified, entry.outcome.as_str()), (store.id.clone(), true, "done"));
    assert_eq!(
        (entry.request_id.as_str(), entry.principal.as_ref().unwrap().name.as_str()),
        ("abababababababababababababababab", "first-operator")
    );
    assert!(entry.peer.starts_with("127.0.0.1:") && !entry.label.is_empty());
    let number = entry.sequence;
    let denied = operator.list_audit(ask(with(|filter| filter.outcome = "already-exists".into()))).await.unwrap().entries;
    assert_eq!(denied.len(), 1);
    assert!(denied[0].message.contains("KEY"), "{}", denied[0].message);
    let names = |store: &str, secret: &str| v1::AuditFilter {
        account: ACCOUNT.into(),
        store: store.into(),
        secret: secret.into(),
        ..Default::default()
    };
    let of_key = sequences(&operator, names("default", "KEY")).await;
    assert_eq!(of_key[0], number);
    assert_eq!(sequences(&operator, names(&store.id, &target.secret_ids[0])).await, of_key, "by ids as by names");
    assert_eq!(sequences(&operator, with(|filter| filter.request_id = "ab".repeat(16))).await, [number]);
    assert_eq!(sequences(&operator, v1::AuditFilter { origin: entry.label.clone(), ..Default::default() }).await, [number]);
    let token_id = entry.principal.as_ref().unwrap().token_id.clone();
    assert!(sequences(&operator, v1::AuditFilter { token_id, ..Default::default() }).await.contains(&number));
    assert!(sequences(&operator, with(|filter| filter.principal = "nobody".into())).await.is_empty());
    assert!(sequences(&operator, with(|filter| filter.principal = "system".into())).await.contains(&1));
    let since = sequences(&operator, v1::AuditFilter { since_ms: entry.time_ms, ..Default::default() }).await;
    let before = sequences(&operator, v1::AuditFilter { before_ms: entry.time_ms, ..Default::default() }).await;
    assert!(since.contains(&number) && !before.contains(&number));
    assert_eq!(since.len() + before.len(), all.entries.len(), "each is on one side of any time");

    // Page by page, back and forth.
    let page = |cursor: &str, oldest_first| v1::ListAuditRequest { cursor: cursor.into(), oldest_first, limit: 2, ..Default::default() };
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = operator.list_audit(page(&cursor, false)).await.unwrap();
        assert!(reply.entries.len() <= 2);
        found.extend(reply.entries.iter().map(|entry| entry.sequence));
        cursor = reply.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(found, (1..=head.sequence).rev().collect::<Vec<_>>());
    let first = operator.list_audit(page("", false)).await.unwrap();
    let second = operator.list_audit(page(&first.next_cursor, false)).await.unwrap();
    let back = operator.list_audit(page(&second.next_cursor, true)).await.unwrap();
    assert_eq!(back.entries[0].sequence, second.entries[0].sequence, "the other way from the same cursor");

    for (filter, field) in [
        (with(|filter| filter.actions = vec!["steal".into()]), "actions"),
        (with(|filter| filter.outcome = "maybe".into()), "outcome"),
        (with(|filter| filter.token_id = "x".into()), "token_id"),
        (with(|filter| filter.secret = "KEY".into()), "store"),
    ] {
        let message = refused(operator.list_audit(ask(filter)).await, ErrorKind::InvalidArgument);
        assert!(message.contains(field), "{message}");
    }
    refused(operator.list_audit(page("x", false)).await, ErrorKind::InvalidArgument);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_sees_the_entries_of_its_own_reach_and_reads_them_by_one_role_only() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    let other = operator.create_account(v1::CreateAccountRequest { name: "other".into(), ..Default::default() }).await.unwrap();
    let other_store = v1::CreateStoreRequest { account: "other".into(), name: "default".into(), ..Default::default() };
    operator.create_store(other_store).await.unwrap();
    operator.create_secrets(create(vec![item("KEY", "v")])).await.unwrap();

    for role in ["admin", "deployer", "reporter"] {
        let made = token(&operator, role, role, "", "").await;
        let message = refused(node.client(&made.token).list_audit(v1::ListAuditRequest::default()).await, ErrorKind::Denied);
        assert!(message.contains("read the audit log"), "{message}");
    }
    let all = operator.list_audit(v1::ListAuditRequest::default()).await.unwrap().entries;
    let of = |name: &str| {
        let account = all.iter().find(|entry| {
            entry.action == "create-account" && entry.target.as_ref().is_some_and(|it| it.account_id != other.account.as_ref().unwrap().id)
        });
        let id =
            if name == "other" { other.account.as_ref().unwrap().id.clone() } else { account.unwrap().target.clone().unwrap().account_id };
        (
            id.clone(),
            all.iter()
                .filter(|entry| entry.target.as_ref().is_some_and(|it| it.account_id == id))
                .map(|entry| entry.sequence)
                .collect::<Vec<_>>(),
        )
    };
    for name in [ACCOUNT, "other"] {
        let made = token(&operator, "auditor", "super-administrator", name, "").await;
        let auditor = node.client(&made.token);
        let (_, expected) = of(name);
        assert!(expected.len() >= 2);
        assert_eq!(sequences(&auditor, v1::AuditFilter::default()).await, expected, "{name}");
        // An account beyond is unknown, by its id as by its name, and of a token beyond nothing is seen.
        let (beyond, _) = of(if name == "other" { ACCOUNT } else { "other" });
        refused(auditor.list_audit(ask(v1::AuditFilter { account: beyond, ..Default::default() })).await, ErrorKind::NotFound);
        assert!(
            sequences(&auditor, v1::AuditFilter { token_id: made.token_id, ..Default::default() })
                .await
                .iter()
                .all(|one| expected.contains(one))
        );
    }
    let made = token(&operator, "auditor", "super-administrator", ACCOUNT, "default").await;
    let seen = node.client(&made.token).list_audit(v1::ListAuditRequest::default()).await.unwrap().entries;
    assert!(!seen.is_empty() && seen.iter().all(|entry| !entry.target.as_ref().unwrap().store_id.is_empty()), "of its store alone");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_has_every_entry_with_its_stored_bytes_and_says_when_it_leaves_any_out() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    with_store(&operator).await;
    for number in 0..20 {
        operator.create_secrets(create(vec![item(&format!("KEY{number}"), "swordfish")])).await.unwrap();
    }
    let parts = async |client: &Client, filter: v1::AuditFilter| {
        let mut stream = client.export_audit(v1::ExportAuditRequest { filter: Some(filter) }).await.unwrap();
        let mut parts = Vec::new();
        while let Some(part) = stream.next().await.unwrap() {
            parts.push(part);
        }
        parts
    };
    let whole = parts(&operator, v1::AuditFilter::default()).await;
    let [Part::Begin(begin), entries @ .., Part::End(end)] = &whole[..] else { panic!("{whole:?}") };
    assert!(begin.whole && begin.cut.is_none() && begin.held_from == 1 && begin.signers.len() == 1, "{begin:?}");
    let mut previous = "0".repeat(64);
    for (part, sequence) in entries.iter().zip(1..) {
        let Part::Entry(entry) = part else { panic!("{part:?}") };
        assert_eq!((entry.sequence, &entry.previous), (sequence, &previous));
        assert_eq!(control::exported_audit_entry(&entry.stored).unwrap(), *entry, "what is shown is what is stored");
        assert!(!entry.stored.windows(9).any(|bytes| bytes == b"swordfish"));
        previous.clone_from(&entry.hash);
    }
    let head = end.head.clone().unwrap();
    assert_eq!((head.sequence, head.hash, end.entries), (entries.len() as u64, previous, entries.len() as u64));
    assert_eq!(end.signature.len(), 128);

    let some = parts(&operator, v1::AuditFilter { actions: vec!["create-secrets".into()], ..Default::default() }).await;
    let [Part::Begin(begin), entries @ .., Part::End(_)] = &some[..] else { panic!("{some:?}") };
    assert!(!begin.whole && entries.len() == 20);
    let made = token(&operator, "auditor", "super-administrator", ACCOUNT, "").await;
    let own = parts(&node.client(&made.token), v1::AuditFilter::default()).await;
    assert!(matches!(&own[0], Part::Begin(begin) if !begin.whole));
    let reporter = token(&operator, "reporter", "reporter", "", "").await;
    let denied = node.client(&reporter.token).export_audit(v1::ExportAuditRequest::default()).await;
    assert_eq!(denied.err().unwrap().kind(), ErrorKind::Denied);
    node.stop().await;
}

/// The newest entry of making an account, which is made for it.
async fn mark(client: &Client, name: &str) -> v1::AuditEntry {
    client.create_account(v1::CreateAccountRequest { name: name.into(), ..Default::default() }).await.unwrap();
    let filter = v1::AuditFilter { actions: vec!["create-account".into()], ..Default::default() };
    client.list_audit(ask(filter)).await.unwrap().entries.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_bad_tokens_moves_the_log_by_nothing_but_time() {
    const FLOOD: u64 = 500;
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    let known = token(&operator, "known", "reporter", "", "").await;
    let before = mark(&operator, "before").await;
    let mut outcomes = std::collections::BTreeSet::new();
    for _ in 0..FLOOD / 50 {
        let token = OperatorToken::generate(&OsEntropy).text().expose().to_owned();
        let stranger = node.client(&token);
        let calls = (0..50).map(|_| stranger.list_accounts(v1::ListAccountsRequest::default()));
        for outcome in futures::future::join_all(calls).await {
            outcomes.insert(outcome.unwrap_err().kind().name());
        }
    }
    assert!(outcomes.contains("unauthenticated"), "{outcomes:?}");
    // One of somebody known follows. When that is noted, all that would be noted of the flood is.
    refused(
        node.client(&known.token).create_account(v1::CreateAccountRequest { name: "x".into(), ..Default::default() }).await,
        ErrorKind::Denied,
    );
    let filter = v1::AuditFilter { outcome: "noted".into(), ..Default::default() };
    let noted = until("the refusal is noted", || async {
        let entries = operator.list_audit(ask(filter.clone())).await.unwrap().entries;
        let whose = |row: &v1::AuditCall| row.principal.as_ref().map(|principal| principal.token_id.clone()).unwrap_or_default();
        let refused = entries.iter().flat_map(|entry| &entry.calls).filter(|row| !row.refusal.is_empty());
        let principals: Vec<_> = refused.map(whose).collect();
        assert!(principals.iter().all(|principal| *principal == known.token_id), "{principals:?}");
        (!principals.is_empty()).then_some(entries.len() as u64)
    })
    .await;
    let after = mark(&operator, "after").await;
    assert_eq!(after.sequence, before.sequence + 1 + noted, "the audit log has nothing of it");
    // A tick a second is all that came in between.
    let ticks = (after.time_ms - before.time_ms) / 1000 + 2;
    let moved = after.index - before.index - 1 - noted;
    assert!(moved <= ticks, "{moved} entries in the Raft log, and at most {ticks} ticks");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_at_the_door_and_reads_of_known_principals_are_noted_together() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    let store = with_store(&operator).await;
    operator.create_account(v1::CreateAccountRequest { name: "other".into(), ..Default::default() }).await.unwrap();
    let made = token(&operator, "curious", "reporter", ACCOUNT, "").await;
    let curious = node.client(&made.token);
    for _ in 0..3 {
        curious.list_secrets(v1::ListSecretsRequest { store: crate::harness::store("default"), ..Default::default() }).await.unwrap();
    }
    for _ in 0..5 {
        refused(curious.create_secrets(create(vec![item("KEY", "swordfish")])).await, ErrorKind::Denied);
    }
    refused(curious.show_account(v1::ShowAccountRequest { account: "other".into() }).await, ErrorKind::NotFound);
    let filter = v1::AuditFilter { principal: "curious".into(), outcome: "noted".into(), ..Default::default() };
    let rows = until("the calls are noted", || async {
        let entries = operator.list_audit(ask(filter.clone())).await.unwrap().entries;
        assert!(entries.iter().all(|entry| entry.action == "note-calls" && entry.principal.as_ref().unwrap().node_id == 1));
        let rows: Vec<_> = entries.into_iter().flat_map(|entry| entry.calls).collect();
        let denied: u64 = rows.iter().filter(|row| row.refusal == "denied").map(|row| row.count).sum();
        let read: u64 = rows.iter().filter(|row| row.call == "secrets.list").map(|row| row.count).sum();
        (denied == 5 && read == 3 && rows.iter().any(|row| row.refusal == "not-found")).then_some(rows)
    })
    .await;
    let denied = rows.iter().find(|row| row.refusal == "denied").unwrap();
    assert_eq!((denied.call.as_str(), denied.store_id.as_str()), ("secrets.create", store.id.as_str()));
    assert_eq!(denied.principal.as_ref().unwrap().token_id, made.token_id);
    assert!(denied.peer.starts_with("127.0.0.1:") && denied.first_ms <= denied.last_ms);
    let missed = rows.iter().find(|row| row.refusal == "not-found").unwrap();
    assert_eq!((missed.call.as_str(), missed.account_id.as_str()), ("accounts.show", ""), "what it asked for is not its own");
    assert!(!format!("{rows:?}").contains("swordfish"));

    // Whoever audits the account sees its rows, and whoever audits another sees none.
    let auditor = token(&operator, "auditor", "super-administrator", ACCOUNT, "").await;
    let seen = node.client(&auditor.token).list_audit(ask(filter.clone())).await.unwrap().entries;
    assert!(seen.iter().flat_map(|entry| &entry.calls).all(|row| !row.account_id.is_empty()) && !seen.is_empty());
    let elsewhere = token(&operator, "elsewhere", "super-administrator", "other", "").await;
    assert!(node.client(&elsewhere.token).list_audit(ask(filter.clone())).await.unwrap().entries.is_empty());

    let whole = operator.list_audit(ask(v1::AuditFilter { actions: vec!["note-calls".into()], ..Default::default() })).await.unwrap();
    let mut notes = whole.entries;
    notes.reverse();
    assert!(notes.windows(2).all(|two| two[1].note_number == two[0].note_number + 1), "the node's own notes have no gap");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_log_over_rest_has_the_shapes_of_both_forms() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = node.operator();
    let store = with_store(&operator).await;
    operator.create_secrets(create(vec![item("KEY", "swordfish")])).await.unwrap();
    let request = v1::DuplicateSecretRequest {
        source: crate::harness::secret("KEY"),
        name: "COPY".into(),
        scopes: vec!["workers".into()],
        ..Default::default()
    };
    let copy = operator.duplicate_secret(request).await.unwrap().secret.unwrap();
    operator.set_value(set("COPY", "swordfish-2")).await.unwrap();
    refused(operator.create_secrets(create(vec![item("KEY", "swordfish-3")])).await, ErrorKind::AlreadyExists);
    let rest = crate::http::Rest::operator(&ground, &node);
    let account = format!("/accounts/{}", store.account_id);
    let v2 = format!("{account}/logs/audit?since=2020-01-01&before=2100-01-01T00:00:00Z");

    let all = rest.get(&v2).await;
    let events = all.result().as_array().unwrap().clone();
    assert!(!all.body.to_string().contains("swordfish"));
    let refused = &events[0];
    assert_eq!((&refused["action"]["result"], &refused["action"]["type"]), (&"failure".into(), &"create".into()));
    let changed = &events[1];
    assert_eq!(changed["resource"]["id"], copy.id.as_str());
    assert_eq!((&changed["action"]["type"], &changed["resource"]["request"]["value_modified"]), (&"update".into(), &true.into()));
    assert_eq!(
        (&changed["actor"]["context"], &changed["actor"]["type"], &changed["actor"]["ip_address"]),
        (&"api_token".into(), &"user".into(), &"127.0.0.1".into())
    );
    assert_eq!((&changed["resource"]["product"], &changed["resource"]["type"]), (&"secrets_store".into(), &"secret".into()));
    assert_eq!(changed["account"]["name"], ACCOUNT);
    let copied = &events[2];
    assert_eq!(copied["resource"]["request"]["duplicated_from_id"].as_str().map(str::len), Some(32));
    assert_eq!(copied["action"]["type"], "create");

    // Page by page, by either form of the cursor.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("{v2}&limit=2&cursor={cursor}")).await;
        paged.extend(page.result().as_array().unwrap().clone());
        let info = &page.body["result_info"];
        assert_eq!(info["cursor"], info["cursors"]["after"]);
        cursor = info["cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(paged, events);
    let mut rising = rest.get(&format!("{v2}&direction=asc")).await.result().as_array().unwrap().clone();
    rising.reverse();
    assert_eq!(rising, events);

    let count = async |query: &str| rest.get(&format!("{v2}{query}")).await.result().as_array().unwrap().len();
    assert_eq!(count("&action_type=update").await, 1);
    assert_eq!(count("&action_type.not=create&action_type.not=update").await, 0);
    assert_eq!(count("&actor_email.not=first-operator").await, 0);
    assert_eq!(count("&action_result=failure").await, 1);
    assert_eq!(count("&resource_product.not=secrets_store").await, 0);
    for wrong in ["?before=2100-01-01", "?since=2020-01-01", "?since=x&before=2100-01-01"] {
        assert_eq!(rest.get(&format!("{account}/logs/audit{wrong}")).await.error().0, 400, "{wrong}");
    }
    let history = rest.get(&format!("{account}/logs/audit/{}/history", changed["id"].as_str().unwrap())).await;
    assert_eq!(history.result().as_array().unwrap()[..], events[1..3], "of the copy");
    assert_eq!(rest.get(&format!("{account}/logs/audit/999999/history")).await.error().0, 404);
    let categories = rest.get(&format!("{account}/logs/audit/product_categories")).await;
    assert_eq!(categories.result()[0]["products"][0], "secrets_store");

    let v1 = rest.get(&format!("{account}/audit_logs?per_page=2")).await;
    let older = v1.result().as_array().unwrap();
    assert_eq!((older.len(), &older[0]["action"]["result"], &older[1]["action"]["result"]), (2, &false.into(), &true.into()));
    assert_eq!((&older[1]["owner"]["id"], &older[1]["metadata"]["value_modified"]), (&store.account_id.as_str().into(), &true.into()));
    assert_eq!((&older[1]["id"], &older[1]["interface"], &older[1]["newValue"]), (&changed["id"], &"API".into(), &"".into()));
    assert_eq!(rest.get(&format!("{account}/audit_logs?page=50")).await.result(), &serde_json::json!([]), "past the end");
    assert_eq!(rest.get(&format!("{account}/audit_logs?page=5000&per_page=100")).await.result(), &serde_json::json!([]), "however far");

    // Who may not, and whose it is not.
    let reporter = token(&operator, "reporter", "reporter", ACCOUNT, "").await;
    assert_eq!(rest.by(&reporter.token).get(&v2).await.error().0, 403);
    let other = operator.create_account(v1::CreateAccountRequest { name: "other".into(), ..Default::default() }).await.unwrap();
    let elsewhere = token(&operator, "elsewhere", "super-administrator", &other.account.unwrap().id, "").await;
    assert_eq!(rest.by(&elsewhere.token).get(&v2).await.error().0, 404);
    node.stop().await;
}
