//! What can be wrong with what a follower receives or has stored, and what stops the feed itself.

use seams::TableError;
use types::{ChainId, ClusterId, Generation, NodeId, Position, UnixMillis};

/// A reason to refuse what came over a stream or from a disk. The answer to each is the same: keep the last good root, drop the
/// stream or set the file aside, and sync again. Each has a name of its own, so that an alarm says what happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are no message, change set, seal or record of a known format.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// What they should have been.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// A message that may not come at this moment of the protocol.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// More was sent than one step may hold.
    #[error("{what} of {got} exceeds the bound of {max}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How much there was.
        got: u64,
        /// How much is allowed.
        max: u64,
    },
    /// The state that would follow does not fit into the edge's memory. The last one that did stays in service.
    #[error("the state at {at} has {got} bytes, this edge may hold {max}: raise limits.index_bytes_max, or move to a larger node")]
    IndexFull {
        /// The position that does not fit.
        at: Position,
        /// Its bytes.
        got: u64,
        /// How many are allowed.
        max: u64,
    },
    /// Signed for another cluster.
    #[error("it is signed for cluster {got}, this is {want}")]
    WrongCluster {
        /// The cluster it names.
        got: ClusterId,
        /// Ours.
        want: ClusterId,
    },
    /// Of another chain than the one followed.
    #[error("it belongs to chain {got}, followed is {want}")]
    WrongChain {
        /// The chain it names.
        got: ChainId,
        /// Ours.
        want: ChainId,
    },
    /// Of another generation: only a recovery signed by the offline key may change it.
    #[error("{got} is of another generation than {have}; only a signed recovery of the control plane may change it")]
    WrongGeneration {
        /// The position it names.
        got: Position,
        /// Where we stand.
        have: Position,
    },
    /// A generation that nothing signed by the recovery key stands for.
    #[error("generation {generation} is not trusted: {detail}")]
    UntrustedGeneration {
        /// The generation.
        generation: Generation,
        /// What is missing.
        detail: String,
    },
    /// The other side follows another generation than we do, and has nothing to show for it; or it was replaced by a newer one.
    #[error("the other side is of another generation than {at} ({detail}); what is held stays")]
    OtherGeneration {
        /// Our position.
        at: Position,
        /// What it said.
        detail: String,
        /// How long to stay away from it.
        retry_after_ms: u64,
    },
    /// A change set is missing: the next one is further than one on.
    #[error("gap: expected revision after {have}, got {got}")]
    Gap {
        /// Where we stand.
        have: Position,
        /// The position that came.
        got: Position,
    },
    /// A change set that is already there came again.
    #[error("repeat: {got} came again, the chain stands at {have}")]
    Repeat {
        /// Where we stand.
        have: Position,
        /// The position that came.
        got: Position,
    },
    /// A change set names another predecessor than the one we hold.
    #[error("wrong previous hash at {at}: the chain does not continue what is here")]
    WrongPrevious {
        /// The position of the change set.
        at: Position,
    },
    /// A change set's bytes do not have the hashes they state, or its changes not the Merkle root.
    #[error("wrong hash at {at}: {detail}")]
    WrongHash {
        /// The position of the change set.
        at: Position,
        /// Which hash.
        detail: String,
    },
    /// A change set that the rules of the chain refuse for another reason.
    #[error("change set refused at {at}: {detail}")]
    BadChangeSet {
        /// The position of the change set.
        at: Position,
        /// Why.
        detail: String,
    },
    /// Change sets without a seal.
    #[error("unsigned: change sets after {have} came without a seal")]
    Unsigned {
        /// Where we stand.
        have: Position,
    },
    /// The signer is not in the signer set in force.
    #[error("{what} at {at} is signed by node {signer}, who is no signer of set {set}")]
    UnknownSigner {
        /// Seal or checkpoint.
        what: &'static str,
        /// Its position.
        at: Position,
        /// Who claims to have signed.
        signer: NodeId,
        /// The version of the set in force.
        set: u32,
    },
    /// The signer is in the signer set in force, but its node is revoked.
    #[error("{what} at {at} is signed by node {signer}, which is revoked")]
    RevokedSigner {
        /// Seal or checkpoint.
        what: &'static str,
        /// Its position.
        at: Position,
        /// Who claims to have signed.
        signer: NodeId,
    },
    /// Signed under another version of the signer set than the state at that position holds.
    #[error("{what} at {at} is signed under signer set {got}, in force is {want}")]
    WrongSignerSet {
        /// Seal or checkpoint.
        what: &'static str,
        /// Its position.
        at: Position,
        /// The version it names.
        got: u32,
        /// The version in force.
        want: u32,
    },
    /// The signature does not verify.
    #[error("{what} at {at}: the signature of node {signer} does not verify")]
    BadSignature {
        /// Seal or checkpoint.
        what: &'static str,
        /// Its position.
        at: Position,
        /// Who claims to have signed.
        signer: NodeId,
    },
    /// The signer set does not descend from the pinned one.
    #[error("signer set {version} is not trusted: {detail}")]
    UntrustedSignerSet {
        /// Its version.
        version: u32,
        /// What is missing.
        detail: String,
    },
    /// The seal is for another position than the last change set's.
    #[error("the seal is for {sealed}, the change sets end at {have}")]
    SealElsewhere {
        /// The position sealed.
        sealed: Position,
        /// The position reached.
        have: Position,
    },
    /// The chain hash reached is not the sealed one.
    #[error("the chain hash at {at} is not the sealed one")]
    SealedChainHash {
        /// The position.
        at: Position,
    },
    /// The state root reached is not the sealed one.
    #[error("the state root at {at} is not the sealed one")]
    SealedStateRoot {
        /// The position.
        at: Position,
    },
    /// A checkpoint that is older than one already seen.
    #[error("checkpoint of {} ms is not newer than the last, of {} ms", got.get(), have.get())]
    OldCheckpoint {
        /// Its time.
        got: UnixMillis,
        /// The time of the last.
        have: UnixMillis,
    },
    /// A checkpoint for a position that was not sent.
    #[error("checkpoint for {got}, the chain here stands at {have}")]
    CheckpointAhead {
        /// Its position.
        got: Position,
        /// Where we stand.
        have: Position,
    },
    /// A checkpoint names another chain hash or state root at the position where we stand.
    #[error("checkpoint at {at} names another state than the one held: a fork")]
    CheckpointFork {
        /// The position.
        at: Position,
    },
    /// A chunk of a snapshot is not proven to the sealed state root: a record is missing, changed or added.
    #[error("snapshot chunk {chunk} at {at} is not proven to the sealed state root: {detail}")]
    SnapshotChunk {
        /// The snapshot's position.
        at: Position,
        /// The chunk, from 0.
        chunk: u32,
        /// What does not fit.
        detail: String,
    },
    /// The snapshot as a whole does not have the sealed state root or chain hash.
    #[error("snapshot at {at}: {detail}")]
    SnapshotWhole {
        /// The snapshot's position.
        at: Position,
        /// What does not fit.
        detail: String,
    },
    /// A snapshot that would take the edge back.
    #[error("snapshot at {got} would go back from {have}")]
    SnapshotBack {
        /// The snapshot's position.
        got: Position,
        /// Where we stand.
        have: Position,
    },
    /// The other side knows another history at our position.
    #[error("fork: the other side has another hash at {at} ({detail}); nothing is applied until an operator decides")]
    Fork {
        /// Our position.
        at: Position,
        /// What it said.
        detail: String,
        /// How long to stay away from it.
        retry_after_ms: u64,
    },
}

impl Fault {
    /// The fault's name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Protocol(_) => "protocol",
            Self::TooLarge { .. } => "too_large",
            Self::IndexFull { .. } => "index_full",
            Self::WrongCluster { .. } => "wrong_cluster",
            Self::WrongChain { .. } => "wrong_chain",
            Self::WrongGeneration { .. } => "wrong_generation",
            Self::UntrustedGeneration { .. } => "untrusted_generation",
            Self::OtherGeneration { .. } => "other_generation",
            Self::Gap { .. } => "gap",
            Self::Repeat { .. } => "repeat",
            Self::WrongPrevious { .. } => "wrong_previous",
            Self::WrongHash { .. } => "wrong_hash",
            Self::BadChangeSet { .. } => "bad_change_set",
            Self::Unsigned { .. } => "unsigned",
            Self::UnknownSigner { .. } => "unknown_signer",
            Self::RevokedSigner { .. } => "revoked_signer",
            Self::WrongSignerSet { .. } => "wrong_signer_set",
            Self::BadSignature { .. } => "bad_signature",
            Self::UntrustedSignerSet { .. } => "untrusted_signer_set",
            Self::SealElsewhere { .. } => "seal_elsewhere",
            Self::SealedChainHash { .. } => "sealed_chain_hash",
            Self::SealedStateRoot { .. } => "sealed_state_root",
            Self::OldCheckpoint { .. } => "old_checkpoint",
            Self::CheckpointAhead { .. } => "checkpoint_ahead",
            Self::CheckpointFork { .. } => "checkpoint_fork",
            Self::SnapshotChunk { .. } => "snapshot_chunk",
            Self::SnapshotWhole { .. } => "snapshot_whole",
            Self::SnapshotBack { .. } => "snapshot_back",
            Self::Fork { .. } => "fork",
        }
    }

    /// Whether a person must look even if the next stream heals it: somebody forged, or two histories exist.
    pub const fn alarms(&self) -> bool {
        !matches!(
            self,
            Self::Gap { .. } | Self::Repeat { .. } | Self::Protocol(_) | Self::OldCheckpoint { .. } | Self::CheckpointAhead { .. }
        )
    }
}

/// What stops an operation of the feed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// What came or was stored is refused; the last good root stays.
    #[error("refused ({})", .0.name())]
    Fault(#[from] Fault),
    /// The stream ended.
    #[error("the stream to {peer} ended: {reason}")]
    Closed {
        /// The other side.
        peer: String,
        /// Why, as far as known.
        reason: String,
    },
    /// Neither a batch nor a checkpoint came for too long.
    #[error("nothing came from {peer} for {silent_ms} ms; the stream is dropped")]
    Silent {
        /// The other side.
        peer: String,
        /// How long.
        silent_ms: u64,
    },
    /// The other side refused the subscription.
    #[error("{peer} refused the subscription ({kind}): {message}")]
    Refused {
        /// The other side.
        peer: String,
        /// Its kind of refusal, by name.
        kind: &'static str,
        /// What it said.
        message: String,
        /// How long it asks to wait.
        retry_after_ms: u64,
    },
    /// No stream could be opened.
    #[error("cannot reach the control plane")]
    Dial(#[source] seams::DialError),
    /// The edge log failed. What is durable is unknown: the process must stop and recover.
    #[error("the edge log failed while it {operation}")]
    Log {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table failed; it is set aside and rebuilt.
    #[error("the table failed while it {operation}")]
    Table {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: TableError,
    },
    /// A snapshot file could not be written or read.
    #[error("snapshot file: {operation} failed")]
    Snapshot {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the feed's own could not be written or read.
    #[error("{operation} failed")]
    Disk {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Blocking work was lost: the thread that did it panicked or was cancelled.
    #[error("the follower's work was lost: its thread ended early")]
    Lost,
    /// The process is stopping.
    #[error("stopping")]
    Stopping,
}

impl FeedError {
    /// Whether the follower can go on in this process after dropping the stream.
    pub const fn retryable(&self) -> bool {
        !matches!(self, Self::Log { .. } | Self::Disk { .. } | Self::Table { .. } | Self::Lost | Self::Stopping)
    }

    /// How long the other side asks to be left alone.
    pub const fn retry_after_ms(&self) -> u64 {
        match self {
            Self::Refused { retry_after_ms, .. }
            | Self::Fault(Fault::Fork { retry_after_ms, .. } | Fault::OtherGeneration { retry_after_ms, .. }) => *retry_after_ms,
            _ => 0,
        }
    }
}
