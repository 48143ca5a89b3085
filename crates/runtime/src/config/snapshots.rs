//! `[snapshots]`: archives of the whole state, saved by the clock.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Fault, Never, sections::in_ms, within};

/// Where, how often and how many archives the leader saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotsConfig {
    /// Where they are written. Another disk than the data's; made with mode 0700 when absent.
    pub folder: PathBuf,
    /// How often, or `never`. The leader saves; a control node that does not lead does nothing.
    pub every: Never,
    /// How many are kept in the folder; the oldest are removed when a new one has been verified.
    pub keep: u32,
}

/// Two weeks of days.
const KEEP: u32 = 14;
/// Below this one would follow on the other.
const EVERY_MIN_MS: u128 = 1000;
const EVERY_MAX_MS: u128 = 366 * 86_400_000;

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self { folder: "/var/backups/cinnabar".into(), every: Never::NEVER, keep: KEEP }
    }
}

impl SnapshotsConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        if let Some(every) = self.every.duration() {
            within("snapshots.every", every.as_millis(), EVERY_MIN_MS, EVERY_MAX_MS).map_err(in_ms)?;
            if !self.folder.is_absolute() {
                return Err(("snapshots.folder", "has to be absolute, for a backup must be where one looks for it".into()));
            }
        }
        within("snapshots.keep", self.keep, 1, 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_saved_only_where_and_when_one_said() {
        let config = |every: &str, folder: &str, keep| SnapshotsConfig { folder: folder.into(), every: every.parse().unwrap(), keep };
        assert_eq!(SnapshotsConfig::default().every.duration(), None);
        assert!(config("1h", "/backup", 3).check().is_ok());
        assert_eq!(config("1h", "backup", 3).check().unwrap_err().0, "snapshots.folder");
        assert_eq!(config("10ms", "/backup", 3).check().unwrap_err().0, "snapshots.every");
        assert_eq!(config("1h", "/backup", 0).check().unwrap_err().0, "snapshots.keep");
    }
}
