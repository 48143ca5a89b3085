//! `secrets-store`: wrangler's commands, over the same calls as the short ones.
//!
//! Without `--remote` a command goes to the cluster of `cinnabar dev` on this machine and to no other: what is tried locally never
//! reaches a cluster that people depend on.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use client::Client;
use wire::{ErrorKind, v1};
use zeroize::Zeroizing;

use super::{Session, accounts, all_pages, failed, secrets, stores};
use crate::{
    Failure, QuotaCommand,
    grammar::{AliasSecretCommand, AliasStoreCommand, PageArgs, Place, SecretsStoreCommand, ValueArgs, Which},
    value,
};

/// The context that `cinnabar dev` writes.
const LOCAL: &str = "dev";
/// How long a cluster on this machine may take to accept a connection.
const LOCAL_CONNECT: Duration = Duration::from_secs(2);

pub(super) async fn run(session: &Session, command: SecretsStoreCommand) -> Result<(), Failure> {
    match command {
        SecretsStoreCommand::Quota { place } => accounts::quota(&at(session, place).await?, QuotaCommand::Show).await,
        SecretsStoreCommand::Store(command) => store(session, command).await,
        SecretsStoreCommand::Secret(command) => secret(session, command).await,
    }
}

/// The session that a command is carried out in.
async fn at(session: &Session, place: Place) -> Result<Session, Failure> {
    if place.remote {
        let here = Session { global: session.global.clone(), out: session.out, trust: session.trust.clone() };
        if let Ok((name, context)) = here.contexts()?.choose(here.global.context.as_deref()) {
            here.out.say(&format!("context {name}, {}", context.control));
        }
        return Ok(here);
    }
    if let Some(other) = session.global.context.as_deref().filter(|name| *name != LOCAL) {
        let message = format!("without --remote this is for `cinnabar dev` on this machine, not for context {other:?}: add --remote");
        return Err(Failure::usage(message));
    }
    let mut global = session.global.clone();
    global.context = Some(LOCAL.into());
    let here = Session { global, out: session.out, trust: Arc::default() };
    let remote = remote_contexts(&here);
    let refuse = |why: &str| {
        let message = format!("without --remote this is for `cinnabar dev` on this machine, and {why}: start it{remote}");
        Failure::with_code(ErrorKind::Unavailable.exit_code(), message)
    };
    let Ok(context) = here.context() else { return Err(refuse("it was never started here")) };
    let Some(address) = context.control.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback()) else {
        return Err(Failure::usage(format!("context {LOCAL:?} is at {}, which is not this machine: add --remote", context.control)));
    };
    match tokio::time::timeout(LOCAL_CONNECT, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(here),
        _ => Err(refuse("it is not running")),
    }
}

/// What else could have been meant.
fn remote_contexts(session: &Session) -> String {
    match session.contexts() {
        Ok(contexts) if contexts.contexts.keys().any(|name| name != LOCAL) => ", or add --remote".into(),
        _ => String::new(),
    }
}

async fn store(session: &Session, command: AliasStoreCommand) -> Result<(), Failure> {
    match command {
        AliasStoreCommand::Create { name, place } => {
            let session = at(session, place).await?;
            let request = v1::CreateStoreRequest { account: session.account()?, name, ..Default::default() };
            let made = session.control()?.create_store(request).await.map_err(failed)?.store.unwrap_or_default();
            done(&session, &format!("✅ Created store! (Name: {}, ID: {})", made.name, made.id))?;
            if session.out.is_json() { session.out.json(&stores::Row::from(made)) } else { Ok(()) }
        }
        AliasStoreCommand::List { page, place } => {
            let session = at(session, place).await?;
            let (client, account) = (session.control()?, session.account()?);
            let all = all_pages(|page| {
                let request = v1::ListStoresRequest { account: account.clone(), page: Some(page) };
                async { client.list_stores(request).await.map(|reply| (reply.stores, reply.next_page)) }
            });
            let mut rows: Vec<_> = all.await?.into_iter().map(stores::Row::from).collect();
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            session.out.rows(&["name", "id", "accountid", "created", "modified"], part(&rows, page), |row| {
                vec![row.name.clone(), row.id.clone(), row.account_id.clone(), row.created.clone(), row.modified.clone()]
            })
        }
        AliasStoreCommand::Delete { store, place } => {
            let session = at(session, place).await?;
            let request = v1::DeleteStoreRequest { store: Some(session.store(&store)?), ..Default::default() };
            session.control()?.delete_store(request).await.map_err(failed)?;
            done(&session, &format!("✅ Deleted store! (ID: {store})"))
        }
    }
}

async fn secret(session: &Session, command: AliasSecretCommand) -> Result<(), Failure> {
    match command {
        AliasSecretCommand::Create { store, name, scopes, comment, value, place } => {
            let session = at(session, place).await?;
            let value = given(&session, &value, &name)?;
            let item = v1::NewSecret { name, value: value.to_vec(), scopes: trimmed(scopes), comment };
            let request = v1::CreateSecretsRequest { store: Some(session.store(&store)?), secrets: vec![item], ..Default::default() };
            let reply = session.control()?.create_secrets(request).await.map_err(failed)?;
            written(&session, "Created", reply.secrets.into_iter().next().unwrap_or_default())
        }
        AliasSecretCommand::List { store, page, place } => {
            let session = at(session, place).await?;
            let (client, store) = (session.control()?, session.store(&store)?);
            let all = all_pages(|page| {
                let request = v1::ListSecretsRequest { store: Some(store.clone()), page: Some(page) };
                async { client.list_secrets(request).await.map(|reply| (reply.secrets, reply.next_page)) }
            });
            let mut rows: Vec<_> = all.await?.into_iter().map(secrets::Row::from).collect();
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            session
                .out
                .rows(&["name", "id", "comment", "scopes", "status", "created", "modified"], part(&rows, page), |row| cells(row, false))
        }
        AliasSecretCommand::Get { store, which, place } => {
            let session = at(session, place).await?;
            let request = v1::ShowSecretRequest { secret: Some(reference(&session, &store, &which)?) };
            shown(&session, session.control()?.show_secret(request).await.map_err(failed)?)
        }
        AliasSecretCommand::Update { store, which, scopes, comment, value, place } => {
            let session = at(session, place).await?;
            let reference = reference(&session, &store, &which)?;
            let changed = update(&session, reference, trimmed(scopes), comment, &value).await?;
            written(&session, "Updated", changed)
        }
        AliasSecretCommand::Delete { store, which, place } => {
            let session = at(session, place).await?;
            let reference = reference(&session, &store, &which)?;
            let client = session.control()?;
            // By its id, so that the store is the one that was named also when an id was given.
            let found = client.show_secret(v1::ShowSecretRequest { secret: Some(reference) }).await.map_err(failed)?;
            let (store, id) = (Some(session.store(&found.store_id)?), found.id);
            let request = v1::DeleteSecretsRequest { store, secrets: vec![id.clone()], ..Default::default() };
            client.delete_secrets(request).await.map_err(failed)?;
            done(&session, &format!("✅ Deleted secret! (ID: {id})"))
        }
        AliasSecretCommand::Duplicate { store, secret_id, name, new_name, scopes, comment, place } => {
            let (which, name) = copied(secret_id, name, new_name)?;
            let session = at(session, place).await?;
            let source = Some(reference(&session, &store, &which)?);
            let request = v1::DuplicateSecretRequest { source, name, scopes: trimmed(scopes), comment, ..Default::default() };
            let reply = session.control()?.duplicate_secret(request).await.map_err(failed)?;
            written(&session, "Duplicated", reply.secret.unwrap_or_default())
        }
    }
}

/// The source of a copy, and the copy's name: `--secret-id ID --name NEW`, as wrangler has it, or `--name OLD --new-name NEW`.
fn copied(secret_id: Option<String>, name: Option<String>, new_name: Option<String>) -> Result<(Which, String), Failure> {
    match (secret_id, name, new_name) {
        (Some(id), Some(new), None) | (Some(id), None, Some(new)) => Ok((Which { secret_id: Some(id), name: None }, new)),
        (None, Some(old), Some(new)) => Ok((Which { secret_id: None, name: Some(old) }, new)),
        _ => Err(Failure::usage("say what to copy and how to call it: `--secret-id ID --name NEW`, or `--name OLD --new-name NEW`")),
    }
}

/// One change, whatever of it is new.
async fn update(
    session: &Session,
    reference: v1::SecretRef,
    scopes: Vec<String>,
    comment: Option<String>,
    value: &ValueArgs,
) -> Result<v1::Secret, Failure> {
    let client: Client = session.control()?;
    let keeps_value = value.value.is_none() && value.file.is_none() && (!scopes.is_empty() || comment.is_some());
    let scopes = (!scopes.is_empty()).then_some(v1::ScopeList { scopes });
    if keeps_value {
        let request = v1::EditSecretRequest { secret: Some(reference), scopes, comment, ..Default::default() };
        return Ok(client.edit_secret(request).await.map_err(failed)?.secret.unwrap_or_default());
    }
    let value = given(session, value, &reference.secret)?.to_vec();
    let request = v1::SetValueRequest { secret: Some(reference), value, scopes, comment, ..Default::default() };
    Ok(client.set_value(request).await.map_err(failed)?.secret.unwrap_or_default())
}

/// A value from the argument, with a warning; from a file; from stdin or a prompt, without blanks and line breaks at its end.
fn given(session: &Session, arguments: &ValueArgs, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if let Some(value) = &arguments.value {
        session.out.say(
            "warning: the value stands in the shell's history and in the list of processes; pipe it in instead: `printf %s \"$VALUE\" | cinnabar secrets-store …`",
        );
        if value.is_empty() {
            return Err(Failure::usage("the value is empty"));
        }
        return Ok(Zeroizing::new(value.clone().into_bytes()));
    }
    let mut value = value::read(arguments.file.as_deref(), true, &format!("value of {name}"))?;
    if let Ok(text) = std::str::from_utf8(&value) {
        let length = text.trim_end().len();
        value.truncate(length);
    }
    if value.is_empty() { Err(Failure::usage("the value is empty: nothing but blanks and line breaks came in")) } else { Ok(value) }
}

fn reference(session: &Session, store: &str, which: &Which) -> Result<v1::SecretRef, Failure> {
    let secret = which.secret_id.clone().or_else(|| which.name.clone()).unwrap_or_default();
    Ok(v1::SecretRef { account: session.account()?, store: store.to_owned(), secret })
}

/// `a, b` is accepted as `a,b`.
fn trimmed(scopes: Vec<String>) -> Vec<String> {
    scopes.into_iter().map(|scope| scope.trim().to_owned()).collect()
}

fn part<T>(rows: &[T], page: PageArgs) -> &[T] {
    let size = page.per_page.map_or(rows.len(), |size| size as usize).max(1);
    rows.chunks(size).nth(page.page as usize - 1).unwrap_or_default()
}

/// The line that wrangler ends with, where people read it.
fn done(session: &Session, line: &str) -> Result<(), Failure> {
    if session.out.is_json() { Ok(()) } else { session.out.line(line) }
}

fn written(session: &Session, how: &str, secret: v1::Secret) -> Result<(), Failure> {
    done(session, &format!("✅ {how} secret! (ID: {})", secret.id))?;
    shown(session, secret)
}

fn shown(session: &Session, secret: v1::Secret) -> Result<(), Failure> {
    let row = secrets::Row::from(secret);
    if session.out.is_json() {
        return session.out.json(&row);
    }
    session.out.rows(&["name", "id", "storeid", "comment", "scopes", "status", "created", "modified"], &[row], |row| cells(row, true))
}

fn cells(row: &secrets::Row, with_store: bool) -> Vec<String> {
    let mut cells = vec![row.name.clone(), row.id.clone()];
    if with_store {
        cells.push(row.store_id.clone());
    }
    cells.extend([row.comment.clone(), row.scopes.join(", "), row.status.into(), row.created.clone(), row.modified.clone()]);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_named_in_both_ways() {
        let some = |text: &str| Some(text.to_owned());
        let (which, name) = copied(some("id"), some("NEW"), None).unwrap();
        assert_eq!((which.secret_id.as_deref(), name.as_str()), (Some("id"), "NEW"));
        let (which, name) = copied(None, some("OLD"), some("NEW")).unwrap();
        assert_eq!((which.name.as_deref(), name.as_str()), (Some("OLD"), "NEW"));
        let (which, name) = copied(some("id"), None, some("NEW")).unwrap();
        assert_eq!((which.secret_id.as_deref(), name.as_str()), (Some("id"), "NEW"));
        for (id, name, new) in
            [(some("id"), None, None), (None, some("A"), None), (None, None, some("A")), (some("i"), some("A"), some("B"))]
        {
            assert!(copied(id, name, new).is_err());
        }
    }

    #[test]
    fn page_past_the_end_is_empty() {
        let rows = [1, 2, 3];
        let page = |page, per_page| PageArgs { page, per_page };
        assert_eq!(part(&rows, page(1, None)), [1, 2, 3]);
        assert_eq!(part(&rows, page(2, None)), [0; 0]);
        assert_eq!(part(&rows, page(2, Some(2))), [3]);
        assert_eq!(part(&rows[..0], page(1, Some(10))), [0; 0]);
    }
}
