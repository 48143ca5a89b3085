//! Reminders: when people want to hear of a secret. Shown and counted, never enforced.

use std::time::Duration;

use super::{Halt, Judged, View, refuse, secrets::At};
use crate::{
    RefusalKind, Reminder, ReminderEdit, ReminderKind, TypedKey,
    limits::{ROTATE_EVERY_MAX_MS, ROTATE_EVERY_MIN_MS},
    record::{ReminderRecord, SecretRecord},
};

const fn key(at: At) -> TypedKey {
    TypedKey::Reminder { store: at.store, secret: at.secret }
}

/// Puts a reminder where there is none.
pub(super) fn put(view: &mut View<'_>, at: At, secret: &SecretRecord, reminder: Reminder) {
    if reminder == Reminder::default() {
        return;
    }
    let record = of(secret, reminder);
    index(view, at, &record, true);
    view.put(key(at), &record);
}

/// Takes the reminder of a secret that goes; says what it was.
pub(super) fn take(view: &mut View<'_>, at: At) -> Result<Reminder, Halt> {
    let Some(record) = view.read::<ReminderRecord>(key(at))? else { return Ok(Reminder::default()) };
    index(view, at, &record, false);
    view.delete(key(at));
    Ok(record.reminder)
}

/// Follows a secret whose current value is another one.
pub(super) fn follow(view: &mut View<'_>, at: At, secret: &SecretRecord) -> Result<(), Halt> {
    let reminder = take(view, at)?;
    put(view, at, secret, reminder);
    Ok(())
}

pub(super) fn edit(view: &mut View<'_>, at: At, secret: &SecretRecord, edit: &ReminderEdit) -> Judged<()> {
    check(edit.rotate_every_ms.flatten())?;
    let mut reminder = take(view, at)?;
    if let Some(expires) = edit.expires {
        reminder.expires = expires;
    }
    if let Some(every) = edit.rotate_every_ms {
        reminder.rotate_every_ms = every;
    }
    put(view, at, secret, reminder);
    Ok(())
}

pub(super) fn check(rotate_every_ms: Option<u64>) -> Judged<()> {
    match rotate_every_ms {
        Some(every) if !(ROTATE_EVERY_MIN_MS..=ROTATE_EVERY_MAX_MS).contains(&every) => refuse(
            RefusalKind::InvalidArgument,
            "a secret can ask for a new value once a minute at the most, and in a hundred years at the least",
        ),
        _ => Ok(()),
    }
}

fn of(secret: &SecretRecord, reminder: Reminder) -> ReminderRecord {
    let since = secret.current_entry().map_or(secret.created, |entry| entry.created);
    ReminderRecord { reminder, rotate_due: reminder.rotate_every_ms.map(|every| since.plus(Duration::from_millis(every))) }
}

/// Keeps the index by time, or clears it.
fn index(view: &mut View<'_>, At { store, secret, .. }: At, record: &ReminderRecord, there: bool) {
    let dues = [(ReminderKind::Expiry, record.reminder.expires), (ReminderKind::Rotation, record.rotate_due)];
    for (kind, at) in dues.into_iter().filter_map(|(kind, at)| Some((kind, at?))) {
        let key = TypedKey::Due { at, kind, store, secret };
        if there { view.put(key, &()) } else { view.delete(key) }
    }
}
