//! The edge half: follow the chain, verify everything, serve what is durable.
//!
//! [`Core`] is the synchronous heart and reads from top to bottom in `core.rs`; [`Follower`] is the loop around it in `run.rs`;
//! what happens at start is in `recovery.rs`. Here are the seams between them and the edge: where roots go ([`Publish`]), where key
//! envelopes go ([`KeyReceiver`]), where tables are opened ([`Tables`]) and where blocking work is done ([`Offload`]).

mod core;
mod forms;
mod mark;
mod mutated;
mod parts;
pub(crate) mod past;
mod record;
mod recovery;
mod run;
mod table;
mod turns;
mod values;
mod verify;

use std::sync::Arc;

use seams::{Table, TableError};
use state::Root;
use store::table::Visit;
use types::{Position, UnixMillis};
use wire::internal as proto;

pub(crate) use self::core::Held;
pub use self::{
    core::{Base, Core, Handled, Synced},
    forms::{FORMS, Form},
    mark::Mark,
    parts::{CoreOptions, CoreParts},
    recovery::SnapshotJob,
    run::{Follower, FollowerOptions, FollowerParts, FollowerStatus, SyncState},
    values::LARGE_VALUE_KEY,
};
use crate::FeedError;

/// Where verified and durable roots go: readers see what was published last.
pub trait Publish: Send + Sync + 'static {
    /// A root to serve from now on. Positions never go back from one call to the next.
    fn publish(&self, root: Arc<Root>);

    /// A checkpoint from which age counts.
    fn checkpoint(&self, seen: CheckpointSeen);

    /// A position was verified in memory; it is not durable yet and nobody sees it. For measuring.
    fn verified(&self, _position: Position) {}
}

/// A verified checkpoint: the control plane was alive at `time` and had nothing newer than what is held here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSeen {
    /// The position it vouches for.
    pub position: Position,
    /// The control plane's time.
    pub time: UnixMillis,
    /// None when it has just come. After a restart, the highest wall time that was persisted before: a wall clock behind it
    /// proves nothing, and the age is unknown.
    pub restored_wall: Option<UnixMillis>,
}

/// Where key envelopes go. They pass through unread.
pub trait KeyReceiver: Send + Sync + 'static {
    /// Envelopes for this node came. Must not block for long.
    fn received(&self, envelopes: Vec<proto::Envelope>);

    /// The epochs whose keys are already held.
    fn holds(&self) -> Vec<proto::KeyEpoch>;
}

/// Takes no keys: for relays, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl KeyReceiver for NoKeys {
    fn received(&self, _envelopes: Vec<proto::Envelope>) {}

    fn holds(&self) -> Vec<proto::KeyEpoch> {
        Vec::new()
    }
}

/// A table that was opened.
pub struct OpenTable {
    /// The table.
    pub table: Box<dyn Table>,
    /// Why it is empty, and what was visited void; none when it is as it was left.
    pub damage: Option<TableError>,
}

/// Where the table is opened.
pub trait Tables: Send + Sync + 'static {
    /// Opens what is there, or an empty one, and shows all of it to `visit`, by rising key. What is damaged, and what `visit` refuses, is
    /// moved aside, and an empty table opened in its place.
    ///
    /// # Errors
    /// [`TableError`]: not even an empty one can be opened. The follower then runs on its log and snapshot files.
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError>;

    /// Moves what is there aside, and opens an empty one. The one opened before has been dropped.
    ///
    /// # Errors
    /// [`TableError`]: as of [`Tables::open`].
    fn reset(&mut self) -> Result<Box<dyn Table>, TableError>;
}

/// Runs blocking work off the async threads; in simulation, at once.
pub trait Offload: Send + Sync + 'static {
    /// Runs `work` once, or drops it when the process stops.
    fn run(&self, work: Box<dyn FnOnce() + Send>);
}

/// Runs the work in the caller: for simulation and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Offload for Inline {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// Runs `work` where `offload` says and waits for its result.
pub(crate) async fn run_blocking<T: Send + 'static>(
    offload: &dyn Offload,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FeedError> {
    let (done, result) = tokio::sync::oneshot::channel();
    offload.run(Box::new(move || {
        // The waiter may have been dropped; then nobody wants the result.
        let _ = done.send(work());
    }));
    result.await.map_err(|_| FeedError::Lost)
}
