//! The lookup path: a consumer asks the node beside it for what is bound to it, and gets it from local memory.
//!
//! [`Serving`] holds the one root that readers see, and its age. [`Authenticator`] turns what a connection proves, and a
//! bearer token, into a [`Caller`]. [`Lookup`] answers a caller from the root; `path.rs` is that path from top to bottom.
//! [`Service`] offers it over gRPC.
//!
//! **Invariants**
//! 1. One lookup, one `get_many` and one event of a watch read one root (P3).
//! 2. Nothing is opened before the binding, the consumer and the scope were found good in that same root (P6).
//! 3. What this copy does not hold is called absent only when the copy is whole; a node without a root answers "not synced" (P5).
//! 4. A plaintext is handed out as [`seal::Plaintext`] and copied once, into the reply (P2's named exception).
//!
//! **Concurrency**: readers take no lock that a writer holds for long; the root is swapped by one atomic store. Nothing awaits but
//! waiting for a position, and streams.
//!
//! **Failure**: every refusal is a [`LookupError`], whose kinds say what the caller should do. Nothing here stops the node.
//!
//! **Left out**: how a root gets here (`feed`), sockets and TLS (`edge`, `runtime`), deployments and worker versions.

mod age;
mod caller;
mod counters;
mod credential;
mod error;
mod path;
mod served;
mod service;
mod serving;
mod stages;
mod watch;

pub use age::{Age, Checkpoint};
pub use caller::{Authenticator, Caller, Connection, PeerPattern, PeerRule, PeerRules};
pub use credential::Credential;
pub use error::LookupError;
pub use path::{Found, Lookup};
pub use served::{Served, ServedRow};
pub use service::{FrameLimits, HeldReplies, Service, ServiceOptions};
pub use serving::{Bounds, Serving};
pub use stages::{Stage, Stages};
pub use watch::Watch;
pub use wire::parse::{ConsumerTarget, FreshnessTarget, WantedTarget, Which};

#[cfg(test)]
mod tests;
