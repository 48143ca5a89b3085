//! The control server: takes writes, seals them, has them replicated, and feeds the edges.
//!
//! [`Control::start`] opens keys and log, waits until the log is replayed, initialises a new cluster, unlocks, and serves gRPC
//! over TLS: the public services ([`services`](self), thin) and the feed. The write path is `write.rs`, top to bottom.
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
//!
//! **Left out**: forwarding to a leader elsewhere, enrolment, REST (later issues).

mod bootstrap;
mod call;
mod caller;
mod core;
mod door;
mod error;
mod feed_link;
mod housekeeping;
mod keys;
mod marks;
mod options;
mod recent;
mod resolve;
mod server;
mod services;
mod show;
mod watermarks;
mod write;

pub use bootstrap::BootstrapError;
pub use keys::UnlockError;
pub use options::{ControlOptions, Observer};
pub use server::{Control, ControlError};
