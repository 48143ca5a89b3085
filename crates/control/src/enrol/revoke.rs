//! Revocation of a node: one command that shuts it out of everything, and what it has to be taken to know.

use seal::{Kek, KekName, SealError};
use state::{
    CommandBody, GrantScope, NewEpoch, NewSignerSet, Operation, State,
    record::{KekState, NodeRecord, NodeRole},
};
use types::{Hash, KekEpoch, KeyDomain, NodeId};
use wire::{ErrorKind, PublicError, parse::IdOrName};

use super::{replace, signers};
use crate::{
    call::Call,
    caller::Caller,
    core::Core,
    error::{damaged, not_sealed},
    keys::{self, NewKek},
};

/// How often the command is made anew because the key epoch or the signer set moved on.
const ATTEMPTS_MAX: u32 = 4;
/// Envelopes that the command brings, control nodes' first; the others get theirs right after it, in portions.
const ENVELOPES_AT_ONCE: usize = 3000;

/// A new epoch, and its key until it is in the ring.
struct Fresh {
    domain: KeyDomain,
    epoch: KekEpoch,
    commitment: [u8; 32],
    kek: Kek,
}

/// What becomes of the certificate authority, whose key a control node can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// It is replaced: somebody may have the key.
    Exposed,
    /// It stays, because the caller answers for it that nobody has the node's disk.
    Kept,
}

/// Revokes a node in the caller's name.
pub(crate) async fn revoke(
    core: &Core,
    call: &Call,
    target: &IdOrName<NodeId, types::NodeName>,
    authority: Authority,
) -> Result<(NodeId, state::Reply), PublicError> {
    if let Some(reply) = core.first_answer(call).await? {
        let (node, _) = core.read(call, |state, _| find(state, target)).await?;
        return Ok((node, reply));
    }
    for _ in 0..ATTEMPTS_MAX {
        let plan = |state: &State, caller: &Caller| {
            caller.require(Operation::RevokeNode, GrantScope::Cluster)?;
            Ok((caller.principal(), state.clone(), find(state, target)?))
        };
        let (principal, state, (node, record)) = core.read(call, plan).await?;
        revocable(core, node, &record)?;
        if authority == Authority::Kept && record.role != NodeRole::Control {
            let message = format!(
                "{} is no control node: it never had the certificate authority's key, and its revocation replaces none",
                record.name
            );
            return Err(PublicError::new(ErrorKind::InvalidArgument, message));
        }
        let (epochs, fresh) = epochs(core, &state, node, &record).await?;
        let signer_set = without(core, &state, node)?;
        let body = match authority {
            Authority::Exposed => CommandBody::RevokeNode { node, epochs, signer_set },
            Authority::Kept => CommandBody::RevokeLostNode { node, epochs, signer_set },
        };
        match core.propose(call, principal, body).await {
            Err(error) if error.kind == ErrorKind::Precondition && moved_on(&core.newest().await?, &state, node)? => continue,
            Err(error) => return Err(error),
            Ok(reply) => {
                for Fresh { domain, epoch, commitment, kek } in fresh {
                    core.ring.install_kek(&domain, epoch, &Hash::from_bytes(commitment), kek).map_err(|error| not_sealed(&error))?;
                }
                // Whoever had the authority's key has it still. What fails here, housekeeping does; where it is kept, there is nothing to do.
                if let Err(error) = replace::exposed(core).await {
                    tracing::warn!(reason = error.message, "the certificate authority was not replaced yet; it is tried again");
                }
                tracing::warn!(%node, name = %record.name, "a node was revoked: it is shut out, and all data keys are replaced");
                return Ok((node, reply));
            }
        }
    }
    Err(PublicError::new(ErrorKind::Busy, "key epochs or signers changed again and again meanwhile: try again"))
}

/// The node of a number or name; of nodes with one name the one in good standing, else the newest.
pub(crate) fn find(state: &State, target: &IdOrName<NodeId, types::NodeName>) -> Result<(NodeId, NodeRecord), PublicError> {
    let (mut found, mut after): (Option<(NodeId, NodeRecord)>, _) = (None, None);
    loop {
        let page = state.nodes(after.as_ref(), state::limits::PAGE_MAX).map_err(damaged)?;
        for (node, record) in page.items {
            if target.id == Some(node) {
                return Ok((node, record));
            }
            let stands = found.as_ref().is_some_and(|(_, other)| other.revoked.is_none());
            if target.name.as_ref() == Some(&record.name) && !stands {
                found = Some((node, record));
            }
        }
        after = page.next;
        if after.is_none() {
            return found.ok_or_else(|| PublicError::new(ErrorKind::NotFound, "no such node; `cinnabar node list` shows all"));
        }
    }
}

/// A control node leaves the log first: revoked while it votes, it would still be counted for majorities and never answer.
fn revocable(core: &Core, node: NodeId, record: &NodeRecord) -> Result<(), PublicError> {
    if record.role == NodeRole::Control && core.consensus.membership().holds(node) {
        let name = &record.name;
        let message = format!("{name} is a member of the consensus: run `cinnabar cluster remove {name}` first, then revoke it");
        return Err(PublicError::new(ErrorKind::Precondition, message));
    }
    Ok(())
}

/// A new epoch for each domain whose active one the node may hold.
async fn epochs(core: &Core, state: &State, node: NodeId, record: &NodeRecord) -> Result<(Vec<NewEpoch>, Vec<Fresh>), PublicError> {
    if record.role == NodeRole::Relay || record.revoked.is_some() {
        return Ok((Vec::new(), Vec::new()));
    }
    let all = keys::all_epochs(state).map_err(damaged)?;
    let mut recipients = keys::recipients(state)?;
    recipients.retain(|(recipient, _)| *recipient != seal::Recipient::Node(node));
    // The recovery key stands last, and must not be left for later.
    if recipients.len() > ENVELOPES_AT_ONCE {
        recipients.drain(ENVELOPES_AT_ONCE - 1..recipients.len() - 1);
    }
    let (mut made, mut fresh) = (Vec::new(), Vec::new());
    for active in all.iter().filter(|epoch| epoch.state == KekState::Active) {
        let newest = all.iter().filter(|epoch| epoch.domain == active.domain).map(|epoch| epoch.n).max();
        let full = || PublicError::new(ErrorKind::Precondition, "the key epochs are at the end of their numbers");
        let epoch = newest.and_then(KekEpoch::next).ok_or_else(full)?;
        let (cluster, entropy, root) = (core.cluster, core.entropy.clone(), core.enrolment.root());
        let (domain, recipients) = (active.domain.clone(), recipients.clone());
        // Thousands of envelopes take a good part of a second.
        let work = tokio::task::spawn_blocking(move || -> Result<_, SealError> {
            let name = KekName { cluster, domain: &domain, epoch };
            let root = root.as_ref().map(|root| root as &dyn seal::RootProvider);
            NewKek::make(&*entropy, root, &name, recipients)
        });
        let stopping = |_| PublicError::new(ErrorKind::Unavailable, "the node is shutting down");
        let NewKek { kek, commitment, envelopes } = work.await.map_err(stopping)?.map_err(|error| not_sealed(&error))?;
        made.push(NewEpoch { domain: active.domain.clone(), epoch, commitment, envelopes });
        fresh.push(Fresh { domain: active.domain.clone(), epoch, commitment, kek });
    }
    Ok((made, fresh))
}

/// The signer set without the node, if it is a signer.
fn without(core: &Core, state: &State, node: NodeId) -> Result<Option<NewSignerSet>, PublicError> {
    let signs = state.signer_set().map_err(damaged)?.is_some_and(|set| set.key_of(node).is_some());
    if !signs {
        return Ok(None);
    }
    signers::next(core, state, |keys| keys.retain(|member| member.node != node)).map(Some)
}

/// Whether a refusal may be for what changed meanwhile, and not for good.
fn moved_on(now: &State, before: &State, node: NodeId) -> Result<bool, PublicError> {
    let epochs = |state: &State| keys::all_epochs(state).map_err(damaged).map(|epochs| epochs.len());
    let signers = |state: &State| state.settings().map_err(damaged).map(|settings| settings.map(|settings| settings.signer_set));
    let stands = now.node(node).map_err(damaged)?.is_some_and(|record| record.revoked.is_none());
    let nodes = |state: &State| state.totals().map_err(damaged).map(|totals| totals.nodes);
    Ok(stands && (epochs(now)? != epochs(before)? || signers(now)? != signers(before)? || nodes(now)? != nodes(before)?))
}
