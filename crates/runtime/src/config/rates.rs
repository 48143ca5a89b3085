//! How often one caller may do what costs others something.

use serde::{Deserialize, Serialize};

use super::{Fault, within};

/// Rates at this node. Each node counts for itself, in memory: a token that goes to three nodes has three times as much. 0: no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Changes that one token may make in a second, on average.
    pub writes_per_second: u32,
    /// Changes that one token may make at once, when it has been quiet before.
    pub writes_burst: u32,
    /// Calls in a minute with tokens that nobody knows, from one address; of IPv6, from one network of 64 bits. As many may come at once.
    pub failed_logins_per_minute: u32,
    /// The same, from all addresses together.
    pub failed_logins_in_all_per_minute: u32,
}

/// An eighth of what a cluster was measured to take, so that one pipeline that runs wild leaves room for the others; and more than any
/// pipeline needs that is well.
const WRITES_PER_SECOND: u32 = 1000;
/// Two seconds of it: an import, or a deployment of everything.
const WRITES_BURST: u32 = 2000;
/// Five a second: a whole office behind one address, each with an old token, is told so. Who guesses is not stopped by this but by the
/// 256 bits of a token; this bounds the questions to the leader and the entries in logs.
const FAILED_LOGINS_PER_MINUTE: u32 = 300;
/// A hundred a second, which take some milliseconds of one core.
const FAILED_LOGINS_IN_ALL_PER_MINUTE: u32 = 6000;
/// The highest of any: beyond it there is no difference to no limit.
const MOST: u32 = 10_000_000;

impl Default for Rates {
    fn default() -> Self {
        Self {
            writes_per_second: WRITES_PER_SECOND,
            writes_burst: WRITES_BURST,
            failed_logins_per_minute: FAILED_LOGINS_PER_MINUTE,
            failed_logins_in_all_per_minute: FAILED_LOGINS_IN_ALL_PER_MINUTE,
        }
    }
}

impl Rates {
    pub(super) fn check(&self) -> Result<(), Fault> {
        within("rates.writes_per_second", self.writes_per_second, 0, MOST)?;
        within("rates.writes_burst", self.writes_burst, 1, MOST)?;
        within("rates.failed_logins_per_minute", self.failed_logins_per_minute, 0, MOST)?;
        within("rates.failed_logins_in_all_per_minute", self.failed_logins_in_all_per_minute, 0, MOST)
    }
}
