//! The control server: takes writes, seals them, has them replicated, and feeds the edges.
//!
//! [`Control::start`] opens keys and log and the port; `bring_up.rs` waits until the log is confirmed by a majority, initialises a new
//! cluster, unlocks, and lets the public in: the services ([`services`](self), thin) and the feed. Any node takes any request: what it
//! has sealed goes to the leader (`peers.rs`). The write path is `write.rs`, top to bottom.
//!
//! **Invariants**
//! 1. A value is sealed before it is proposed: the log, and all that follows from it, holds ciphertext only.
//! 2. An operation takes a `Caller`, which only authentication makes; `apply` judges each command again.
//! 3. Metadata is read from the newest state, or the answer is `unavailable`: absence is never claimed without a majority.
//! 4. Accepted work is spawned and tracked: a client that hangs up cuts nothing between propose and reply.
//! 5. Without a token or a node's certificate nothing answers but health.
//!
//! **Failure**: what makes serving impossible stops [`Control::start`] ([`ControlError`]). A voter that stops later shows in
//! [`Control::stopped`], readiness and the log.

mod audit;
mod bootstrap;
mod bring_up;
mod call;
mod caller;
mod clock;
mod core;
mod cuts;
mod door;
mod enrol;
mod epochs;
mod error;
mod exposure;
mod feed_link;
mod glue;
mod hand_over;
mod housekeeping;
mod keys;
mod limits;
mod lookups;
mod majority;
mod marks;
mod operations;
mod options;
mod peers;
mod permissions;
mod recent;
mod resolve;
mod rest;
mod serve;
mod server;
mod services;
mod show;
pub mod snapshots;
mod watermarks;
mod write;

pub use audit::exported as exported_audit_entry;
pub use bootstrap::BootstrapError;
pub use keys::UnlockError;
pub use options::{ControlOptions, Observer};
pub use permissions::{Need, RPCS};
pub use rest::forms::{Form as RestForm, Read as RestRead, forms as rest_forms};
pub use server::{Control, ControlError};
