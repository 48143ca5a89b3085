//! `secret`.

use std::time::Duration;

use client::Client;
use runtime::RealClock;
use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, duration, failed, imports, or_dash, time, time_or_none, usage};
use crate::{Failure, SecretCommand, value};

#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) store: String,
    pub(super) store_id: String,
    pub(super) scopes: Vec<String>,
    pub(super) comment: String,
    pub(super) status: &'static str,
    pub(super) version: u64,
    pub(super) created: String,
    pub(super) modified: String,
    pub(super) expires: Option<String>,
    pub(super) rotate_every_ms: Option<u64>,
    pub(super) due: Option<String>,
    pub(super) overdue: bool,
    pub(super) deleted: Option<String>,
    pub(super) undelete_until: Option<String>,
}

impl From<v1::Secret> for Row {
    fn from(secret: v1::Secret) -> Self {
        let status = match secret.status() {
            v1::SecretStatus::Pending => "pending",
            v1::SecretStatus::Active => "active",
            v1::SecretStatus::Deleted => "deleted",
            v1::SecretStatus::Unspecified => "unknown",
        };
        Self {
            name: secret.name,
            id: secret.id,
            store: secret.store_name,
            store_id: secret.store_id,
            scopes: secret.scopes,
            comment: secret.comment,
            status,
            version: secret.current_version,
            created: time(secret.created_ms),
            modified: time(secret.modified_ms),
            expires: time_or_none(secret.expires_ms),
            rotate_every_ms: (secret.rotate_every_ms != 0).then_some(secret.rotate_every_ms),
            due: time_or_none(secret.due_ms),
            overdue: secret.overdue,
            deleted: time_or_none(secret.deleted_ms),
            undelete_until: time_or_none(secret.undelete_until_ms),
        }
    }
}

impl Row {
    fn print(&self, session: &Session) -> Result<(), Failure> {
        let mut fields = vec![
            ("secret", format!("{}/{}", self.store, self.name)),
            ("id", self.id.clone()),
            ("version", self.version.to_string()),
            ("status", self.status.to_owned()),
            ("scopes", self.scopes.join(", ")),
            ("comment", or_dash(&self.comment)),
            ("created", self.created.clone()),
            ("modified", self.modified.clone()),
        ];
        // What few secrets have takes no line of those that lack it.
        fields.extend(self.expires.clone().map(|expires| ("expires", expires)));
        fields.extend(self.rotate_every_ms.map(|every| ("rotate every", duration(every))));
        fields.extend(self.due.is_some().then(|| ("due", self.due())));
        fields.extend(self.deleted.clone().map(|deleted| ("deleted", deleted)));
        fields.extend(self.undelete_until.clone().map(|until| ("undelete until", until)));
        session.out.record(self, &fields)
    }

    /// When people wanted to be reminded.
    fn due(&self) -> String {
        match &self.due {
            Some(due) if self.overdue => format!("{due} (overdue)"),
            due => or_dash(due.as_deref().unwrap_or_default()),
        }
    }
}

#[derive(Serialize)]
struct VersionRow {
    version: u64,
    created: String,
    pointers: Vec<&'static str>,
}

pub(super) async fn run(session: &Session, command: SecretCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        SecretCommand::Create { secret, scopes, comment, expires, rotate_every, file, raw, wait } => {
            let v1::SecretRef { account, store, secret: name } = session.secret(&secret)?;
            if store.is_empty() {
                return Err(Failure::usage("a new secret needs a store and a name: STORE/NAME"));
            }
            let expires_ms = expires.as_deref().map(ahead).transpose()?.unwrap_or(0);
            let reminder = v1::Reminder { expires_ms, rotate_every_ms: rotate_every.map_or(0, millis) };
            let reminder = (reminder != v1::Reminder::default()).then_some(reminder);
            let value = value::read(file.as_deref(), raw, &format!("value of {secret}"))?;
            let item = v1::NewSecret { name, value: value.to_vec(), scopes, comment };
            let store = Some(v1::StoreRef { account, store });
            let request = v1::CreateSecretsRequest { store, secrets: vec![item], reminder, ..Default::default() };
            let reply = client.create_secrets(request).await.map_err(failed)?;
            let created = reply.secrets.into_iter().next().unwrap_or_default();
            shown_when_live(session, &client, created, wait.then_some(reply.receipt)).await
        }
        SecretCommand::Set { secret, cas, file, raw, wait } => {
            let reference = session.secret(&secret)?;
            let value = value::read(file.as_deref(), raw, &format!("new value of {secret}"))?;
            let request = v1::SetValueRequest { secret: Some(reference), value: value.to_vec(), expect_version: cas, ..Default::default() };
            let reply = client.set_value(request).await.map_err(failed)?;
            shown_when_live(session, &client, reply.secret.unwrap_or_default(), wait.then_some(reply.receipt)).await
        }
        SecretCommand::Edit { secret, scopes, comment, expires, rotate_every, wait } => {
            let scopes = (!scopes.is_empty()).then_some(v1::ScopeList { scopes });
            let expires_ms = expires.as_deref().map(|text| if text == NEVER { Ok(0) } else { ahead(text) }).transpose()?;
            let rotate_every_ms = rotate_every.as_deref().map(|text| if text == NEVER { Ok(0) } else { every(text) }).transpose()?;
            let secret = Some(session.secret(&secret)?);
            let request = v1::EditSecretRequest { secret, scopes, comment, expires_ms, rotate_every_ms, ..Default::default() };
            let reply = client.edit_secret(request).await.map_err(failed)?;
            shown_when_live(session, &client, reply.secret.unwrap_or_default(), wait.then_some(reply.receipt)).await
        }
        SecretCommand::List { store, deleted: true } => list_deleted(session, &client, session.store(&store)?).await,
        SecretCommand::List { store, deleted: false } => {
            let store = session.store(&store)?;
            let secrets = all_pages(|page| {
                let request = v1::ListSecretsRequest { store: Some(store.clone()), page: Some(page) };
                async { client.list_secrets(request).await.map(|reply| (reply.secrets, reply.next_page)) }
            });
            let rows: Vec<Row> = secrets.await?.into_iter().map(Row::from).collect();
            session.out.rows(&["name", "id", "version", "status", "scopes", "modified", "due", "comment"], &rows, |row| {
                let scopes = row.scopes.join(",");
                vec![
                    row.name.clone(),
                    row.id.clone(),
                    row.version.to_string(),
                    row.status.into(),
                    scopes,
                    row.modified.clone(),
                    row.due(),
                    or_dash(&row.comment),
                ]
            })
        }
        SecretCommand::Show { secret } => {
            let request = v1::ShowSecretRequest { secret: Some(session.secret(&secret)?) };
            Row::from(client.show_secret(request).await.map_err(failed)?).print(session)
        }
        SecretCommand::Versions { secret } => {
            let request = v1::ListVersionsRequest { secret: Some(session.secret(&secret)?) };
            let versions = client.list_versions(request).await.map_err(failed)?.versions;
            let rows: Vec<VersionRow> = versions.iter().map(version_row).collect();
            session.out.rows(&["version", "created", "is"], &rows, |row| {
                vec![row.version.to_string(), row.created.clone(), or_dash(&row.pointers.join(", "))]
            })
        }
        SecretCommand::Usage { secret } => usage::run(session, &client, &secret).await,
        SecretCommand::Import(arguments) => imports::run(session, &client, arguments).await,
        SecretCommand::Copy { source, target, scopes, wait } => {
            let reference = session.secret(&source)?;
            let copy = session.secret(&target)?;
            if copy.store.is_empty() {
                return Err(Failure::usage("a copy needs a store and a name: STORE/NEW-NAME"));
            }
            if copy.store != reference.store {
                // An id stands for itself, and a store has a name and an id.
                let request = v1::ShowSecretRequest { secret: Some(reference.clone()) };
                let found = client.show_secret(request).await.map_err(failed)?;
                if copy.store != found.store_id && copy.store != found.store_name {
                    let store = found.store_name;
                    return Err(Failure::usage(format!("a copy stays in its store: write {store}/{} for the copy", copy.secret)));
                }
            }
            let request = v1::DuplicateSecretRequest { source: Some(reference), name: copy.secret, scopes, ..Default::default() };
            let reply = client.duplicate_secret(request).await.map_err(failed)?;
            shown_when_live(session, &client, reply.secret.unwrap_or_default(), wait.then_some(reply.receipt)).await
        }
        SecretCommand::Rollback { secret, to, wait } => {
            let request = v1::MovePointerRequest {
                secret: Some(session.secret(&secret)?),
                r#move: v1::PointerMove::Rollback.into(),
                version: to,
                ..Default::default()
            };
            let reply = client.move_pointer(request).await.map_err(failed)?;
            shown_when_live(session, &client, reply.secret.unwrap_or_default(), wait.then_some(reply.receipt)).await
        }
        SecretCommand::Delete { secret, force, yes, wait } => {
            session.ask(&format!("this deletes secret {secret}, which can be brought back for a while only"), yes)?;
            let found = client.show_secret(v1::ShowSecretRequest { secret: Some(session.secret(&secret)?) }).await.map_err(failed)?;
            let store = v1::StoreRef { account: session.account()?, store: found.store_id };
            let request = v1::DeleteSecretsRequest { store: Some(store), secrets: vec![found.id], force, ..Default::default() };
            let reply = client.delete_secrets(request).await.map_err(failed)?;
            session.out.say(&format!(
                "deleted {secret}; `cinnabar secret undelete {secret}` brings it back, for as long as `cinnabar quota show` says"
            ));
            session.wait_if(wait, &client, reply.receipt).await
        }
        SecretCommand::Undelete { secret, wait } => {
            let request = v1::UndeleteSecretRequest { secret: Some(session.secret(&secret)?), ..Default::default() };
            let reply = client.undelete_secret(request).await.map_err(failed)?;
            shown_when_live(session, &client, reply.secret.unwrap_or_default(), wait.then_some(reply.receipt)).await
        }
        SecretCommand::Destroy { secret, exact: version, yes, wait } => {
            let what = match version {
                Some(version) => format!("version {version} of {secret}"),
                None => format!("the deleted secret {secret}"),
            };
            session.confirm(&format!("destroying {what}"), yes)?;
            let secret = Some(session.secret(&secret)?);
            let request = v1::DestroySecretRequest { secret, version: version.unwrap_or(0), ..Default::default() };
            let reply = client.destroy_secret(request).await.map_err(failed)?;
            session.out.say(&format!("destroyed {what}"));
            session.wait_if(wait, &client, reply.receipt).await
        }
    }
}

/// What takes a reminder away.
const NEVER: &str = "never";

/// A time to come: a date, a moment, or in how long.
fn ahead(text: &str) -> Result<u64, Failure> {
    if let Ok(after) = humantime::parse_duration(text) {
        return Ok(RealClock::wall_millis().saturating_add(millis(after)));
    }
    let whole = if text.len() == "2026-12-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let parsed = humantime::parse_rfc3339_weak(&whole).ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    parsed
        .map(millis)
        .ok_or_else(|| Failure::usage(format!("not a time: {text:?}; write 2026-12-31, 2026-12-31T09:30:00Z, or in how long, such as 90d")))
}

fn every(text: &str) -> Result<u64, Failure> {
    humantime::parse_duration(text).map(millis).map_err(|error| Failure::usage(format!("not a duration: {text:?}: {error}")))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What was deleted and can be brought back.
async fn list_deleted(session: &Session, client: &Client, store: v1::StoreRef) -> Result<(), Failure> {
    let secrets = all_pages(|page| {
        let request = v1::ListDeletedSecretsRequest { store: Some(store.clone()), page: Some(page) };
        async { client.list_deleted_secrets(request).await.map(|reply| (reply.secrets, reply.next_page)) }
    });
    let rows: Vec<Row> = secrets.await?.into_iter().map(Row::from).collect();
    session.out.rows(&["name", "id", "deleted", "undelete until", "comment"], &rows, |row| {
        let shown = |time: &Option<String>| or_dash(time.as_deref().unwrap_or_default());
        vec![row.name.clone(), row.id.clone(), shown(&row.deleted), shown(&row.undelete_until), or_dash(&row.comment)]
    })
}

/// Prints what was written; with a receipt to wait for, only once it is live everywhere, so that the status printed is the one
/// waited for. What was written is printed also when the time runs out: it is written.
async fn shown_when_live(
    session: &Session,
    client: &Client,
    written: v1::Secret,
    receipt: Option<Option<v1::Receipt>>,
) -> Result<(), Failure> {
    let Some(receipt) = receipt else { return Row::from(written).print(session) };
    let waited = session.wait_live(client, receipt).await;
    let reference = v1::SecretRef { account: session.account()?, store: written.store_id.clone(), secret: written.id.clone() };
    let now = client.show_secret(v1::ShowSecretRequest { secret: Some(reference) }).await.unwrap_or(written);
    Row::from(now).print(session)?;
    waited
}

fn version_row(version: &v1::SecretVersion) -> VersionRow {
    let pointers = [(version.current, "current"), (version.previous, "previous"), (version.candidate, "candidate")];
    let pointers = pointers.into_iter().filter_map(|(is, name)| is.then_some(name)).collect();
    VersionRow { version: version.version, created: time(version.created_ms), pointers }
}
