//! The signer set follows the membership: a control node that is taken out signs no more, and signs again when it is added again.

use state::{
    CommandBody, NewSignerSet, Principal, State,
    record::{MemberKey, SignerSetRecord},
};
use types::NodeId;
use wire::{ErrorKind, PublicError};

use crate::{call::Call, core::Core, error::damaged};

/// How often a set is made anew because another one came first.
const ATTEMPTS_MAX: u32 = 4;

/// The signer set after the one in force, signed by this node. One signature is what sets ask for today.
pub(crate) fn next(core: &Core, state: &State, change: impl FnOnce(&mut Vec<MemberKey>)) -> Result<NewSignerSet, PublicError> {
    let unavailable = |message: &str| PublicError::new(ErrorKind::Unavailable, message);
    let set = state.signer_set().map_err(damaged)?.ok_or_else(|| unavailable("the cluster has no signer set yet"))?;
    if set.threshold != 1 || set.key_of(core.node).is_none() {
        return Err(unavailable("this control node may not sign the next signer set by itself: ask another"));
    }
    let version = set.version.checked_add(1).ok_or_else(|| unavailable("the signer sets are at the end of their numbers"))?;
    let mut keys = set.keys;
    change(&mut keys);
    keys.sort_by_key(|member| member.node);
    let mut next = SignerSetRecord { version, threshold: 1, keys, signatures: Vec::new() };
    next.signatures = vec![core.publisher.sign_signer_set(&next)];
    Ok(NewSignerSet { version, threshold: next.threshold, keys: next.keys, signatures: next.signatures })
}

/// Adopts a set without a node that was taken out. What fails is logged: the revocation of the node does it, too.
pub(crate) async fn leave(core: &Core, call: &Call, node: NodeId) {
    let without = |set: &SignerSetRecord| set.key_of(node).map(|key| MemberKey { node, key: *key });
    let changed = adopt(core, call, |_, set| Ok(without(set)), |keys, gone| keys.retain(|member| *member != gone)).await;
    if let Err(error) = changed {
        tracing::warn!(%node, reason = error.message, "a node that was removed is still a signer: revoke it");
    }
}

/// Adopts a set with a node that signed before and was taken out. One that has just joined is a member of it already.
pub(crate) async fn come(core: &Core, call: &Call, node: NodeId) {
    let lacking = |state: &State, set: &SignerSetRecord| {
        if set.key_of(node).is_some() {
            return Ok(None);
        }
        for version in (1..set.version).rev() {
            let key = state.signer_set_of(version).map_err(damaged)?.and_then(|before| before.key_of(node).copied());
            if let Some(key) = key {
                return Ok(Some(MemberKey { node, key }));
            }
        }
        Ok(None)
    };
    if let Err(error) = adopt(core, call, lacking, Vec::push).await {
        tracing::warn!(%node, reason = error.message, "a member that was added is no signer: it feeds no edge until it is added again");
    }
}

/// Proposes the next set, if `wanted` finds a member that has to go or come.
async fn adopt(
    core: &Core,
    call: &Call,
    wanted: impl Fn(&State, &SignerSetRecord) -> Result<Option<MemberKey>, PublicError>,
    change: impl Fn(&mut Vec<MemberKey>, MemberKey),
) -> Result<(), PublicError> {
    for _ in 0..ATTEMPTS_MAX {
        let state = core.newest().await?;
        let Some(set) = state.signer_set().map_err(damaged)? else { return Ok(()) };
        let Some(member) = wanted(&state, &set)? else { return Ok(()) };
        let set = next(core, &state, |keys| change(keys, member))?;
        match core.propose(call, Principal::Node { node: core.node }, CommandBody::SetSignerSet { set }).await {
            Err(error) if error.kind == ErrorKind::Precondition => continue,
            result => return result.map(drop),
        }
    }
    Err(PublicError::new(ErrorKind::Busy, "the signer set changed again and again meanwhile"))
}
