//! KEK epochs: announced, active, retired, destroyed.

use types::{KekEpoch, KeyDomain};

use super::{Judged, View, deks::uses_of, refuse};
use crate::{
    KekStep, Keyspace, NewEpoch, Prefix, Recipient, RefusalKind, ReplyBody, TypedKey,
    limits::{ENVELOPES_MAX, OPEN_EPOCHS_MAX, WRAP_BYTES_MAX},
    record::{EnvelopeRecord, KekEpochRecord, KekState, NodeRecord, NodeRole},
};

pub(super) fn step(view: &mut View<'_>, domain: &KeyDomain, epoch: KekEpoch, step: &KekStep) -> Judged<ReplyBody> {
    match step {
        KekStep::Announce { commitment, envelopes } => {
            let new = NewEpoch { domain: domain.clone(), epoch, commitment: *commitment, envelopes: envelopes.clone() };
            announce(view, &new, KekState::Announced)?;
        }
        KekStep::AddEnvelopes { envelopes } => {
            epoch_in(view, domain, epoch, &[KekState::Announced, KekState::Active, KekState::Retired])?;
            put_envelopes(view, domain, epoch, envelopes)?;
        }
        KekStep::Activate => {
            let record = epoch_in(view, domain, epoch, &[KekState::Announced])?;
            activate(view, record)?;
        }
        // An active epoch retires when another becomes active, so that there is always one to wrap under.
        KekStep::Retire => {
            let record = epoch_in(view, domain, epoch, &[KekState::Announced])?;
            put(view, KekEpochRecord { state: KekState::Retired, ..record });
        }
        KekStep::Destroy => destroy(view, domain, epoch)?,
    }
    Ok(ReplyBody::KekEpochMoved)
}

/// Makes the next epoch of a domain.
pub(super) fn announce(view: &mut View<'_>, new: &NewEpoch, state: KekState) -> Judged<()> {
    let (mut newest, mut pending) = (None, None);
    let epochs = Prefix::kek_epochs(&new.domain);
    for (key, _) in view.state.scan(&epochs) {
        if let Ok(key @ TypedKey::KekEpoch { .. }) = key.decode()
            && let Some(record) = view.read::<KekEpochRecord>(key)?
        {
            newest = Some(record.n);
            pending = pending.or((record.state == KekState::Announced).then_some(record.n));
        }
    }
    let next = newest.map_or(Some(KekEpoch::new(1)), KekEpoch::next);
    if Some(new.epoch) != next {
        let newest = newest.map_or("none".to_owned(), |newest| newest.to_string());
        let message = format!("epoch {} does not follow the newest of the key domain {}, {newest}", new.epoch, new.domain);
        return refuse(RefusalKind::Precondition, message);
    }
    if let (Some(pending), KekState::Announced) = (pending, state) {
        let message = format!("epoch {pending} of the key domain {} is announced already; activate or retire it first", new.domain);
        return refuse(RefusalKind::Precondition, message);
    }
    if open_epochs(view)? >= OPEN_EPOCHS_MAX {
        let message = format!(
            "{OPEN_EPOCHS_MAX} key epochs are open, the most that nodes can hold; rewrap what the retired ones wrap and destroy them first"
        );
        return refuse(RefusalKind::Precondition, message);
    }
    put_envelopes(view, &new.domain, new.epoch, &new.envelopes)?;
    let created = view.time;
    let record =
        KekEpochRecord { domain: new.domain.clone(), n: new.epoch, commitment: new.commitment, state: KekState::Announced, created };
    match state {
        KekState::Active => activate(view, record),
        _ => {
            put(view, record);
            Ok(())
        }
    }
}

/// How many epochs of all domains are not destroyed. A node whose ring is full could not take one more.
fn open_epochs(view: &View<'_>) -> Judged<usize> {
    let all = Prefix::keyspace(Keyspace::KekEpoch);
    let mut open = 0;
    for (key, _) in view.state.scan(&all) {
        let Ok(key) = key.decode() else { continue };
        open += usize::from(view.read::<KekEpochRecord>(key)?.is_some_and(|epoch| epoch.state != KekState::Destroyed));
    }
    Ok(open)
}

fn activate(view: &mut View<'_>, record: KekEpochRecord) -> Judged<()> {
    if let Some(before) = view.state.active_kek_epoch(&record.domain)? {
        put(view, KekEpochRecord { state: KekState::Retired, ..before });
    }
    put(view, KekEpochRecord { state: KekState::Active, ..record });
    Ok(())
}

fn destroy(view: &mut View<'_>, domain: &KeyDomain, epoch: KekEpoch) -> Judged<()> {
    let record = epoch_in(view, domain, epoch, &[KekState::Retired])?;
    let uses = view.read(uses_of(domain, epoch))?.unwrap_or(0_u64);
    if uses > 0 {
        let message = format!("epoch {epoch} of the key domain {domain} still wraps {uses} data keys; rewrap them first");
        return refuse(RefusalKind::Precondition, message);
    }
    let envelopes = Prefix::envelopes(domain, epoch);
    let keys: Vec<_> = view.state.scan_control(&envelopes).filter_map(|(key, _)| key.decode().ok()).collect();
    keys.into_iter().for_each(|key| view.delete(key));
    put(view, KekEpochRecord { state: KekState::Destroyed, ..record });
    Ok(())
}

fn put(view: &mut View<'_>, record: KekEpochRecord) {
    view.put(TypedKey::KekEpoch { domain: record.domain.clone(), epoch: record.n }, &record);
}

fn epoch_in(view: &View<'_>, domain: &KeyDomain, epoch: KekEpoch, states: &[KekState]) -> Judged<KekEpochRecord> {
    match view.read::<KekEpochRecord>(TypedKey::KekEpoch { domain: domain.clone(), epoch })? {
        Some(record) if states.contains(&record.state) => Ok(record),
        Some(record) => {
            let message = format!("epoch {epoch} of the key domain {domain} is {:?}, which does not allow this", record.state);
            refuse(RefusalKind::Precondition, message.to_lowercase())
        }
        None => refuse(RefusalKind::NotFound, format!("the key domain {domain} has no epoch {epoch}")),
    }
}

pub(super) fn put_envelopes(
    view: &mut View<'_>,
    domain: &KeyDomain,
    epoch: KekEpoch,
    envelopes: &[(Recipient, EnvelopeRecord)],
) -> Judged<()> {
    if envelopes.len() > ENVELOPES_MAX {
        return refuse(RefusalKind::TooLarge, format!("{} envelopes; at most {ENVELOPES_MAX} are allowed", envelopes.len()));
    }
    for (recipient, envelope) in envelopes {
        if envelope.bytes.is_empty() || envelope.bytes.len() > WRAP_BYTES_MAX {
            let message = format!("an envelope of {} bytes; 1 to {WRAP_BYTES_MAX} are allowed", envelope.bytes.len());
            return refuse(RefusalKind::InvalidArgument, message);
        }
        if let Recipient::Node(node) = recipient {
            may_hold_keys(view, *node)?;
        }
        view.put(TypedKey::Envelope { domain: domain.clone(), epoch, recipient: *recipient }, envelope);
    }
    Ok(())
}

/// Key epochs go to control nodes and edges in good standing: who was revoked a moment ago must not get one after all.
fn may_hold_keys(view: &View<'_>, node: types::NodeId) -> Judged<()> {
    match view.read::<NodeRecord>(TypedKey::Node { node })? {
        Some(record) if record.revoked.is_none() && record.role != NodeRole::Relay => Ok(()),
        _ => refuse(RefusalKind::Precondition, format!("node {node} may hold no key epoch: it is unknown, revoked or a relay")),
    }
}
