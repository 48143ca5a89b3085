//! Data keys: which one a value must be sealed under, how often, and how one replaces another.

use std::collections::BTreeSet;

use types::{
    AccountId, KekEpoch, KeyDomain,
    mutation::{self, Mutation},
};

use super::{Halt, Judged, View, refuse, stores::account_of};
use crate::{
    NewDek, RefusalKind, ReplyBody, Rewrap, SealedInput, TypedKey,
    limits::{DEK_GRACE, ITEMS_MAX, WRAP_BYTES_MAX, WRAPS_MAX},
    record::{AccountRecord, DekRecord, DekState, PreviousDek, WrappedDek},
};

/// Counts one use of the key that a value is sealed under, if values are accepted under it.
pub(super) fn use_once(view: &mut View<'_>, account: AccountId, value: &SealedInput) -> Judged<()> {
    let record = account_of(view, account)?;
    let settings = view.settings()?;
    let previous = record.previous_dek.filter(|previous| previous.dek == value.dek && view.time < previous.until);
    if record.current_dek != Some(value.dek) && previous.is_none() && !mutation::is_on(Mutation::GraceEndless) {
        return refuse(RefusalKind::Reseal, "the value is sealed under a data key that is not current");
    }
    let Some(dek) = view.read::<DekRecord>(TypedKey::Dek { account, dek: value.dek })? else {
        return Err(Halt::Broken { what: "an account names a data key that is not there" }.into());
    };
    if dek.era != settings.dek_era {
        return refuse(RefusalKind::Reseal, "the value is sealed under a data key from before a node was revoked");
    }
    if dek.wrap(&value.domain).is_none() {
        let message = format!("the value's data key is not wrapped for the key domain {}", value.domain);
        return refuse(RefusalKind::InvalidArgument, message);
    }
    let uses = TypedKey::DekUses { account, dek: value.dek };
    if view.read(uses.clone())?.unwrap_or(0_u64) >= settings.dek_uses_max {
        return refuse(RefusalKind::Reseal, "the value's data key has been used as often as it may");
    }
    Ok(view.count(uses, |uses| uses.checked_add(1))?)
}

/// Installs the key that a value brings with it. If another became current meanwhile, the sealer must use that one.
pub(super) fn bring(view: &mut View<'_>, account: AccountId, new_dek: Option<&NewDek>) -> Judged<()> {
    match new_dek {
        Some(dek) => install(view, account, dek, true, RefusalKind::Reseal),
        None => Ok(()),
    }
}

pub(super) fn mint(view: &mut View<'_>, account: AccountId, dek: &NewDek, grace: bool) -> Judged<ReplyBody> {
    install(view, account, dek, grace, RefusalKind::Precondition)?;
    Ok(ReplyBody::DekMinted { dek: dek.id })
}

/// Makes a key current. `stale` is what a maker gets who did not know of a newer key or epoch.
fn install(view: &mut View<'_>, account: AccountId, new: &NewDek, grace: bool, stale: RefusalKind) -> Judged<()> {
    let mut record = account_of(view, account)?;
    let settings = view.settings()?;
    if new.replaces != record.current_dek {
        return refuse(stale, "another data key became current meanwhile");
    }
    let key = TypedKey::Dek { account, dek: new.id };
    if view.has(key.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the data key id {} is taken", new.id));
    }
    check_wraps(view, &new.wraps, stale)?;
    for wrap in &new.wraps {
        view.count(epoch_uses(wrap), |uses| uses.checked_add(1))?;
    }
    replace(view, account, &mut record, new, grace)?;
    view.put(TypedKey::Account { account }, &record);
    let dek =
        DekRecord { account, id: new.id, wraps: new.wraps.clone(), created: view.time, state: DekState::Active, era: settings.dek_era };
    view.put(key, &dek);
    Ok(())
}

/// Moves an account's keys on by one. What drops out of the two that seal is retired.
fn replace(view: &mut View<'_>, account: AccountId, record: &mut AccountRecord, new: &NewDek, grace: bool) -> Result<(), Halt> {
    let before = record.previous_dek.take().map(|previous| previous.dek);
    let (kept, dropped) = if grace { (record.current_dek, None) } else { (None, record.current_dek) };
    record.previous_dek = kept.map(|dek| PreviousDek { dek, until: view.time.plus(DEK_GRACE) });
    record.current_dek = Some(new.id);
    for dek in before.into_iter().chain(dropped) {
        let key = TypedKey::Dek { account, dek };
        if let Some(old) = view.read::<DekRecord>(key.clone())? {
            view.put(key, &DekRecord { state: DekState::Retired, ..old });
        }
    }
    Ok(())
}

fn check_wraps(view: &View<'_>, wraps: &[WrappedDek], stale: RefusalKind) -> Judged<()> {
    let domains: BTreeSet<_> = wraps.iter().map(|wrap| &wrap.domain).collect();
    if wraps.is_empty() || wraps.len() > WRAPS_MAX || domains.len() != wraps.len() {
        let message = format!("a data key needs one wrap for each of 1 to {WRAPS_MAX} key domains");
        return refuse(RefusalKind::InvalidArgument, message);
    }
    wraps.iter().try_for_each(|wrap| check_wrap(view, wrap, stale))
}

fn check_wrap(view: &View<'_>, wrap: &WrappedDek, stale: RefusalKind) -> Judged<()> {
    if wrap.bytes.is_empty() || wrap.bytes.len() > WRAP_BYTES_MAX {
        let message = format!("a wrapped data key of {} bytes; 1 to {WRAP_BYTES_MAX} are allowed", wrap.bytes.len());
        return refuse(RefusalKind::InvalidArgument, message);
    }
    match view.state.active_kek_epoch(&wrap.domain)? {
        Some(active) if active.n == wrap.epoch => Ok(()),
        Some(active) => {
            let message = format!("epoch {} of the key domain {} is active, not {}", active.n, wrap.domain, wrap.epoch);
            refuse(stale, message)
        }
        None => refuse(RefusalKind::InvalidArgument, format!("the key domain {} has no active epoch", wrap.domain)),
    }
}

fn epoch_uses(wrap: &WrappedDek) -> TypedKey {
    uses_of(&wrap.domain, wrap.epoch)
}

pub(super) fn uses_of(domain: &KeyDomain, epoch: KekEpoch) -> TypedKey {
    TypedKey::EpochUses { domain: domain.clone(), epoch }
}

/// Wraps keys anew. An item whose key is wrapped by another epoch than it says has been done by someone else and is passed over.
pub(super) fn rewrap(view: &mut View<'_>, items: &[Rewrap]) -> Judged<ReplyBody> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        let message = format!("{} data keys in one command; 1 to {ITEMS_MAX} are allowed", items.len());
        return refuse(RefusalKind::InvalidArgument, message);
    }
    let mut count = 0;
    for item in items {
        check_wrap(view, &item.wrap, RefusalKind::Precondition)?;
        let key = TypedKey::Dek { account: item.account, dek: item.dek };
        let Some(mut dek) = view.read::<DekRecord>(key.clone())? else {
            return refuse(RefusalKind::NotFound, format!("no data key {}", item.dek));
        };
        let Some(wrap) = dek.wraps.iter_mut().find(|wrap| wrap.domain == item.wrap.domain && wrap.epoch == item.from) else { continue };
        view.count(epoch_uses(wrap), |uses| uses.checked_sub(1))?;
        view.count(epoch_uses(&item.wrap), |uses| uses.checked_add(1))?;
        *wrap = item.wrap.clone();
        view.put(key, &dek);
        count += 1;
    }
    Ok(ReplyBody::DeksRewrapped { count })
}
