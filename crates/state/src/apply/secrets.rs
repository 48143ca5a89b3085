//! Secrets: their values, versions and pointers.

use std::collections::BTreeSet;

use types::{
    AccountId, Comment, ScopeSet, SecretId, SecretName, StoreId, ValueId, Version,
    mutation::{self, Mutation},
};

use super::{Halt, Judged, View, deks, refuse, reminders, stores::store_of};
use crate::{
    NewDek, NewSecret, PointerMove, RefusalKind, Reminder, ReminderEdit, ReplyBody, SealedInput, Stage, TypedKey,
    limits::{ITEMS_MAX, VERSIONS_MAX},
    record::{SecretRecord, ValueRecord, VersionEntry},
};

/// Which secret.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) account: AccountId,
    pub(super) store: StoreId,
    pub(super) secret: SecretId,
}

impl At {
    const fn key(self) -> TypedKey {
        TypedKey::Secret { store: self.store, secret: self.secret }
    }
}

/// What to change beside the value; what is none stays.
pub(super) struct Edit {
    pub(super) scopes: Option<ScopeSet>,
    pub(super) comment: Option<Comment>,
}

/// Makes secrets; with reminders, one for each.
pub(super) fn create_reminded(
    view: &mut View<'_>,
    (account, store): (AccountId, StoreId),
    items: &[NewSecret],
    new_dek: Option<&NewDek>,
    reminders: &[Reminder],
) -> Judged<ReplyBody> {
    if reminders.len() != items.len() {
        let message = format!("{} reminders for {} secrets; give one for each", reminders.len(), items.len());
        return refuse(RefusalKind::InvalidArgument, message);
    }
    reminders.iter().try_for_each(|reminder| reminders::check(reminder.rotate_every_ms))?;
    let reply = create(view, account, store, items, new_dek)?;
    for (item, reminder) in items.iter().zip(reminders) {
        let at = At { account, store, secret: item.id };
        let record = secret_of(view, at)?;
        reminders::put(view, at, &record, *reminder);
    }
    Ok(reply)
}

pub(super) fn create(
    view: &mut View<'_>,
    account: AccountId,
    store: StoreId,
    items: &[NewSecret],
    new_dek: Option<&NewDek>,
) -> Judged<ReplyBody> {
    store_of(view, account, store)?;
    if items.is_empty() || items.len() > ITEMS_MAX {
        let message = format!("{} secrets in one command; 1 to {ITEMS_MAX} are allowed", items.len());
        return refuse(RefusalKind::InvalidArgument, message);
    }
    room_for(view, account, items.len())?;
    deks::bring(view, account, new_dek)?;
    let mut secrets = Vec::with_capacity(items.len());
    for item in items {
        secrets.push((item.id, insert(view, account, store, item)?));
    }
    Ok(ReplyBody::SecretsCreated { secrets })
}

/// Takes the room for so many more secrets.
pub(super) fn room_for(view: &mut View<'_>, account: AccountId, more: usize) -> Judged<()> {
    let (mut usage, quota) = (view.usage(account)?, view.state.quota(account)?);
    if usage.secrets as usize + more > quota.secrets as usize && !mutation::is_on(Mutation::QuotaIgnored) {
        let message = format!("the account has {} of {} secrets; delete some, or raise the quota", usage.secrets, quota.secrets);
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    usage.secrets += more as u32;
    view.put(TypedKey::Usage { account }, &usage);
    Ok(())
}

/// Puts a new secret with its first version.
fn insert(view: &mut View<'_>, account: AccountId, store: StoreId, item: &NewSecret) -> Judged<Version> {
    let at = At { account, store, secret: item.id };
    scopes_named(item.scopes)?;
    let by_name = TypedKey::SecretName { store, name: item.name.clone() };
    if view.has(by_name.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("a secret named {} exists already in this store", item.name));
    }
    // The id of one that can be brought back is not given again.
    if view.has(at.key()) || view.has(TypedKey::Deleted { store, secret: item.id }) {
        return refuse(RefusalKind::AlreadyExists, format!("the secret id {} is taken", item.id));
    }
    take_value(view, at, &item.value)?;
    let version = Version::new(1);
    let record = SecretRecord {
        account,
        store,
        name: item.name.clone(),
        scopes: item.scopes,
        comment: item.comment.clone(),
        created: view.time,
        modified: view.time,
        versions: vec![VersionEntry { version, value_id: item.value.value_id, created: view.time }],
        newest: version,
        current: version,
        previous: None,
        candidate: None,
        deleting: false,
    };
    view.put(at.key(), &record);
    view.put(by_name, &item.id);
    Ok(version)
}

/// Takes a sealed value in, if it is sealed under a key that is accepted and its id is new.
fn take_value(view: &mut View<'_>, at: At, value: &SealedInput) -> Judged<()> {
    let max = view.state.quota(at.account)?.value_bytes as usize;
    let length = value.sealed.plaintext_len();
    if length > max {
        return refuse(RefusalKind::TooLarge, format!("a value of {length} bytes; at most {max} are allowed"));
    }
    deks::use_once(view, at.account, value)?;
    let key = TypedKey::Value { secret: at.secret, value: value.value_id };
    if view.has(key.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the value id {} is taken; seal again under another", value.value_id));
    }
    let record = ValueRecord { secret: at.secret, dek: value.dek, domain: value.domain.clone(), sealed: value.sealed.clone() };
    view.put(key, &record);
    Ok(())
}

fn scopes_named(scopes: ScopeSet) -> Judged<()> {
    if scopes.is_empty() {
        return refuse(RefusalKind::InvalidArgument, "a secret needs at least one scope; name where it may be used");
    }
    Ok(())
}

/// A secret of this account and store that is there and is not being deleted.
pub(super) fn secret_of(view: &View<'_>, at: At) -> Judged<SecretRecord> {
    store_of(view, at.account, at.store)?;
    match view.read::<SecretRecord>(at.key())? {
        Some(record) if !record.deleting => Ok(record),
        _ => refuse(RefusalKind::NotFound, format!("no secret {} in this store", at.secret)),
    }
}

fn expected(record: &SecretRecord, expect: Option<Version>) -> Judged<()> {
    match expect {
        Some(expect) if expect != record.current && !mutation::is_on(Mutation::ExpectationIgnored) => refuse(
            RefusalKind::Precondition,
            format!("version {} of {} is current, not {expect}; look at it again (`cinnabar secret show`)", record.current, record.name),
        ),
        _ => Ok(()),
    }
}

fn change(view: &View<'_>, record: &mut SecretRecord, edit: &Edit) -> Judged<()> {
    if let Some(scopes) = edit.scopes {
        scopes_named(scopes)?;
        record.scopes = scopes;
    }
    if let Some(comment) = &edit.comment {
        record.comment = comment.clone();
    }
    record.modified = view.time;
    Ok(())
}

pub(super) fn edit(view: &mut View<'_>, at: At, edit: &Edit) -> Judged<ReplyBody> {
    let mut record = secret_of(view, at)?;
    let changes = edit.scopes.is_some_and(|scopes| scopes != record.scopes)
        || edit.comment.as_ref().is_some_and(|comment| *comment != record.comment);
    if changes {
        change(view, &mut record, edit)?;
        view.put(at.key(), &record);
    }
    Ok(ReplyBody::SecretEdited)
}

/// Changes scopes, comment and reminder.
pub(super) fn edit_reminded(view: &mut View<'_>, at: At, change: &Edit, reminder: &ReminderEdit) -> Judged<ReplyBody> {
    let reply = edit(view, at, change)?;
    let record = secret_of(view, at)?;
    reminders::edit(view, at, &record, reminder)?;
    Ok(reply)
}

pub(super) fn set_value(
    view: &mut View<'_>,
    at: At,
    value: &SealedInput,
    expect: Option<Version>,
    stage: Stage,
    edit: &Edit,
) -> Judged<ReplyBody> {
    let mut record = secret_of(view, at)?;
    expected(&record, expect)?;
    change(view, &mut record, edit)?;
    take_value(view, at, value)?;
    let version = record.newest.next().ok_or(Halt::Broken { what: "a version is at the end of its range" })?;
    record.newest = version;
    record.versions.push(VersionEntry { version, value_id: value.value_id, created: view.time });
    match stage {
        Stage::Current => set_current(&mut record, version),
        Stage::Candidate => record.candidate = Some(version),
    }
    prune(view, at, &mut record);
    view.put(at.key(), &record);
    reminders::follow(view, at, &record)?;
    Ok(ReplyBody::ValueSet { version })
}

fn set_current(record: &mut SecretRecord, version: Version) {
    record.previous = Some(record.current);
    record.current = version;
}

/// Drops the oldest versions that no pointer names while there are too many.
fn prune(view: &mut View<'_>, at: At, record: &mut SecretRecord) {
    while record.versions.len() > VERSIONS_MAX {
        let pointed = [Some(record.current), record.previous, record.candidate];
        let Some(oldest) = record.versions.iter().position(|entry| !pointed.contains(&Some(entry.version))) else { return };
        let dropped = record.versions.remove(oldest);
        view.delete(TypedKey::Value { secret: at.secret, value: dropped.value_id });
    }
}

pub(super) fn duplicate(
    view: &mut View<'_>,
    source: At,
    source_version: Version,
    item: &NewSecret,
    new_dek: Option<&NewDek>,
) -> Judged<ReplyBody> {
    let record = secret_of(view, source)?;
    if record.version(source_version).is_none() {
        let message = format!("version {source_version} of {} is gone, from which the value was taken; try again", record.name);
        return refuse(RefusalKind::Precondition, message);
    }
    create(view, source.account, source.store, std::slice::from_ref(item), new_dek)
}

pub(super) fn move_pointer(view: &mut View<'_>, at: At, to: PointerMove, expect: Option<Version>) -> Judged<ReplyBody> {
    let mut record = secret_of(view, at)?;
    expected(&record, expect)?;
    match to {
        PointerMove::Rollback { to } => {
            if record.version(to).is_none() {
                return refuse(
                    RefusalKind::NotFound,
                    format!("{} has no version {to} (`cinnabar secret versions` lists them)", record.name),
                );
            }
            if to != record.current {
                set_current(&mut record, to);
            }
        }
        PointerMove::Promote => match record.candidate.take() {
            Some(candidate) => set_current(&mut record, candidate),
            None => return refuse(RefusalKind::Precondition, format!("{} has no candidate to promote", record.name)),
        },
        PointerMove::Revert => match record.previous {
            Some(previous) => set_current(&mut record, previous),
            None => return refuse(RefusalKind::Precondition, format!("{} has no previous version to revert to", record.name)),
        },
        PointerMove::DropCandidate => {
            if record.candidate.take().is_none() {
                return refuse(RefusalKind::Precondition, format!("{} has no candidate to drop", record.name));
            }
        }
    }
    let moved = ReplyBody::PointersMoved { current: record.current, previous: record.previous, candidate: record.candidate };
    if view.read::<SecretRecord>(at.key())?.as_ref() != Some(&record) {
        record.modified = view.time;
        view.put(at.key(), &record);
        reminders::follow(view, at, &record)?;
    }
    Ok(moved)
}

/// Puts the same plaintext, sealed anew, in the place of a version's value.
pub(super) fn reseal(view: &mut View<'_>, at: At, version: Version, replaces: ValueId, value: &SealedInput) -> Judged<ReplyBody> {
    let mut record = secret_of(view, at)?;
    let name: &SecretName = &record.name;
    let gone = format!("version {version} of {name} is gone, or was sealed anew since");
    let Some(entry) = record.versions.iter_mut().find(|entry| entry.version == version && entry.value_id == replaces) else {
        return refuse(RefusalKind::Precondition, gone);
    };
    entry.value_id = value.value_id;
    take_value(view, at, value)?;
    view.delete(TypedKey::Value { secret: at.secret, value: replaces });
    view.put(at.key(), &record);
    Ok(ReplyBody::ValueResealed { version })
}

/// Whether no id comes twice.
pub(super) fn distinct(secrets: &[SecretId]) -> bool {
    secrets.iter().collect::<BTreeSet<_>>().len() == secrets.len()
}
