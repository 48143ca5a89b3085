//! Deleted secrets that can be brought back, and reminders. Control only, since feature level 3.

use serde::{Deserialize, Serialize};
use types::{LogIndex, UnixMillis};

use super::SecretRecord;
use crate::{Reminder, format::stored};

/// A deleted secret that can be brought back, under its store and id. Its sealed values lie beside it, as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedRecord {
    /// What it was. Its versions are those of which the values were kept.
    pub secret: SecretRecord,
    /// Its reminder.
    pub reminder: Reminder,
    /// When it was deleted, in log time.
    pub deleted: UnixMillis,
    /// The first moment of log time at which it can't be brought back.
    pub until: UnixMillis,
    /// The index of the command that deleted it.
    pub index: LogIndex,
    /// Bytes of its stored values.
    pub bytes: u64,
}
stored!(DeletedRecord, "a deleted secret record");

/// When people want to be reminded of a secret, under its store and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReminderRecord {
    /// What was set.
    pub reminder: Reminder,
    /// When the current value should be replaced: so long after it was made.
    pub rotate_due: Option<UnixMillis>,
}
stored!(ReminderRecord, "a reminder record");

impl ReminderRecord {
    /// The first time for which there is a reminder.
    pub fn due(&self) -> Option<UnixMillis> {
        self.reminder.expires.into_iter().chain(self.rotate_due).min()
    }
}
