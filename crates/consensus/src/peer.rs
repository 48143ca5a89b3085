//! The network between voters, as bytes: what the transport carries and the simulation delays, drops and cuts.

use std::time::Duration;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use types::NodeId;

/// The kinds of call between nodes. The transport carries all of them alike; separate connections for [`PeerRpc::Append`],
/// [`PeerRpc::Snapshot`] and what is forwarded keep a large transfer from delaying heartbeats and votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerRpc {
    /// Entries.
    Append,
    /// An append without entries, which keeps a leader in office.
    Heartbeat,
    /// A request for a vote.
    Vote,
    /// A question whether a vote would be granted.
    PreVote,
    /// A chunk of a snapshot file.
    Snapshot,
    /// Leadership is offered.
    Transfer,
    /// A command for the leader to propose.
    Propose,
    /// How far the asker has to apply before it reads.
    ReadIndex,
    /// A change of the membership, or of the leader.
    Change,
    /// How the members stand, as the leader sees them.
    Progress,
    /// What the wall clock shows.
    Clock,
}

impl PeerRpc {
    /// Its name in metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Heartbeat => "heartbeat",
            Self::Vote => "vote",
            Self::PreVote => "pre_vote",
            Self::Snapshot => "snapshot",
            Self::Transfer => "transfer",
            Self::Propose => "propose",
            Self::ReadIndex => "read_index",
            Self::Change => "change",
            Self::Progress => "progress",
            Self::Clock => "clock",
        }
    }
}

/// Why a call brought no answer. Never taken for a grant or for an acknowledgement.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection: the call did not arrive. The next one waits longer.
    #[error("node {to} cannot be reached: {reason}")]
    Unreachable {
        /// Who was called.
        to: NodeId,
        /// What the transport says.
        reason: String,
    },
    /// The call may have arrived; the answer did not.
    #[error("call to node {to} failed: {reason}")]
    Failed {
        /// Who was called.
        to: NodeId,
        /// What the transport or the peer says.
        reason: String,
    },
    /// The bytes are not a request of this protocol.
    #[error("a malformed {rpc:?} request: {detail}")]
    Malformed {
        /// The kind of call.
        rpc: PeerRpc,
        /// What is wrong with it.
        detail: String,
    },
    /// The voter that was asked has stopped.
    #[error("the voter has stopped")]
    Stopped,
}

/// Calls other voters. The receiving side gives the bytes to [`Consensus::handle`](crate::Consensus::handle) and sends back
/// what that returns, after it has checked by the connection that the caller is a voter.
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends `request` and waits for the answer, at most `deadline`: a call that hangs would hold up replication, so it is
    /// also cut from outside. Dropping the future gives the call up.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`] or [`PeerError::Failed`]; a peer's own refusal to handle the call counts as failed.
    fn call(
        &self,
        to: NodeId,
        address: &str,
        rpc: PeerRpc,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Bytes of a snapshot file in one call, at least one: small enough to be cut by a deadline, large enough to fill a pipe.
    fn snapshot_chunk_bytes(&self) -> usize {
        512 << 10
    }

    /// Whether [`PeerTransport::appends`] is there. Without it one append is under way at a time.
    fn pipelines(&self) -> bool {
        false
    }

    /// Sends requests of [`PeerRpc::Append`] one after the other without waiting for answers, and gives the answers in the same
    /// order; the receiving side is [`Consensus::handle_appends`](crate::Consensus::handle_appends). The stream ends with the
    /// first error. An answer that is due for longer than `deadline` is one: a lost answer must not hold up what follows it.
    /// Dropping the stream gives up what is under way.
    fn appends(
        &self,
        to: NodeId,
        _address: &str,
        _requests: BoxStream<'static, Bytes>,
        _deadline: Duration,
    ) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let error = PeerError::Unreachable { to, reason: "this transport has no streams".to_owned() };
        Box::pin(futures::stream::once(async move { Err(error) }))
    }
}

/// The transport of a voter that is alone: it never has anybody to call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unconnected;

impl PeerTransport for Unconnected {
    fn call(
        &self,
        to: NodeId,
        _address: &str,
        _rpc: PeerRpc,
        _request: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        Box::pin(async move { Err(PeerError::Unreachable { to, reason: "this voter has no transport to peers".to_owned() }) })
    }
}
