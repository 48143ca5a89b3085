//! Propagation, both halves: what a control node does to stream its chain of change sets, and what an edge does to follow it.
//!
//! Control half: consensus hands each applied change set to the [`Publisher`], which keeps the newest ones in a [`Window`], signs one
//! seal per tip and one checkpoint per tick, however many edges there are, and wakes them. [`serve_subscriber`] is one edge's
//! stream: handshake, then the tail from the window, or a snapshot ([`Cut`]) and then the tail. [`Acks`] keeps what each edge
//! reports as durable, and receipts wait on it.
//!
//! Edge half: [`Core`] is the synchronous heart: verify, append and fdatasync, swap the root, acknowledge. [`Follower`] is the loop
//! around it: dial, present what it has, collect what waits, hand it to the core off the async threads, reconnect with jitter.
//!
//! **Invariants**
//! 1. Nothing is published that no verified seal of the control plane covers (P4): [`Core`] makes a `Root` only from a state whose
//!    chain hash and state root equal those of a seal verified under a signer set that descends from the pinned one.
//! 2. Nothing is published or acknowledged before it is durable in the edge log or in a snapshot file (P8).
//! 3. Positions that are published never go back, restarts and damage included (P3): see [`Mark`].
//! 4. A batch that fails any check changes nothing, has a name ([`Fault::name`]), and costs the stream (P5).
//! 5. `applied` and `ticked` never wait for an edge: a slow one falls out of the window and gets a snapshot.
//! 6. Nothing here can open a record.
//!
//! **Concurrency**: the publisher's two locks are held for moves of pointers and for one signature; each subscriber is one task of
//! two loops (down and up), each follower one task. Time, randomness, disks and streams come through `seams`, and
//! blocking work through [`Offload`], so all of it runs in one thread under a seed.
//!
//! **Failure**: [`Fault`] is what a follower refuses (drop the stream, resync); [`FeedError`] is what stops an operation.
//!
//! **Left out**: relays, stages, subsets, threshold signatures over seals. The formats carry what they need.

mod acks;
mod block;
mod changes;
mod error;
mod follower;
mod head;
mod marks;
mod publisher;
mod serve;
mod sign;
mod snapshot;
mod window;

pub use acks::{AckRow, Acks, AcksOptions, Liveness, Report, StreamClaim, Via};
pub use changes::{Changes, Changing};
pub use error::{Fault, FeedError};
pub use follower::{
    Base, CheckpointSeen, Core, CoreOptions, CoreParts, FORMS, Follower, FollowerOptions, FollowerParts, FollowerStatus, Form, Handled,
    Inline, KeyReceiver, LARGE_VALUE_KEY, Mark, NoKeys, Offload, OpenTable, Publish, SnapshotJob, SyncState, Synced, Tables,
};
pub use marks::{MarksError, decode_marks, encode_marks};
pub use publisher::{Handover, NoHandover, Publisher, PublisherOptions, PublisherParts};
pub use serve::{ServeEnd, Session, serve_subscriber};
pub use sign::{
    Anchor, SigningKey, SigningKeyError, anchor_by_recovery_key, sign_signer_set, verifies, verify_generation, verify_signed,
    verify_successor,
};
pub use snapshot::{Cut, SnapshotBuilder};
pub use window::{After, EncodedSet, SealPoint, Tail, Window, WindowLimits};
