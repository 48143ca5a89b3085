//! The state as a list of records, for the table and for snapshot files.

use bytes::Bytes;

use super::State;
use crate::{
    ChainHead, Content, FEATURE_LEVEL_MAX, FormatError, Key, KeyError, Propagated, ReadError, TypedKey, map::Records, record::HeadRecord,
};

/// Why records are no state. The copy that they came from is damaged, incomplete or newer; rebuild it from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A key is not understood.
    #[error("loading a state: a key is not understood")]
    Key(#[from] KeyError),
    /// There are records, but not the one that says where they stand.
    #[error("loading a state: {records} records and no head among them")]
    NoHead {
        /// How many records there are.
        records: usize,
    },
    /// The head says that no command was applied, and there are records.
    #[error("loading a state: its head says that no command was ever applied, beside {records} records")]
    Unapplied {
        /// How many records there are.
        records: usize,
    },
    /// The head does not decode.
    #[error("loading a state: the head does not decode")]
    Head(#[from] FormatError),
    /// The settings do not decode.
    #[error("loading a state: the settings do not decode")]
    Settings(#[from] ReadError),
    /// The propagated records are not those that the head was written for.
    #[error("loading a state: the propagated records at {position} do not have the root that the head says")]
    Root {
        /// The head's position.
        position: types::Position,
    },
    /// A newer Cinnabar wrote it.
    #[error("loading a state of feature level {got}; this build knows up to {}: update this node", FEATURE_LEVEL_MAX)]
    Level {
        /// The state's level.
        got: types::FeatureLevel,
    },
}

impl State {
    /// All records, the head included, by rising key. [`State::from_records`] of them is this state.
    pub fn records(&self) -> impl Iterator<Item = (Key, Bytes)> {
        let head = (self.applied.get() > 0).then(|| (TypedKey::Head.encode(), self.head_record().encode()));
        // A control node holds all in memory.
        let own = |(key, content): (&Key, &Content)| content.inline().map(|bytes| (key.clone(), bytes.clone()));
        self.propagated.records().filter_map(own).chain(head).chain(self.control.iter().filter_map(own))
    }

    /// How many records [`State::records`] gives: by it, a copy that lost a record of control nodes alone is recognised.
    pub fn record_count(&self) -> usize {
        self.propagated.len() + self.control.len() + usize::from(self.applied.get() > 0)
    }

    /// Takes records in any order as a state, after checking that the propagated ones have the root that the head says.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_records(records: impl IntoIterator<Item = (Key, Bytes)>) -> Result<Self, LoadError> {
        let (mut head, mut count, mut control) = (None, 0_usize, Records::default());
        let mut unknown = None;
        let propagated = records.into_iter().filter_map(|(key, value)| {
            count += 1;
            match key.decode() {
                Err(error) => unknown = Some(error),
                Ok(TypedKey::Head) => head = Some(HeadRecord::decode(&value)),
                Ok(_) if key.is_propagated() => return Some((key, value)),
                Ok(_) => control.set(key, Some(value)),
            }
            None
        });
        let mut propagated = Propagated::from_records(ChainHead::default(), propagated);
        if let Some(error) = unknown {
            return Err(error.into());
        }
        let head = match head.transpose()? {
            Some(head) => head,
            None if count == 0 => return Ok(Self::empty()),
            None => return Err(LoadError::NoHead { records: count }),
        };
        // The first command writes the first head.
        if head.applied.get() == 0 {
            return Err(LoadError::Unapplied { records: count });
        }
        if propagated.state_root() != head.state_root {
            return Err(LoadError::Root { position: head.position });
        }
        propagated.set_head(ChainHead { chain: head.chain, position: head.position, hash: head.chain_hash, time: head.changed });
        let level = propagated.settings()?.map(|settings| settings.feature_level).unwrap_or_default();
        if level > FEATURE_LEVEL_MAX {
            return Err(LoadError::Level { got: level });
        }
        Ok(Self { propagated, control, applied: head.applied, time: head.time })
    }
}
