//! Numbers with a meaning: versions, revisions, positions, epochs and time.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number that follows, or none at the end of the range.
            pub fn next(self) -> Option<Self> {
                self.0.checked_add(1).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Numbers the values of one secret from 1; never reused, also not after a rollback.
    Version, u64);
number!(
    /// Orders all changes of propagated keys within a generation. Dense: each change set is one more. 0 is the empty state.
    Revision, u64);
number!(
    /// Counts recoveries of the control plane from a backup. A later generation's chain replaces an earlier one's.
    Generation, u32);
number!(
    /// Names one of several chains of change sets. Always 0 today; carried so that a state can be split later.
    ChainId, u32);
number!(
    /// The index of an entry in the Raft log.
    LogIndex, u64);
number!(
    /// Numbers the key-encryption keys of a key domain, from 1.
    KekEpoch, u32);
number!(
    /// The replicated level of behaviour: `apply` depends on it and never on a binary's version.
    FeatureLevel, u32);

/// Where a state stands: orders by generation, then by revision. Written `G.R`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The generation of the control plane.
    pub generation: Generation,
    /// The revision within it.
    pub revision: Revision,
}

impl Position {
    /// The position of `revision` in `generation`.
    pub const fn new(generation: Generation, revision: Revision) -> Self {
        Self { generation, revision }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.revision)
    }
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected GENERATION.REVISION, such as 1.42, got {got:?}")]
pub struct ParsePositionError {
    got: String,
}

impl FromStr for Position {
    type Err = ParsePositionError;
    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        let parsed = text.split_once('.').and_then(|(generation, revision)| {
            Some(Self::new(Generation::new(generation.parse().ok()?), Revision::new(revision.parse().ok()?)))
        });
        parsed.ok_or_else(|| ParsePositionError { got: text.chars().take(80).collect() })
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// Wraps a count of milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// The count of milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The time from `earlier` until `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The time `after` later, at the most the end of the range.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_text_round_trips_and_orders_by_generation_first() {
        let position: Position = "2.7".parse().unwrap();
        assert_eq!(position.to_string(), "2.7");
        assert!(position > "1.900".parse().unwrap());
        for bad in ["", "7", "1.", ".1", "1.2.3", "-1.2", "1.x"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
