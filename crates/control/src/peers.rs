//! Other control nodes: Raft's calls over gRPC and mutual TLS.
//!
//! [`Transport`] is the calling half, [`RaftService`] the answering one; [`Registry`] says who is a peer, on both sides of a
//! connection. The bytes of the calls are crate `consensus`'s.
//!
//! **Invariants**
//! 1. A call is answered only for a node whose certificate the CA signed, whose key is the registry's, and which is not revoked; asked
//!    again at every message of a stream. Of the node that is called the same is asked when a connection is made.
//!    A node that has slept does not know who was registered meanwhile. So one that has had no leader for a while takes entries, votes
//!    and snapshots, and nothing else, from a node that it does not know yet, if the CA certified that as a control node
//!    ([`Standing::Vouched`]). Whom it knows as revoked it refuses always.
//! 2. What is meant for another node or cluster is refused, so that an address that was given away does no harm.
//!
//! **Concurrency**: each peer has a connection for entries, one for heartbeats and votes, one for what is forwarded and one for
//! snapshot files, each opened when first used: none can hold up another.
//!
//! **Failure**: a call that fails says whether it can have arrived ([`consensus::PeerError`]); connections heal by themselves.
//!
//! **Left out**: a control node that was registered and revoked again while this one slept is not known as revoked: until its certificate
//! ends, or this node hears of it, it could call this node as a peer.

mod registry;
mod service;
mod stream;
mod transport;

pub(crate) use registry::{PeerBook, Registry, Standing};
pub(crate) use service::RaftService;
pub(crate) use transport::{Transport, failure};

/// The largest message: an append holds about 2 MiB of entries, or one entry of any size.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
