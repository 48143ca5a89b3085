//! `audit`: who did what. `audit verify` is the binary's, for it takes the code that made the entries.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use runtime::{PendingFile, RealClock};
use serde::{Deserialize, Serialize};
use wire::v1::{self, export_audit_reply::Part};

use super::{Session, failed, or_dash};
use crate::{
    AuditCommand, Failure,
    grammar::{AuditExport, AuditFilters, AuditList},
};

/// Calls that one line of a table names.
const CALLS_SHOWN: usize = 3;

/// The format of the first line of an export.
pub const AUDIT_EXPORT_FORMAT: u32 = 1;

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
#[allow(clippy::large_enum_variant, reason = "nearly all are entries")]
pub enum AuditLine {
    /// The first.
    Begin(AuditBegin),
    /// One for each entry.
    Entry(AuditEntryLine),
    /// The last.
    End(AuditEnd),
}

/// Whose log it is, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditBegin {
    /// [`AUDIT_EXPORT_FORMAT`].
    pub format: u32,
    /// The cluster's id.
    pub cluster: String,
    /// The node that answered.
    pub node: u64,
    /// Its name.
    pub node_name: String,
    /// The first entry that it has; 0 for none.
    pub held_from: u64,
    /// Whether no filter but a time, and no grant, left out an entry.
    pub whole: bool,
    /// The last entry that was cut for age or size.
    pub cut: Option<AuditCutLine>,
    /// Who may sign, as the node has it.
    pub signers: Vec<AuditSignerLine>,
}

/// What is left of entries that were cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCutLine {
    /// The last of them.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
    /// Its index in the Raft log.
    pub index: u64,
    /// Its time.
    pub time_ms: u64,
    /// Who signed; 0 for nobody.
    pub node: u64,
    /// The signature, in hex.
    pub signature: String,
}

/// A node and its signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSignerLine {
    /// The node.
    pub node: u64,
    /// Ed25519, in hex.
    pub key: String,
}

/// Where it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEnd {
    /// The last entry; 0 for none.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
    /// The node's signature over where the entries begin and end, in hex.
    pub signature: String,
    /// How many there are.
    pub entries: u64,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the message")]
pub struct AuditEntryLine {
    pub sequence: u64,
    pub time: String,
    pub principal: AuditPrincipalLine,
    pub action: String,
    pub target: AuditTargetLine,
    pub outcome: String,
    pub position: Option<String>,
    pub refusal: Option<String>,
    pub message: Option<String>,
    pub request_id: Option<String>,
    pub peer: String,
    pub label: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<AuditCallLine>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls_left_out: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub note_number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note_previous: Option<String>,
    pub index: u64,
    pub previous: String,
    pub hash: String,
    /// The stored bytes in base64, where they are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
}

/// Who acted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the message")]
pub struct AuditPrincipalLine {
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub node: u64,
}

/// What was acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the message")]
#[serde(default)]
pub struct AuditTargetLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicated_from_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub value_modified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub node: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_token_id: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u64,
}

/// Calls that left no command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the message")]
pub struct AuditCallLine {
    pub principal: AuditPrincipalLine,
    pub call: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    pub count: u64,
    pub first: String,
    pub last: String,
    pub peer: String,
    pub label: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// To the millisecond, since entries have it.
fn instant(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(super::YEAR_9999_MS))).to_string()
}

impl From<v1::AuditPrincipal> for AuditPrincipalLine {
    fn from(principal: v1::AuditPrincipal) -> Self {
        let v1::AuditPrincipal { kind, name, token_id, node_id } = principal;
        Self { kind, name: some(name), token_id: some(token_id), node: node_id }
    }
}

impl From<v1::AuditCall> for AuditCallLine {
    fn from(call: v1::AuditCall) -> Self {
        Self {
            principal: call.principal.unwrap_or_default().into(),
            call: call.call,
            account_id: some(call.account_id),
            store_id: some(call.store_id),
            refusal: some(call.refusal),
            count: call.count,
            first: instant(call.first_ms),
            last: instant(call.last_ms),
            peer: call.peer,
            label: call.label,
        }
    }
}

impl From<v1::AuditEntry> for AuditEntryLine {
    fn from(entry: v1::AuditEntry) -> Self {
        let target = entry.target.unwrap_or_default();
        Self {
            sequence: entry.sequence,
            time: instant(entry.time_ms),
            principal: entry.principal.unwrap_or_default().into(),
            action: entry.action,
            target: AuditTargetLine {
                account_id: some(target.account_id),
                store_id: some(target.store_id),
                secret_ids: target.secret_ids,
                duplicated_from_id: some(target.duplicated_from_id),
                value_modified: target.value_modified,
                consumer: some(target.consumer),
                binding: some(target.binding),
                node: target.node_id,
                token_id: some(target.token_id),
                membership: some(target.membership),
                member: some(target.member),
                grant: some(target.grant),
                replaced_token_id: some(target.replaced_token_id),
                version: target.version,
            },
            outcome: entry.outcome,
            position: entry.position.map(|position| types::Position::from(position).to_string()),
            refusal: some(entry.refusal),
            message: some(entry.message),
            request_id: some(entry.request_id),
            peer: entry.peer,
            label: entry.label,
            calls: entry.calls.into_iter().map(Into::into).collect(),
            calls_left_out: entry.calls_left_out,
            note_number: entry.note_number,
            note_previous: some(entry.note_previous),
            index: entry.index,
            previous: entry.previous,
            hash: entry.hash,
            stored: Some(BASE64.encode(&entry.stored)).filter(|text| !text.is_empty()),
        }
    }
}

impl From<v1::AuditBegin> for AuditBegin {
    fn from(begin: v1::AuditBegin) -> Self {
        let cut = |cut: v1::AuditCut| AuditCutLine {
            sequence: cut.sequence,
            hash: cut.hash,
            index: cut.index,
            time_ms: cut.time_ms,
            node: cut.node_id,
            signature: cut.signature,
        };
        Self {
            format: AUDIT_EXPORT_FORMAT,
            cluster: begin.cluster_id,
            node: begin.node_id,
            node_name: begin.node_name,
            held_from: begin.held_from,
            whole: begin.whole,
            cut: begin.cut.map(cut),
            signers: begin.signers.into_iter().map(|one| AuditSignerLine { node: one.node_id, key: one.public_key }).collect(),
        }
    }
}

impl From<v1::AuditEnd> for AuditEnd {
    fn from(end: v1::AuditEnd) -> Self {
        let head = end.head.unwrap_or_default();
        Self { sequence: head.sequence, hash: head.hash, signature: end.signature, entries: end.entries }
    }
}

pub(super) async fn run(session: &Session, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(arguments) => list(session, arguments).await,
        AuditCommand::Export(arguments) => export(session, arguments).await,
        AuditCommand::Verify(_) => Err(Failure::failed("this command is not one of the operator's")),
    }
}

/// A time as one writes it: a date, an instant, or how long ago.
fn instant_of(option: &str, text: &str) -> Result<u64, Failure> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(RealClock::wall_millis().saturating_sub(ms(ago)));
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let parsed = humantime::parse_rfc3339_weak(&whole).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    parsed.map(ms).ok_or_else(|| {
        Failure::usage(format!("{option} {text:?} is no time: write 2026-11-22, 2026-11-22T09:30:00Z, or how long ago, such as 2h"))
    })
}

fn filter(session: &Session, filters: AuditFilters) -> Result<v1::AuditFilter, Failure> {
    let time = |option, text: Option<String>| text.map_or(Ok(0), |text| instant_of(option, &text));
    let (store, secret) = match filters.secret {
        Some(secret) => match secret.split_once('/') {
            Some((store, secret)) => (store.to_owned(), secret.to_owned()),
            None => (String::new(), secret),
        },
        None => (filters.store.unwrap_or_default(), String::new()),
    };
    // Names have meaning in an account. Without them the whole log is meant, unless an account was asked for.
    let named = !store.is_empty();
    let account = match &session.global.account {
        Some(account) => account.clone(),
        None if named => session.account()?,
        None => String::new(),
    };
    Ok(v1::AuditFilter {
        since_ms: time("--since", filters.since)?,
        before_ms: time("--before", filters.before)?,
        actions: filters.actions,
        principal: filters.principal.unwrap_or_default(),
        token_id: filters.token.unwrap_or_default(),
        account,
        store,
        secret,
        outcome: filters.outcome.unwrap_or_default(),
        request_id: filters.request.unwrap_or_default(),
        origin: filters.origin.unwrap_or_default(),
    })
}

/// What `audit list` prints as JSON.
#[derive(Serialize)]
struct Listed {
    entries: Vec<AuditEntryLine>,
    next_cursor: Option<String>,
    held_from: u64,
    missing: Vec<(u64, u64)>,
    head: Head,
}

#[derive(Default, Serialize)]
struct Head {
    sequence: u64,
    hash: String,
}

async fn list(session: &Session, arguments: AuditList) -> Result<(), Failure> {
    let AuditList { filters, limit, oldest_first, cursor } = arguments;
    let filter = filter(session, filters)?;
    let client = session.control()?;
    let mut listed = Listed { entries: Vec::new(), next_cursor: cursor, held_from: 0, missing: Vec::new(), head: Head::default() };
    loop {
        let left = limit.saturating_sub(u32::try_from(listed.entries.len()).unwrap_or(u32::MAX));
        let cursor = listed.next_cursor.take().unwrap_or_default();
        let request = v1::ListAuditRequest { filter: Some(filter.clone()), oldest_first, cursor, limit: left };
        let reply = client.list_audit(request).await.map_err(failed)?;
        listed.entries.extend(reply.entries.into_iter().map(AuditEntryLine::from));
        listed.missing.extend(reply.missing.iter().map(|gap| (gap.first, gap.last)));
        listed.held_from = reply.held_from;
        listed.next_cursor = some(reply.next_cursor);
        let head = reply.head.unwrap_or_default();
        listed.head = Head { sequence: head.sequence, hash: head.hash };
        // A page may end before it is full, where much was looked at.
        if listed.next_cursor.is_none() || listed.entries.len() >= limit as usize {
            break;
        }
    }
    if session.out.is_json() {
        return session.out.json(&listed);
    }
    session.out.rows(&["entry", "time", "who", "did", "to", "outcome", "from"], &listed.entries, |entry| {
        vec![
            entry.sequence.to_string(),
            entry.time.clone(),
            who(&entry.principal),
            entry.action.clone(),
            what(entry),
            entry.refusal.clone().unwrap_or_else(|| entry.outcome.clone()),
            or_dash(&entry.peer),
        ]
    })?;
    for (first, last) in &listed.missing {
        session.out.say(&format!("this node lacks the entries {first} to {last}: ask another control node for them"));
    }
    if listed.next_cursor.is_none() && !oldest_first && listed.held_from > 1 {
        session.out.say(&format!("this node has entries from {} on; an older member may have more", listed.held_from));
    }
    if let Some(cursor) = &listed.next_cursor {
        session.out.say(&format!("there are more: --cursor {cursor}"));
    }
    Ok(())
}

fn who(principal: &AuditPrincipalLine) -> String {
    match (principal.name.as_deref(), principal.kind.as_str()) {
        (Some(name), _) => name.to_owned(),
        (None, "node") => format!("node:{}", principal.node),
        (None, kind) => kind.to_owned(),
    }
}

/// The one thing that says most about what was acted on.
fn what(entry: &AuditEntryLine) -> String {
    let target = &entry.target;
    if !entry.calls.is_empty() {
        let one = |call: &AuditCallLine| {
            let refused = call.refusal.as_ref().map(|refusal| format!(" {refusal}")).unwrap_or_default();
            format!("{} {}{refused} x{}", who(&call.principal), call.call, call.count)
        };
        let more = entry.calls.len().saturating_sub(CALLS_SHOWN);
        let shown: Vec<_> = entry.calls.iter().take(CALLS_SHOWN).map(one).collect();
        return shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
    }
    if let Some(consumer) = &target.consumer {
        return target.binding.as_ref().map_or_else(|| consumer.clone(), |binding| format!("{consumer} {binding}"));
    }
    let node = (target.node != 0).then(|| format!("node:{}", target.node));
    match target.secret_ids.as_slice() {
        [] => {}
        [secret] => return format!("secret {secret}"),
        [secret, rest @ ..] => return format!("secret {secret} and {} more", rest.len()),
    }
    let token = target.token_id.as_ref().map(|token| format!("token {token}"));
    let store = target.store_id.as_ref().map(|store| format!("store {store}"));
    let account = target.account_id.as_ref().map(|account| format!("account {account}"));
    node.or(token).or(target.member.clone()).or(store).or(account).unwrap_or_else(|| "-".to_owned())
}

/// Where an export goes.
enum Sink {
    File(PendingFile),
    Stdout,
}

impl Sink {
    fn put(&mut self, line: &AuditLine) -> Result<(), Failure> {
        let text = serde_json::to_string(line).map_err(|error| Failure::failed(format!("cannot write an entry as JSON: {error}")))?;
        let bytes = format!("{text}\n");
        match self {
            Self::File(file) => file
                .write(bytes.as_bytes())
                .map_err(|error| Failure::failed(format!("cannot write the export: {error}; nothing is left of the file"))),
            Self::Stdout => std::io::stdout().lock().write_all(bytes.as_bytes()).map_err(|error| Failure::unwritten(&error)),
        }
    }

    async fn finish(self, path: Option<&Path>) -> Result<(), Failure> {
        let Self::File(file) = self else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || file.finish()).await;
        let shown = path.map(|path| path.display().to_string()).unwrap_or_default();
        done.map_err(|_| Failure::failed("the thread that writes ended"))?
            .map_err(|error| Failure::failed(format!("cannot finish {shown}: {error}; nothing is left of it")))
    }
}

async fn export(session: &Session, arguments: AuditExport) -> Result<(), Failure> {
    let AuditExport { file, force, filters } = arguments;
    let file = file.filter(|path| path.as_os_str() != "-");
    let filter = filter(session, filters)?;
    if let Some(path) = file.as_ref().filter(|path| !force && path.exists()) {
        return Err(Failure::usage(format!("{} is there already: name another file, or replace it with --force", path.display())));
    }
    let mut parts = session.control()?.export_audit(v1::ExportAuditRequest { filter: Some(filter) }).await.map_err(failed)?;
    let mut sink = match &file {
        Some(path) => {
            Sink::File(PendingFile::create(path).map_err(|error| Failure::failed(format!("cannot create {}: {error}", path.display())))?)
        }
        None => Sink::Stdout,
    };
    let bar = (!session.global.quiet && file.is_some() && std::io::stderr().is_terminal()).then(|| {
        let bar = indicatif::ProgressBar::new_spinner().with_message("exporting");
        bar.enable_steady_tick(super::WAIT_SILENT);
        bar
    });
    let (mut whole, mut end) = (false, None);
    while let Some(part) = parts.next().await.map_err(failed)? {
        let line = match part {
            Part::Begin(begin) => {
                whole = begin.whole;
                AuditLine::Begin(begin.into())
            }
            Part::Entry(entry) => AuditLine::Entry(entry.into()),
            Part::End(last) => {
                let last = AuditEnd::from(last);
                end = Some(last.clone());
                AuditLine::End(last)
            }
        };
        bar.iter().for_each(|bar| bar.inc(1));
        sink.put(&line)?;
    }
    bar.iter().for_each(indicatif::ProgressBar::finish_and_clear);
    sink.finish(file.as_deref()).await?;
    let Some(end) = end else { return Err(Failure::failed("the server's stream lacks its end")) };
    let to = file.map(|path| path.display().to_string()).unwrap_or_else(|| "-".to_owned());
    session.out.say(&format!("{} entries up to {}, {}", end.entries, end.sequence, end.hash));
    if whole {
        session.out.say(&format!("check it where it will be kept: cinnabar audit verify {to} --head {}:{}", end.sequence, end.hash));
    } else {
        session.out.say("entries were left out, by a filter or for what this token may not see: such a file cannot be verified");
    }
    Ok(())
}
