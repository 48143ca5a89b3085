//! Verification, pure: from a state that is trusted and bytes that are not, to the next state that is trusted.

use std::sync::Arc;

use bytes::Bytes;
use seams::mutation::{self, Mutation};
use state::{ChainError, ChangeSet, CheckpointStatement, Propagated, SealStatement, Signed};
use types::{ClusterId, Position, UnixMillis};

use crate::{Fault, publisher::CHAIN, sign::Trust};

/// A verified batch.
pub(crate) struct Verified {
    pub(crate) state: Propagated,
    pub(crate) trust: Trust,
    pub(crate) seal: Signed<SealStatement>,
}

/// Decodes one change set.
pub(crate) fn change_set(encoded: Bytes) -> Result<Arc<ChangeSet>, Fault> {
    let set = ChangeSet::decode(encoded).map_err(|error| Fault::Malformed { what: "change set", detail: error.to_string() })?;
    Ok(Arc::new(set))
}

/// Applies `sets` to a copy of `state` and holds the result against the seal: chain, then signers, then signature, then both hashes.
/// All or nothing.
pub(crate) fn batch(
    cluster: ClusterId,
    state: &Propagated,
    trust: &Trust,
    sets: &[Arc<ChangeSet>],
    seal: &Bytes,
) -> Result<Verified, Fault> {
    let mut next = state.clone();
    for set in sets {
        let position = set.header.position;
        if set.header.chain != CHAIN {
            return Err(Fault::WrongChain { got: set.header.chain, want: CHAIN });
        }
        next.accept(set).map_err(|error| chain_fault(error, next.position(), position))?;
    }
    next.settle();
    sealed(cluster, next, trust, seal)
}

/// Holds a state against a seal; the signer set in force is the state's own, and must descend from the trusted one.
pub(crate) fn sealed(cluster: ClusterId, state: Propagated, trust: &Trust, seal: &Bytes) -> Result<Verified, Fault> {
    let seal = Signed::<SealStatement>::decode(seal).map_err(|error| Fault::Malformed { what: "seal", detail: error.to_string() })?;
    let statement = &seal.statement;
    let at = statement.position;
    place(cluster, statement)?;
    if at != state.position() {
        return Err(Fault::SealElsewhere { sealed: at, have: state.position() });
    }
    let trust = trust.follow(&state)?;
    trust.verify("seal", at, &seal)?;
    if statement.chain_hash != state.chain_hash() && !mutation::is_on(Mutation::ChainUnchecked) {
        return Err(Fault::SealedChainHash { at });
    }
    if statement.state_root != state.state_root() && !is_unproven() {
        return Err(Fault::SealedStateRoot { at });
    }
    Ok(Verified { state, trust, seal })
}

/// Whether a mutation lets pass what has not the state root that was signed.
fn is_unproven() -> bool {
    mutation::is_on(Mutation::ChainUnchecked) || mutation::is_on(Mutation::SnapshotUnproven)
}

/// Verifies a checkpoint against the state held, whose position it must not exceed.
pub(crate) fn checkpoint(
    cluster: ClusterId,
    state: &Propagated,
    trust: &Trust,
    last: UnixMillis,
    encoded: &Bytes,
) -> Result<Signed<CheckpointStatement>, Fault> {
    let signed = Signed::<CheckpointStatement>::decode(encoded)
        .map_err(|error| Fault::Malformed { what: "checkpoint", detail: error.to_string() })?;
    let seal = &signed.statement.seal();
    let (at, have) = (seal.position, state.position());
    place(cluster, seal)?;
    if at.generation != have.generation {
        return Err(Fault::WrongGeneration { got: at, have });
    }
    trust.verify("checkpoint", at, &signed)?;
    if at > have {
        return Err(Fault::CheckpointAhead { got: at, have });
    }
    if at == have && (seal.chain_hash, seal.state_root) != (state.chain_hash(), state.state_root()) {
        return Err(Fault::CheckpointFork { at });
    }
    if signed.statement.time <= last && !mutation::is_on(Mutation::CheckpointRepeated) {
        return Err(Fault::OldCheckpoint { got: signed.statement.time, have: last });
    }
    Ok(signed)
}

/// What the chain's own refusal is called here.
fn chain_fault(error: ChainError, have: Position, got: Position) -> Fault {
    match error {
        ChainError::Chain { chain, own, .. } => Fault::WrongChain { got: chain, want: own },
        ChainError::Generation { .. } => Fault::WrongGeneration { got, have },
        ChainError::Gap { .. } => Fault::Gap { have, got },
        ChainError::Repeat { .. } => Fault::Repeat { have, got },
        ChainError::Previous { .. } => Fault::WrongPrevious { at: got },
        ChainError::OwnHash { .. } | ChainError::ChangesRoot { .. } => Fault::WrongHash { at: got, detail: error.to_string() },
        other => Fault::BadChangeSet { at: got, detail: other.to_string() },
    }
}

fn place(cluster: ClusterId, statement: &SealStatement) -> Result<(), Fault> {
    if statement.cluster != cluster {
        return Err(Fault::WrongCluster { got: statement.cluster, want: cluster });
    }
    if statement.chain != CHAIN {
        return Err(Fault::WrongChain { got: statement.chain, want: CHAIN });
    }
    Ok(())
}
