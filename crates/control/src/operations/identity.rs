//! Who is asking, and which accounts it sees.

use std::sync::Arc;

use state::{GrantScope, Operation, State, limits::PAGE_MAX, record::AccountRecord};
use types::{AccountId, UnixMillis};
use wire::PublicError;

use super::{
    accounts,
    lists::{Listed, Window},
};
use crate::{
    call::Call,
    caller::{Caller, Who},
    core::Core,
    error::damaged,
    resolve, show,
};

/// A caller, as it is shown to itself.
pub(crate) struct Identity {
    /// The public id of its token, or the number of its node.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// When its token ends.
    pub(crate) expires: Option<UnixMillis>,
}

/// Says who is asking.
pub(crate) async fn identity(core: Arc<Core>, call: Call, (): ()) -> Result<Identity, PublicError> {
    core.read(&call, |_, caller| {
        Ok(match caller.who() {
            Who::Operator { name, token, expires } => Identity { id: token.to_string(), name: name.to_string(), expires: *expires },
            Who::Node(node) => Identity { id: node.to_string(), name: format!("node {node}"), expires: None },
        })
    })
    .await
}

/// An account that a caller sees, and what it is there.
pub(crate) struct Seat {
    pub(crate) account: wire::v1::Account,
    /// Names of roles.
    pub(crate) roles: Vec<String>,
    /// What it may hold, and holds; none for who may not know.
    pub(crate) quota: Option<wire::v1::Quota>,
}

/// Lists the accounts that the caller sees, by name.
pub(crate) async fn accounts(core: Arc<Core>, call: Call, window: Window) -> Result<Listed<Seat>, PublicError> {
    core.read(&call, |state, caller| {
        let mut all = seen(state, caller)?;
        all.sort_by(|(left, one), (right, other)| one.name.cmp(&other.name).then(left.cmp(right)));
        if window.falling {
            all.reverse();
        }
        let total = all.len() as u64;
        let (skip, take) = (super::lists::size(window.skip), super::lists::size(window.take));
        let page = all.iter().skip(skip).take(take).map(|(id, record)| seat(state, caller, *id, record));
        Ok(Listed { items: page.collect::<Result<_, _>>()?, total })
    })
    .await
}

/// Shows one.
pub(crate) async fn account(core: Arc<Core>, call: Call, account: String) -> Result<Seat, PublicError> {
    let target = wire::parse::AccountTarget::parse_optional("account", account)?;
    core.read(&call, |state, caller| {
        let id = resolve::account(state, caller, target.as_ref())?;
        seat(state, caller, id, &resolve::account_record(state, id)?)
    })
    .await
}

fn seat(state: &State, caller: &Caller, id: AccountId, record: &AccountRecord) -> Result<Seat, PublicError> {
    let mut roles: Vec<String> = caller
        .grants()
        .iter()
        .filter(|grant| grant.scope.account().is_none_or(|account| account == id))
        .map(|grant| grant.role.name().to_owned())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let may = caller.may(Operation::ReadMetadata, GrantScope::Account(id));
    let quota = may.then(|| accounts::quota(state, id)).transpose()?;
    Ok(Seat { account: show::account(id, record), roles, quota })
}

fn seen(state: &State, caller: &Caller) -> Result<Vec<(AccountId, AccountRecord)>, PublicError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = state.accounts(after.as_ref(), PAGE_MAX, |id| caller.sees(id)).map_err(damaged)?;
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}
