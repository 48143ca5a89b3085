//! `secret import`: many secrets at once.

use std::{collections::BTreeMap, io::IsTerminal, path::Path};

use client::Client;
use serde::Serialize;
use wire::{ErrorKind, v1};
use zeroize::Zeroizing;

use super::{Session, all_pages, failed, or_dash};
use crate::{
    Failure, ImportArgs,
    import::{
        self, Entry,
        api::{Api, Found},
    },
    value,
};

/// The variable that the clients of such an API read their token from.
const API_TOKEN: &str = "CLOUDFLARE_API_TOKEN";

#[derive(Serialize)]
struct Row {
    name: String,
    action: Action,
    scopes: Vec<String>,
    comment: String,
    id: Option<String>,
    version: Option<u64>,
}

/// What is done, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Create,
    Set,
    /// It is there, and nothing was said of a new value.
    Exists,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Set => "set",
            Self::Exists => "exists",
        }
    }
}

pub(super) async fn run(session: &Session, client: &Client, arguments: ImportArgs) -> Result<(), Failure> {
    let source = match &arguments.from_api {
        Some(url) => Some(listed(session, &arguments, url).await?),
        None => None,
    };
    let entries = arguments.file.as_deref().map(|file| import::read(file, arguments.form)).transpose()?;
    let entries = match (source, entries) {
        (Some(source), None) => return show_names(session, source),
        (Some(source), Some(values)) => matched(session, source, values)?,
        (None, Some(entries)) => entries,
        (None, None) => return Err(Failure::usage("name a file, or - for stdin")),
    };
    carry_out(session, client, &arguments, entries).await
}

/// What the store behind an API holds.
async fn listed(session: &Session, arguments: &ImportArgs, url: &str) -> Result<Vec<Found>, Failure> {
    let token = api_token(arguments)?;
    let api = Api::new(url, arguments.ca.as_deref(), token)?;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let found = api.secrets(&text(&arguments.from_account), &text(&arguments.from_store), session.global.timeout).await?;
    if found.is_empty() {
        return Err(Failure::failed("that store holds no secret: nothing was done"));
    }
    Ok(found)
}

/// The token of the API: from a file, the environment, or a prompt. Never from an argument.
fn api_token(arguments: &ImportArgs) -> Result<Zeroizing<String>, Failure> {
    let stdin = Path::new("-");
    let named = arguments.api_token_file.as_deref();
    let values_from_stdin = arguments.file.as_deref() == Some(stdin);
    if named.is_none()
        && let Ok(token) = std::env::var(API_TOKEN)
    {
        return Ok(Zeroizing::new(token.trim().to_owned()));
    }
    if values_from_stdin && named.is_none_or(|named| named == stdin) {
        return Err(Failure::usage(format!(
            "stdin brings the values: give the API token in a file (--api-token-file FILE) or in {API_TOKEN}"
        )));
    }
    let bytes = value::read(named, false, "API token")?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the API token is not text"))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Values of a file under the names of a store: every name needs one.
fn matched(session: &Session, source: Vec<Found>, values: Vec<Entry>) -> Result<Vec<Entry>, Failure> {
    let mut values: BTreeMap<String, Entry> = values.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let missing: Vec<_> = source.iter().map(|found| found.name.as_str()).filter(|name| !values.contains_key(*name)).collect();
    if !missing.is_empty() {
        return Err(Failure::usage(format!("the file has no value for {}: nothing was done", missing.join(", "))));
    }
    let with_value = |found: Found| {
        let mut entry = values.remove(&found.name)?;
        entry.scopes = entry.scopes.or_else(|| (!found.scopes.is_empty()).then_some(found.scopes));
        entry.comment = entry.comment.or(found.comment);
        Some(entry)
    };
    let entries = source.into_iter().filter_map(with_value).collect();
    if !values.is_empty() {
        let names: Vec<_> = values.into_keys().collect();
        session.out.say(&format!("not in that store, so left out: {}", names.join(", ")));
    }
    Ok(entries)
}

/// A secret whose value is to be supplied; as JSON, what a file of values looks like once it is filled in.
#[derive(Serialize)]
struct Blank {
    name: String,
    value: &'static str,
    scopes: Vec<String>,
    comment: String,
}

fn show_names(session: &Session, source: Vec<Found>) -> Result<(), Failure> {
    let blank = |found: Found| Blank { name: found.name, value: "", scopes: found.scopes, comment: found.comment.unwrap_or_default() };
    let rows: Vec<_> = source.into_iter().map(blank).collect();
    session.out.rows(&["name", "scopes", "comment"], &rows, |row| vec![row.name.clone(), row.scopes.join(","), or_dash(&row.comment)])?;
    session.out.say(
        "nothing was written: no API gives a value back. Put the values into a file and name it after the store; with --format json this list is such a file, to be filled in",
    );
    Ok(())
}

async fn carry_out(session: &Session, client: &Client, arguments: &ImportArgs, entries: Vec<Entry>) -> Result<(), Failure> {
    let store = session.store(&arguments.store)?;
    let present = if arguments.update || arguments.dry_run { present(client, &store).await? } else { BTreeMap::new() };
    let (known, fresh): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| present.contains_key(&entry.name));
    let total = known.len() + fresh.len();
    let fresh = fresh.into_iter().map(|entry| new_secret(entry, arguments)).collect();
    if arguments.dry_run {
        return show_plan(session, arguments, &present, &known, fresh);
    }
    let mut rows = Vec::new();
    let mut receipt = create(client, &store, fresh, &mut rows).await?;
    let bar = (!session.global.quiet && !known.is_empty() && std::io::stderr().is_terminal())
        .then(|| indicatif::ProgressBar::new(known.len() as u64).with_message("new values"));
    for entry in known {
        match set(client, &store, &present, &entry).await {
            Ok((row, changed)) => {
                rows.push(row);
                receipt = changed.or(receipt);
            }
            Err(failure) => {
                let _ = print(session, &rows);
                let message = format!(
                    "{failure}\n  {} of {total} were written, {} was not, nor what follows it; the same command goes on when it is given again",
                    rows.len(),
                    entry.name
                );
                return Err(Failure::with_code(failure.code(), message));
            }
        }
        if let Some(bar) = &bar {
            bar.inc(1);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    print(session, &rows)?;
    session.wait_if(arguments.wait, client, receipt).await
}

/// The secrets of the store, by name.
async fn present(client: &Client, store: &v1::StoreRef) -> Result<BTreeMap<String, v1::Secret>, Failure> {
    let secrets = all_pages(|page| {
        let request = v1::ListSecretsRequest { store: Some(store.clone()), page: Some(page) };
        async { client.list_secrets(request).await.map(|reply| (reply.secrets, reply.next_page)) }
    });
    Ok(secrets.await?.into_iter().map(|secret| (secret.name.clone(), secret)).collect())
}

fn new_secret(entry: Entry, arguments: &ImportArgs) -> v1::NewSecret {
    v1::NewSecret {
        name: entry.name,
        value: entry.value.to_vec(),
        scopes: entry.scopes.unwrap_or_else(|| arguments.scopes.clone()),
        comment: entry.comment.unwrap_or_else(|| arguments.comment.clone()),
    }
}

/// All new ones in one command: it is carried out whole, or not at all.
async fn create(
    client: &Client,
    store: &v1::StoreRef,
    fresh: Vec<v1::NewSecret>,
    rows: &mut Vec<Row>,
) -> Result<Option<v1::Receipt>, Failure> {
    if fresh.is_empty() {
        return Ok(None);
    }
    let request = v1::CreateSecretsRequest { store: Some(store.clone()), secrets: fresh, ..Default::default() };
    let reply = client.create_secrets(request).await.map_err(|error| {
        let taken = error.kind() == ErrorKind::AlreadyExists;
        let failure = failed(error);
        let advice = if taken { "; --update gives those that exist a new value" } else { "" };
        Failure::with_code(failure.code(), format!("{failure}\n  nothing was written{advice}"))
    })?;
    rows.extend(reply.secrets.into_iter().map(|secret| row(secret, Action::Create)));
    Ok(reply.receipt)
}

/// A new value over the version that was seen: what another has set meanwhile is not covered up.
async fn set(
    client: &Client,
    store: &v1::StoreRef,
    present: &BTreeMap<String, v1::Secret>,
    entry: &Entry,
) -> Result<(Row, Option<v1::Receipt>), Failure> {
    let seen = present.get(&entry.name).cloned().unwrap_or_default();
    let reference = v1::SecretRef { account: store.account.clone(), store: seen.store_id, secret: seen.id };
    let request = v1::SetValueRequest {
        secret: Some(reference),
        value: entry.value.to_vec(),
        expect_version: Some(seen.current_version),
        ..Default::default()
    };
    let reply = client.set_value(request).await.map_err(failed)?;
    Ok((row(reply.secret.unwrap_or_default(), Action::Set), reply.receipt))
}

fn row(secret: v1::Secret, action: Action) -> Row {
    Row {
        name: secret.name,
        action,
        scopes: secret.scopes,
        comment: secret.comment,
        id: (!secret.id.is_empty()).then_some(secret.id),
        version: (secret.current_version != 0).then_some(secret.current_version),
    }
}

fn show_plan(
    session: &Session,
    arguments: &ImportArgs,
    present: &BTreeMap<String, v1::Secret>,
    known: &[Entry],
    fresh: Vec<v1::NewSecret>,
) -> Result<(), Failure> {
    let action = if arguments.update { Action::Set } else { Action::Exists };
    let planned = fresh.into_iter().map(|new| Row {
        name: new.name,
        action: Action::Create,
        scopes: new.scopes,
        comment: new.comment,
        id: None,
        version: None,
    });
    let there = known.iter().filter_map(|entry| Some(row(present.get(&entry.name)?.clone(), action)));
    let rows: Vec<Row> = planned.chain(there).collect();
    print(session, &rows)?;
    session.out.say("nothing was written: this was a dry run");
    if known.is_empty() || arguments.update {
        return Ok(());
    }
    Err(Failure::with_code(
        ErrorKind::AlreadyExists.exit_code(),
        format!("{} of {} exist already, so nothing would be written; --update gives them a new value", known.len(), rows.len()),
    ))
}

fn print(session: &Session, rows: &[Row]) -> Result<(), Failure> {
    session.out.rows(&["name", "action", "version", "id", "scopes", "comment"], rows, |row| {
        vec![
            row.name.clone(),
            row.action.name().to_owned(),
            super::status::known(row.version),
            or_dash(row.id.as_deref().unwrap_or_default()),
            row.scopes.join(","),
            or_dash(&row.comment),
        ]
    })
}
