//! How much of the audit log a control node keeps.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ByteSize, Fault, Never, within};

/// Bounds of the audit log on this node's disk. What is cut leaves a record of where the chain of hashes goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Bytes on disk; over it the oldest entries go, a sixteenth at a time.
    pub bytes_max: ByteSize,
    /// How old an entry may become, or `never` to keep all that there is room for.
    pub age_max: Never,
}

/// 1 GiB: some three million mutations.
const BYTES_MAX: ByteSize = ByteSize::from_mib(1024);
/// Ninety days: a quarter's review finds the quarter.
const AGE_MAX: Never = Never::after(Duration::from_secs(90 * 86_400));
/// Below this, a part of the log would hold a few entries only.
const BYTES_MAX_LEAST: ByteSize = ByteSize::from_mib(1);
/// Below this, entries would go before anybody has seen them.
const AGE_MAX_LEAST: Duration = Duration::from_secs(3600);

impl Default for AuditConfig {
    fn default() -> Self {
        Self { bytes_max: BYTES_MAX, age_max: AGE_MAX }
    }
}

impl AuditConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        within("audit.bytes_max", self.bytes_max, BYTES_MAX_LEAST, ByteSize::from_bytes(1 << 50))?;
        match self.age_max.duration() {
            Some(age) if age < AGE_MAX_LEAST => Err(("audit.age_max", "is shorter than 1h; give it at least that, or `never`".into())),
            _ => Ok(()),
        }
    }
}
