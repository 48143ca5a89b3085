//! Histories: what concurrent clients asked and were told, in real time, and whether one correct store could have told them so.
//!
//! A [`Recorder`] gives each request a beginning and each answer an end, by one counter that all clients share: what ended before
//! another began really was before it. The [`History`] is judged in two ways, which share nothing:
//!
//! - [`History::linearizable`], key by key: some order of all operations, each between its beginning and its end, must give every
//!   answer that was given (Wing and Gong 1993, with Lowe's memory of what was tried, 2017). It is exact, and its cost grows with what
//!   overlaps: up to eight clients a key. An operation without an answer may have happened at any time after its beginning, or not at all.
//! - [`History::ordered`], over all keys, in linear time but for sorting: writes have unique values and positions, so their order is
//!   known. It must agree with real time and with each key's versions; and what edges showed must be that order's prefix at the
//!   position that they said, must not go back, and must reach what was demanded.
//!
//! **Invariants**
//! 1. A history is refused only if no correct store could have given it: silence and refusals that promise nothing are never held
//!    against anybody.
//! 2. Nothing here knows the product: [`Position`] is the only thing taken from it.
//!
//! **Left out**: a name that is made again after it was deleted is a key of its own here; a test gives it another number.

mod order;
#[cfg(test)]
mod tests;
mod wgl;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use types::Position;

/// What has no end: an answer that never came.
pub const NEVER: u64 = u64::MAX;

/// What a client asks a control node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make the key, with a value.
    Create {
        /// Unique among all values of the history.
        value: u64,
    },
    /// A new value, whatever the last was, or only after the version named.
    Set {
        /// Unique among all values of the history.
        value: u64,
        /// Check and set.
        expect: Option<u64>,
    },
    /// Delete the key.
    Delete,
    /// The current version; control nodes never show values.
    Read,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written.
    Written {
        /// The version that the value got.
        version: u64,
        /// Where in the order of all changes.
        position: Position,
    },
    /// Deleted.
    Deleted {
        /// Where in the order of all changes.
        position: Position,
    },
    /// The current version.
    Seen(u64),
    /// There is no such key.
    Missing,
    /// There is one already.
    Exists,
    /// Another version than the expected one is current.
    Mismatch,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who asked.
    pub client: u32,
    /// About what.
    pub key: u32,
    /// What was asked.
    pub op: Op,
    /// What was answered.
    pub outcome: Outcome,
    /// When it was asked.
    pub began: u64,
    /// When it was answered; [`NEVER`] of an unknown outcome.
    pub ended: u64,
}

/// What an edge shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A value.
    Value {
        /// The value.
        value: u64,
        /// Its version.
        version: u64,
        /// The position of the state that it was read from.
        position: Position,
    },
    /// That nothing is bound under the key, or that it was deleted.
    Absent,
}

/// One lookup at an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// At which edge. Its position never goes back, whoever asks.
    pub edge: u32,
    /// About what.
    pub key: u32,
    /// The position that the edge had to have reached.
    pub demanded: Option<Position>,
    /// What was answered; refusals that say nothing about the key are not recorded.
    pub shown: Shown,
    /// When it was asked.
    pub began: u64,
    /// When it was answered.
    pub ended: u64,
}

/// When something began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Began(u64);

/// All that was asked and answered.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// At control nodes.
    pub calls: Vec<Call>,
    /// At edges.
    pub lookups: Vec<Lookup>,
    /// From which position on each key, by its number, can be looked up.
    pub bound: Vec<Position>,
}

/// Why no correct store could have given a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl History {
    /// All judgements.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn judge(&self) -> Result<(), Violation> {
        self.ordered()?;
        self.linearizable()
    }

    /// Whether every key's operations can be put into an order that explains all answers.
    ///
    /// # Errors
    /// [`Violation`] with the key, and how far an explanation goes at the best.
    pub fn linearizable(&self) -> Result<(), Violation> {
        let mut keys: Vec<u32> = self.calls.iter().map(|call| call.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().try_for_each(|key| {
            let calls: Vec<Call> = self.calls.iter().filter(|call| call.key == key).copied().collect();
            wgl::check(&calls).map_err(|stuck| Violation(format!("key {key} is not linearizable: nothing explains {stuck:?}")))
        })
    }

    /// Whether positions, versions, real time and what edges showed agree.
    ///
    /// # Errors
    /// [`Violation`] with what contradicts what.
    pub fn ordered(&self) -> Result<(), Violation> {
        order::check(self)
    }
}

/// Writes down a history while it happens. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    now: Arc<AtomicU64>,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    /// Something is about to be asked.
    pub fn begin(&self) -> Began {
        Began(self.tick())
    }

    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// A control node has answered, or will not.
    pub fn answered(&self, client: u32, key: u32, op: Op, Began(began): Began, outcome: Outcome) {
        let ended = if outcome == Outcome::Unknown { NEVER } else { self.tick() };
        self.with(|history| history.calls.push(Call { client, key, op, outcome, began, ended }));
    }

    /// An edge has answered.
    pub fn shown(&self, edge: u32, key: u32, demanded: Option<Position>, Began(began): Began, shown: Shown) {
        let ended = self.tick();
        self.with(|history| history.lookups.push(Lookup { edge, key, demanded, shown, began, ended }));
    }

    /// From here on the next key can be looked up.
    pub fn bound(&self, position: Position) {
        self.with(|history| history.bound.push(position));
    }

    /// How many calls were answered, or given up.
    pub fn calls(&self) -> usize {
        self.with(|history| history.calls.len())
    }

    /// The history so far.
    pub fn history(&self) -> History {
        self.with(|history| history.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut History) -> T) -> T {
        work(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
