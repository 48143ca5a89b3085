//! `secret usage`: which consumers and bindings lead to a secret.

use client::Client;
use serde::Serialize;
use types::{ConsumerKind, Scope};
use wire::v1;

use super::{Session, all_pages, failed, or_dash};
use crate::Failure;

#[derive(Serialize)]
struct Row {
    consumer: String,
    binding: String,
    /// The name to give beside the binding, when that is to the whole store.
    secret: Option<String>,
    via: &'static str,
    allowed: bool,
    missing_scope: Option<&'static str>,
}

pub(super) async fn run(session: &Session, client: &Client, secret: &str) -> Result<(), Failure> {
    let secret = client.show_secret(v1::ShowSecretRequest { secret: Some(session.secret(secret)?) }).await.map_err(failed)?;
    let account = session.account()?;
    let bindings = all_pages(|page| {
        let request = v1::ListBindingsRequest { account: account.clone(), consumer: None, page: Some(page) };
        async { client.list_bindings(request).await.map(|reply| (reply.bindings, reply.next_page)) }
    });
    let rows: Vec<Row> = bindings.await?.into_iter().filter_map(|binding| row(&secret, binding)).collect();
    if rows.is_empty() && !session.out.is_json() {
        session
            .out
            .say(&format!("no binding leads to {}/{}: `cinnabar bind KIND/NAME VAR=STORE/NAME` makes one", secret.store_name, secret.name));
        return Ok(());
    }
    session.out.rows(&["consumer", "reads it as", "by", "note"], &rows, |row| {
        let reads = match &row.secret {
            Some(secret) => format!("{} with --secret {secret}", row.binding),
            None => row.binding.clone(),
        };
        let note = row.missing_scope.map(|scope| format!("refused: the secret has no scope {scope}"));
        vec![row.consumer.clone(), reads, row.via.to_owned(), or_dash(note.as_deref().unwrap_or_default())]
    })
}

/// The row of a binding that leads to the secret. A binding to a deleted secret of the same name does not: it keeps the id.
fn row(secret: &v1::Secret, binding: v1::Binding) -> Option<Row> {
    let whole_store = binding.secret_id.is_empty();
    let leads = if whole_store { binding.store_id == secret.store_id } else { binding.secret_id == secret.id };
    if !leads || binding.target_deleted {
        return None;
    }
    let kind = wire::parse::consumer_kind("kind", binding.consumer_kind).ok();
    let needs = kind.map(|kind| Scope::of_kind(kind).name());
    let missing_scope = needs.filter(|needs| !secret.scopes.iter().any(|scope| scope == needs));
    Some(Row {
        consumer: format!("{}/{}", kind.map_or("unknown", ConsumerKind::name), binding.consumer_name),
        binding: binding.name,
        secret: whole_store.then(|| secret.name.clone()),
        via: if whole_store { "store binding" } else { "binding" },
        allowed: missing_scope.is_none(),
        missing_scope,
    })
}
