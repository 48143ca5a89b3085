//! Where services ask: gRPC on a UNIX socket and over TLS, and lookups in frames on that socket; the same at an edge and at a control node
//! that serves lookups.
//!
//! [`Doors::bind`] takes the addresses before anything is served, [`Offer`] says what is served, and [`Doors::open`] serves it. A layer
//! turns what the transport proved ([`runtime::listen::Peer`]) into [`lookup::Connection`]; tokens are looked at by the services.
//!
//! **Invariants**
//! 1. Who is at the other end comes from the transport: the kernel's word for a uid, a verified certificate. Nothing that a peer sends
//!    becomes a [`lookup::Connection`].
//! 2. A node's certificate is nobody's that reads.
//!
//! **Concurrency**: a task for each door. Cancelling the token of the tasks refuses new calls, lets open ones end, and cuts after
//! three seconds what its client left open.

mod bind;
mod grpc;
mod offer;
mod rules;
mod socket;

pub use bind::{BindError, Doors, bind_tcp};
pub use offer::{LookupLimits, Offer};
pub use rules::authenticator;
