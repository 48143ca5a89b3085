//! The typed client of a Cinnabar cluster: writes and metadata at control nodes, lookups at edges.
//!
//! A [`Client`] is made from a [`Config`] and connects at its first call, over a UNIX socket or over TLS 1.3 that trusts the
//! cluster's CA alone. Every call has a deadline and a request id. A call that fails with a kind that may pass is sent again,
//! with growing, jittered pauses, at most so often as [`Retries`] says, and only if that cannot do a thing twice: reads always,
//! changes under the request id that the server remembers, calls that return a token only if the caller chose that id.
//! Over TLS it follows when the cluster replaces its certificate authority, so a program runs on through any number of replacements.
//! Lookups come as [`Client::get`], [`Client::get_many`], [`Client::watch`] and the pipelined [`Client::stream`].
//!
//! **Invariants**
//! 1. A token is never shown: not in `Debug`, not in an error. It is sent over TLS or a UNIX socket only.
//! 2. Nothing is sent after its deadline, and nothing that could be done twice is sent twice.
//! 3. An error keeps the exact kind and the request id that the server gave.
//!
//! **Concurrency**: a [`Client`] is cheap to clone and may be shared. Dropping a call's future gives up on the reply; a change
//! may have been made then, and the same request id finds out.

mod audit;
mod calls;
mod client;
mod config;
mod connect;
mod error;
mod frames;
mod lookup;
mod retry;
mod server;
mod snapshots;
#[cfg(test)]
mod tests;
mod trust;

pub use audit::AuditParts;
pub use client::Client;
pub use config::{Config, Identity, Tls, Token};
pub use error::{ClientError, ConfigError};
pub use frames::Frames;
pub use lookup::{Replies, Requests, Watch};
pub use retry::Retries;
pub use snapshots::SavedParts;
pub use trust::{trust_pem, trust_version};
pub use wire::{ErrorKind, PublicError, v1};
