//! Members: who holds roles, and which.
//!
//! All roles of a member lie within its home, and all its tokens stand for the roles that it has at each use: a change of them is one
//! record. So who administers the home can give away nothing that lies beyond it.

use super::{Judged, View, operators, refuse};
use crate::{
    Grant, GrantScope, MemberRef, RefusalKind, ReplyBody, TypedKey,
    limits::{GRANTS_MAX, MEMBERS_MAX},
    record::{HoldingsRecord, MemberRecord},
};

pub(super) fn create(view: &mut View<'_>, member: &MemberRef, grants: &[Grant]) -> Judged<ReplyBody> {
    operators::is_there(view, member.home())?;
    let key = TypedKey::Member { member: member.clone() };
    if view.has(key.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("a member {} exists already", member.name));
    }
    let mut record = MemberRecord { grants: Vec::new(), created: view.time, modified: view.time };
    for grant in grants {
        add(view, member, &mut record, *grant)?;
    }
    let holdings = TypedKey::Holdings { account: member.account };
    let mut held: HoldingsRecord = view.read(holdings.clone())?.unwrap_or_default();
    if held.members >= MEMBERS_MAX {
        return refuse(RefusalKind::QuotaExceeded, format!("there are {MEMBERS_MAX} members, the most that there can be; delete some"));
    }
    held.members += 1;
    view.put(holdings, &held);
    view.put(key, &record);
    Ok(ReplyBody::MemberCreated)
}

pub(super) fn delete(view: &mut View<'_>, member: &MemberRef) -> Judged<ReplyBody> {
    member_of(view, member)?;
    let before = operators::administrators(view)?;
    let mut voided = 0;
    for token in view.state.member_tokens(member) {
        if let Some(hash) = view.read(TypedKey::OperatorTokenId { token })? {
            operators::remove(view, token, hash)?;
            voided += 1;
        }
    }
    view.delete(TypedKey::Member { member: member.clone() });
    let holdings = TypedKey::Holdings { account: member.account };
    let mut held: HoldingsRecord = view.read(holdings.clone())?.unwrap_or_default();
    held.members = held.members.saturating_sub(1);
    view.put(holdings, &held);
    someone_administers(view, &before)?;
    Ok(ReplyBody::MemberDeleted { tokens: voided })
}

pub(super) fn grant(view: &mut View<'_>, member: &MemberRef, grant: Grant) -> Judged<ReplyBody> {
    let mut record = member_of(view, member)?;
    if add(view, member, &mut record, grant)? {
        record.modified = view.time;
        view.put(TypedKey::Member { member: member.clone() }, &record);
    }
    Ok(ReplyBody::RoleGranted)
}

pub(super) fn revoke(view: &mut View<'_>, member: &MemberRef, grant: Grant) -> Judged<ReplyBody> {
    let mut record = member_of(view, member)?;
    let Ok(place) = record.grants.binary_search(&grant) else {
        return refuse(RefusalKind::NotFound, format!("{member} has not the role {} there", grant.role.name()));
    };
    let before = operators::administrators(view)?;
    record.grants.remove(place);
    record.modified = view.time;
    view.put(TypedKey::Member { member: member.clone() }, &record);
    someone_administers(view, &before)?;
    Ok(ReplyBody::RoleRevoked)
}

/// Adds a role that lies within the member's home; says whether it is new.
fn add(view: &View<'_>, member: &MemberRef, record: &mut MemberRecord, grant: Grant) -> Judged<bool> {
    if !member.home().covers(grant.scope) {
        return beyond_home(member, grant.scope);
    }
    operators::is_there(view, grant.scope)?;
    let Err(place) = record.grants.binary_search(&grant) else { return Ok(false) };
    if record.grants.len() >= GRANTS_MAX {
        return refuse(RefusalKind::QuotaExceeded, format!("{member} has {GRANTS_MAX} roles, the most that a member can have"));
    }
    record.grants.insert(place, grant);
    Ok(true)
}

/// The answer to a reach that lies outside a member's home.
pub(super) fn beyond_home<T>(member: &MemberRef, scope: GrantScope) -> Judged<T> {
    let what = match scope {
        GrantScope::Cluster => "the whole cluster".to_owned(),
        GrantScope::Account(account) => format!("account {account}"),
        GrantScope::Store(_, store) => format!("store {store}"),
    };
    refuse(RefusalKind::InvalidArgument, format!("{what} is beyond the home of {member}; all roles of a member lie within it"))
}

/// A member that is there.
pub(super) fn member_of(view: &View<'_>, member: &MemberRef) -> Judged<MemberRecord> {
    match view.read(TypedKey::Member { member: member.clone() })? {
        Some(record) => Ok(record),
        None => refuse(RefusalKind::NotFound, format!("no member {}; make it first (`cinnabar role grant`)", member.name)),
    }
}

/// Nobody takes away the last token by which the cluster can be administered.
fn someone_administers(view: &View<'_>, before: &[types::TokenId]) -> Judged<()> {
    if !before.is_empty() && operators::administrators(view)?.is_empty() {
        let message = "no token of a Super Administrator of the cluster would be left; make another one first";
        return refuse(RefusalKind::Precondition, message);
    }
    Ok(())
}
