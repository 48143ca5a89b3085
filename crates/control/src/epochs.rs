//! Key epochs of a running node: opens those that come, drops those that are destroyed, and gives others the envelopes that they lack.
//!
//! A node that joined at a control node which did not hold every epoch, an epoch that was made where there was no root key, more nodes
//! than one command holds envelopes for: all end up with envelopes missing. Whoever holds the epoch adds them, the leader first.

use std::{sync::Arc, time::Duration};

use runtime::health::Check;
use seal::{FileRoot, NodePublicKey, RootProvider as _, SealError};
use state::{
    CommandBody, KekStep, Principal, Recipient, State,
    record::{EnvelopeRecord, KekState},
};
use types::{KekEpoch, KeyDomain};
use wire::{ErrorKind, PublicError};

use crate::{
    bootstrap::own_call,
    core::Core,
    error::{damaged, not_sealed},
    keys,
};

/// How often the state is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Who does not lead looks for missing envelopes this many rounds apart: the leader may be locked.
const ROUNDS_IF_NOT_LEADING: u32 = 60;
/// Everybody looks again after this many rounds, also when nothing seems to have changed.
const ROUNDS_AT_MOST: u32 = 120;
/// Envelopes in one command: about 300 KiB.
const ENVELOPES_AT_A_TIME: usize = 256;

/// What decides whether envelopes can be missing.
type Mark = (u32, Vec<(KeyDomain, KekEpoch, KekState)>);

/// Runs until the node stops; `unlocked` shows whether this node holds the active epoch.
pub(crate) async fn keep(core: Arc<Core>, unlocked: Check) {
    let cancelled = core.tasks.token().clone();
    let (mut complete, mut rounds): (Option<Mark>, u32) = (None, 0);
    let mut was_unlocked = None;
    loop {
        let state = core.consensus.local();
        keys::refresh(&core, &state);
        let is_unlocked = holds_active(&core, &state);
        if was_unlocked != Some(is_unlocked) {
            was_unlocked = Some(is_unlocked);
            if is_unlocked { unlocked.ready() } else { unlocked.not_ready("locked: the log says why") }
        }
        rounds = rounds.saturating_add(1);
        let leads = core.consensus.status().leader == Some(core.node);
        let mark = mark(&state);
        let due = mark != complete && (leads || rounds >= ROUNDS_IF_NOT_LEADING) || rounds >= ROUNDS_AT_MOST;
        if is_unlocked && due {
            rounds = 0;
            match complete_envelopes(&core, &state).await {
                Ok(()) => complete = mark,
                Err(error) => {
                    tracing::warn!(
                        kind = error.kind.name(),
                        reason = error.message,
                        "missing key envelopes were not added; it is tried again"
                    );
                }
            }
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(EVERY) => {}
        }
    }
}

/// Whether the ring has what new values need.
pub(crate) fn holds_active(core: &Core, state: &State) -> bool {
    state.active_kek_epoch(&core.domain).ok().flatten().is_some_and(|active| core.ring.holds(&core.domain, active.n))
}

fn mark(state: &State) -> Option<Mark> {
    let epochs = keys::all_epochs(state).ok()?.into_iter().map(|epoch| (epoch.domain, epoch.n, epoch.state)).collect();
    Some((state.totals().ok()?.nodes, epochs))
}

/// Adds every envelope that is missing and that this node can make.
async fn complete_envelopes(core: &Core, state: &State) -> Result<(), PublicError> {
    let recipients = keys::recipients(state)?;
    for (domain, epoch) in core.ring.epochs() {
        let open = state.kek_epoch(&domain, epoch).map_err(damaged)?.is_some_and(|record| record.state != KekState::Destroyed);
        if !open {
            continue;
        }
        let mut missing = Vec::new();
        for (recipient, key) in &recipients {
            if state.envelope(&domain, epoch, keys::in_keys(*recipient)).map_err(damaged)?.is_none() {
                missing.push((*recipient, key.clone()));
            }
        }
        for portion in missing.chunks(ENVELOPES_AT_A_TIME) {
            let envelopes = sealed(core, &domain, epoch, portion.to_vec()).await?;
            add(core, &domain, epoch, envelopes).await?;
        }
        if let Some(envelope) = missing_for_root(core, state, &domain, epoch)? {
            add(core, &domain, epoch, vec![envelope]).await?;
        }
    }
    Ok(())
}

/// Seals an epoch of the ring for many: off the async threads, since each takes a tenth of a millisecond.
async fn sealed(
    core: &Core,
    domain: &KeyDomain,
    epoch: KekEpoch,
    recipients: Vec<(seal::Recipient, NodePublicKey)>,
) -> Result<Vec<(Recipient, EnvelopeRecord)>, PublicError> {
    let (ring, entropy, domain) = (core.ring.clone(), core.entropy.clone(), domain.clone());
    let work = tokio::task::spawn_blocking(move || {
        let one = |(recipient, key): (seal::Recipient, NodePublicKey)| {
            let bytes = ring.seal_envelope(&*entropy, &domain, epoch, recipient, &key)?;
            Ok((keys::in_keys(recipient), EnvelopeRecord { bytes }))
        };
        recipients.into_iter().map(one).collect::<Result<Vec<_>, SealError>>()
    });
    let stopping = |_| PublicError::new(ErrorKind::Unavailable, "the node is shutting down");
    work.await.map_err(stopping)?.map_err(|error| not_sealed(&error))
}

/// The wrap of an epoch under this node's root key, where that has none yet.
fn missing_for_root(
    core: &Core,
    state: &State,
    domain: &KeyDomain,
    epoch: KekEpoch,
) -> Result<Option<(Recipient, EnvelopeRecord)>, PublicError> {
    let Some(id) = core.enrolment.root_id else { return Ok(None) };
    if state.envelope(domain, epoch, Recipient::Root(id)).map_err(damaged)?.is_some() {
        return Ok(None);
    }
    let Some(root) = core.enrolment.root() else { return Ok(None) };
    let wrapped = core.ring.wrap_kek(&*core.entropy, &root, domain, epoch).map_err(|error| not_sealed(&error))?;
    Ok(Some((Recipient::Root(root.root_key_id()), EnvelopeRecord { bytes: wrapped.as_bytes().to_vec() })))
}

async fn add(core: &Core, domain: &KeyDomain, epoch: KekEpoch, envelopes: Vec<(Recipient, EnvelopeRecord)>) -> Result<(), PublicError> {
    let count = envelopes.len();
    let body = CommandBody::KekEpoch { domain: domain.clone(), epoch, step: KekStep::AddEnvelopes { envelopes } };
    core.propose(&own_call(core), Principal::Node { node: core.node }, body).await?;
    tracing::info!(%domain, %epoch, count, "added key envelopes");
    Ok(())
}

/// The root key file of this node, opened for one use; none where there is none, or it cannot be used.
pub(crate) fn open_root(disk: &dyn seams::Disk, path: &std::path::Path) -> Option<FileRoot> {
    match FileRoot::open(disk, path) {
        Ok(root) => Some(root),
        Err(SealError::RootFile { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the root key file cannot be used");
            None
        }
    }
}
