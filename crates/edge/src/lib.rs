//! The edge server: follows the control plane's chain, keeps a full sealed copy, and serves lookups from it.
//!
//! [`Edge::start`] builds the parts and returns when they run: [`feed::Follower`] recovers the last good state from disk and
//! follows; what it publishes goes to [`lookup::Serving`], and the keys that come with the stream to the key ring (`keys.rs`); the doors
//! (`doors.rs`) are gRPC on a UNIX socket, gRPC over mutual TLS, and health and metrics over HTTP. Nothing here is global: several
//! edges share a process in `cinnabar dev` and in tests.
//!
//! A node that is revoked, by the chain or by a control node that refuses its stream, drops its keys and their envelopes and marks its data
//! folder (`revoked.rs`): it answers only status and health from then on, after a restart too.
//!
//! **Invariants**
//! 1. The doors open before the control plane is reached, and stay open without it (P5).
//! 2. A door answers nothing but health to who proves nothing.
//! 3. What a part lost (table, log, stream, keys) is said in status, metrics and readiness; what is still good is served.
//!
//! **Failure**: only what makes serving impossible from the start (no folder, a port taken, a key file that does not fit) stops [`Edge::start`].
//!
//! **Left out**: gRPC reflection (control nodes have it), relaying, plain HTTP lookups on the socket.

mod anchor;
mod dial;
mod doors;
mod edge;
mod error;
mod follow;
mod glue;
mod keys;
mod options;
mod revoked;
mod status;
mod table;
mod upstream;

pub use anchor::load_anchor;
pub use edge::{Addresses, Edge};
pub use error::EdgeError;
pub use keys::ensure_node_key;
pub use options::{EdgeOptions, Observer};
pub use status::EdgeStatus;
