//! What a follower checks before it takes a change set.

use types::{
    ChainId, FeatureLevel, Generation, Hash, Position,
    mutation::{self, Mutation},
};

use super::Propagated;
use crate::{
    Change, ChangeSet, FEATURE_LEVEL_MAX, FormatError, Key, KeyError, TypedKey,
    digest::merkle,
    limits::{CHANGE_SET_BYTES_MAX, CHANGES_MAX, RECORD_BYTES_MAX},
    record::SettingsRecord,
};

/// Why a change set is refused. Nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Of another chain.
    #[error("change set {got} is of chain {chain}, this state is of chain {own}")]
    Chain {
        /// The set's position.
        got: Position,
        /// The set's chain.
        chain: ChainId,
        /// The state's chain.
        own: ChainId,
    },
    /// Of another generation. Only a recovery that the offline key has signed moves an edge to a new one.
    #[error("change set {got} is of another generation than this state's {own}")]
    Generation {
        /// The set's position.
        got: Position,
        /// The state's generation.
        own: Generation,
    },
    /// Sets are missing before it.
    #[error("gap: this state is at {have}, change set {got} does not follow; ask for what lies between")]
    Gap {
        /// The state's position.
        have: Position,
        /// The set's position.
        got: Position,
    },
    /// The state has it already, or is past it.
    #[error("repeat: this state is at {have}, change set {got} came again")]
    Repeat {
        /// The state's position.
        have: Position,
        /// The set's position.
        got: Position,
    },
    /// It follows another set than the state's last: a fork.
    #[error("fork: change set {got} follows {previous}, this state's last is {own}")]
    Previous {
        /// The set's position.
        got: Position,
        /// The hash that it follows.
        previous: Hash,
        /// The hash of the state's last set.
        own: Hash,
    },
    /// Its header does not have the hash that it claims.
    #[error("change set {got} does not have the hash it claims")]
    OwnHash {
        /// The set's position.
        got: Position,
    },
    /// Its changes do not have the Merkle root, or the number, that its header claims.
    #[error("change set {got}: its changes do not have the Merkle root and number that its header claims")]
    ChangesRoot {
        /// The set's position.
        got: Position,
    },
    /// It has a record that must not leave the control nodes.
    #[error("change set {got} carries a control-only record of keyspace {keyspace:#04x}")]
    ControlOnly {
        /// The set's position.
        got: Position,
        /// The keyspace's number.
        keyspace: u8,
    },
    /// It has a key that this build does not know.
    #[error("change set {got} carries a key that is not understood")]
    Key {
        /// The set's position.
        got: Position,
        /// What is wrong with the key.
        #[source]
        source: KeyError,
    },
    /// Its changes are not in the order of their keys, or name one twice.
    #[error("change set {got}: its changes are not in rising order of keys")]
    Order {
        /// The set's position.
        got: Position,
    },
    /// It breaks a bound.
    #[error("change set {got} has {what} of {size}, at most {max} are allowed")]
    Oversize {
        /// The set's position.
        got: Position,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// It raises the feature level beyond this build.
    #[error("change set {got} raises the feature level to {level}; this build knows up to {}: update this node", FEATURE_LEVEL_MAX)]
    Level {
        /// The set's position.
        got: Position,
        /// The new level.
        level: FeatureLevel,
    },
    /// Its settings record does not decode.
    #[error("change set {got}: the settings do not decode")]
    Settings {
        /// The set's position.
        got: Position,
        /// What is wrong with them.
        #[source]
        source: FormatError,
    },
}

impl Propagated {
    /// Takes the change set that follows, whole.
    ///
    /// Checked are chain, generation, dense position, previous hash, own hash, Merkle root, bounds, and that keys are propagated,
    /// known and in order. Whether the control plane stands behind it, a verified seal of the resulting position, hash and
    /// [state root](Propagated::state_root) says; a caller accepts on a clone and keeps it only then.
    ///
    /// # Errors
    /// [`ChainError`]; then nothing has changed.
    pub fn accept(&mut self, set: &ChangeSet) -> Result<(), ChainError> {
        if !mutation::is_on(Mutation::ChainUnchecked) {
            self.follows(set)?;
        }
        is_as_claimed(set)?;
        set.changes.iter().try_for_each(|change| may_be_carried(set, change))?;
        self.advance(set);
        Ok(())
    }

    /// Whether the set is the next of this chain.
    fn follows(&self, set: &ChangeSet) -> Result<(), ChainError> {
        let (header, have, got) = (&set.header, self.head.position, set.header.position);
        if header.chain != self.head.chain {
            return Err(ChainError::Chain { got, chain: header.chain, own: self.head.chain });
        }
        // The empty state belongs to no generation yet.
        let begins = have == Position::default();
        if got.generation != have.generation && !(begins && got.generation > have.generation) {
            return Err(ChainError::Generation { got, own: have.generation });
        }
        if got.revision <= have.revision {
            return Err(ChainError::Repeat { have, got });
        }
        if Some(got.revision) != have.revision.next() {
            return Err(ChainError::Gap { have, got });
        }
        if header.previous != self.head.hash {
            return Err(ChainError::Previous { got, previous: header.previous, own: self.head.hash });
        }
        Ok(())
    }
}

/// Whether the set is what its header says, and within bounds.
fn is_as_claimed(set: &ChangeSet) -> Result<(), ChainError> {
    let got = set.header.position;
    for (what, size, max) in
        [("a size in bytes", set.encoded().len(), CHANGE_SET_BYTES_MAX), ("a number of changes", set.changes.len(), CHANGES_MAX)]
    {
        if size > max {
            return Err(ChainError::Oversize { got, what, size, max });
        }
    }
    if set.header.hash() != set.hash {
        return Err(ChainError::OwnHash { got });
    }
    let leaves: Vec<Hash> = set.changes.iter().map(Change::leaf).collect();
    if merkle(&leaves) != set.header.changes_root || set.changes.len() != set.header.count as usize {
        return Err(ChainError::ChangesRoot { got });
    }
    if !set.changes.is_sorted_by(|one, next| one.key < next.key) {
        return Err(ChainError::Order { got });
    }
    Ok(())
}

/// Whether a change may be in a set at all.
fn may_be_carried(set: &ChangeSet, change: &Change) -> Result<(), ChainError> {
    let got = set.header.position;
    if !change.key.is_propagated() {
        let keyspace = change.key.as_bytes().first().copied().unwrap_or_default();
        return Err(ChainError::ControlOnly { got, keyspace });
    }
    let typed = change.key.decode().map_err(|source| ChainError::Key { got, source })?;
    let size = record_bytes(&change.key, change.value.as_deref());
    if size > RECORD_BYTES_MAX {
        return Err(ChainError::Oversize { got, what: "a record in bytes", size, max: RECORD_BYTES_MAX });
    }
    if let (TypedKey::Settings, Some(value)) = (typed, &change.value) {
        let settings = SettingsRecord::decode(value).map_err(|source| ChainError::Settings { got, source })?;
        if settings.feature_level > FEATURE_LEVEL_MAX {
            return Err(ChainError::Level { got, level: settings.feature_level });
        }
    }
    Ok(())
}

/// The size of a record as bounds count it.
pub(crate) fn record_bytes(key: &Key, value: Option<&[u8]>) -> usize {
    key.as_bytes().len() + value.map_or(0, <[u8]>::len)
}
