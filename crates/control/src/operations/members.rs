//! Members: people and pipelines that hold roles.

use std::sync::Arc;

use state::{CommandBody, Grant, GrantScope, MemberRef, Operation, State};
use types::{AccountId, PrincipalName};
use wire::{
    ErrorKind, PublicError,
    parse::{self, AccountTarget, FieldError, PageTarget},
    v1,
};

use super::{
    after, next,
    tokens::{WantedGrant, shown_grant},
};
use crate::{call::Call, caller::Caller, core::Core, error::damaged, resolve, write};

/// A member as it was asked for.
pub(super) struct Wanted {
    account: Option<AccountTarget>,
    name: PrincipalName,
}

impl Wanted {
    pub(super) fn read(field: &str, member: v1::MemberRef) -> Result<Self, FieldError> {
        let account = AccountTarget::parse_optional(&format!("{field}.account"), member.account)?;
        Ok(Self { account, name: parse::name(&format!("{field}.name"), member.name)? })
    }

    fn required(field: &str, member: Option<v1::MemberRef>) -> Result<Self, FieldError> {
        Self::read(field, parse::required(field, member)?)
    }

    /// The member within the caller's sight. Where no home is named, it is the cluster for who administers that, and for others their
    /// only account.
    pub(super) fn resolve(&self, state: &State, caller: &Caller) -> Result<MemberRef, PublicError> {
        let account = match &self.account {
            None if caller.may(Operation::ReadTokens, GrantScope::Cluster) => None,
            account => Some(resolve::account(state, caller, account.as_ref())?),
        };
        Ok(MemberRef { account, name: self.name.clone() })
    }
}

/// A member as it is named.
pub(super) fn shown_ref(member: &MemberRef) -> v1::MemberRef {
    v1::MemberRef { account: home(member.account), name: member.name.to_string() }
}

fn home(account: Option<AccountId>) -> String {
    account.map(|account| account.to_string()).unwrap_or_default()
}

/// A member as it stands now; nothing when it is gone.
fn shown(state: &State, member: &MemberRef) -> Result<Option<v1::RoleMember>, PublicError> {
    let Some(record) = state.member(member).map_err(damaged)? else { return Ok(None) };
    Ok(Some(v1::RoleMember {
        account_id: home(member.account),
        name: member.name.to_string(),
        roles: record.grants.iter().map(shown_grant).collect(),
        created_ms: record.created.get(),
        modified_ms: record.modified.get(),
        token_ids: state.member_tokens(member).iter().map(ToString::to_string).collect(),
    }))
}

/// Commands something about a member, and shows it afterwards.
async fn changed(
    core: &Core,
    call: &Call,
    wanted: &Wanted,
    command: impl Fn(&State, &Caller, MemberRef) -> Result<CommandBody, PublicError>,
) -> Result<v1::MemberReply, PublicError> {
    let plan = |state: &State, caller: &Caller| {
        let member = wanted.resolve(state, caller)?;
        caller.require(Operation::ManageTokens, member.home())?;
        command(state, caller, member)
    };
    let (body, _) = write::plain(core, call, plan).await?;
    let member = match body {
        Some(CommandBody::CreateMember { member, .. } | CommandBody::GrantRole { member, .. } | CommandBody::RevokeRole { member, .. }) => {
            shown(&core.consensus.local(), &member)?
        }
        _ => None,
    };
    Ok(v1::MemberReply { member })
}

/// Makes a member.
pub(crate) async fn create(core: Arc<Core>, call: Call, message: v1::CreateMemberRequest) -> Result<v1::MemberReply, PublicError> {
    let wanted = Wanted::required("member", message.member)?;
    let roles = WantedGrant::read_all("roles", message.roles, true)?;
    changed(&core, &call, &wanted, |state, caller, member| {
        let grants = roles.iter().map(|role| role.resolve(state, caller, member.home())).collect::<Result<Vec<Grant>, _>>()?;
        Ok(CommandBody::CreateMember { member, grants })
    })
    .await
}

/// Lists the members within the caller's reach.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListMembersRequest) -> Result<v1::ListMembersReply, PublicError> {
    let account = AccountTarget::parse_optional("account", message.account)?;
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        caller.require_somewhere(Operation::ReadTokens)?;
        let home = account.as_ref().map(|account| resolve::account(state, caller, Some(account))).transpose()?;
        let seen = |member: &MemberRef| caller.may(Operation::ReadTokens, member.home());
        let found = state.members(home, after.as_ref(), page.size, seen).map_err(damaged)?;
        let members = found.items.iter().map(|(member, _)| shown(state, member));
        let members = members.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(v1::ListMembersReply { members, next_page: next(found.next) })
    })
    .await
}

/// Shows a member.
pub(crate) async fn show(core: Arc<Core>, call: Call, message: v1::ShowMemberRequest) -> Result<v1::RoleMember, PublicError> {
    let wanted = Wanted::required("member", message.member)?;
    core.read(&call, |state, caller| {
        let member = wanted.resolve(state, caller)?;
        caller.require(Operation::ReadTokens, member.home())?;
        let missing = || PublicError::new(ErrorKind::NotFound, format!("no member {}: `cinnabar role list` shows them", wanted.name));
        shown(state, &member)?.ok_or_else(missing)
    })
    .await
}

/// Gives a member a role.
pub(crate) async fn grant(core: Arc<Core>, call: Call, message: v1::GrantRoleRequest) -> Result<v1::MemberReply, PublicError> {
    let wanted = Wanted::required("member", message.member)?;
    let role = WantedGrant::read("role", parse::required("role", message.role)?, true)?;
    changed(&core, &call, &wanted, |state, caller, member| {
        let grant = role.resolve(state, caller, member.home())?;
        Ok(CommandBody::GrantRole { member, grant })
    })
    .await
}

/// Takes a role from a member.
pub(crate) async fn revoke(core: Arc<Core>, call: Call, message: v1::RevokeRoleRequest) -> Result<v1::MemberReply, PublicError> {
    let wanted = Wanted::required("member", message.member)?;
    let role = WantedGrant::read("role", parse::required("role", message.role)?, true)?;
    changed(&core, &call, &wanted, |state, caller, member| {
        let grant = role.resolve(state, caller, member.home())?;
        Ok(CommandBody::RevokeRole { member, grant })
    })
    .await
}

/// Deletes a member, and voids its tokens.
pub(crate) async fn delete(core: Arc<Core>, call: Call, message: v1::DeleteMemberRequest) -> Result<v1::DeleteMemberReply, PublicError> {
    let wanted = Wanted::required("member", message.member)?;
    let plan = |state: &State, caller: &Caller| {
        let member = wanted.resolve(state, caller)?;
        caller.require(Operation::ManageTokens, member.home())?;
        Ok(CommandBody::DeleteMember { member })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    let state::ReplyBody::MemberDeleted { tokens } = reply.body else { return Err(crate::error::unexpected()) };
    Ok(v1::DeleteMemberReply { tokens })
}
