//! `role`: members, and what they may do.

use client::Client;
use serde::Serialize;
use wire::{ErrorKind, v1};

use super::{Session, all_pages, failed, or_dash, time};
use crate::{Failure, RoleCommand};

#[derive(Serialize)]
struct Row {
    member: String,
    account_id: String,
    roles: Vec<String>,
    token_ids: Vec<String>,
    created: String,
    modified: String,
}

impl From<v1::RoleMember> for Row {
    fn from(member: v1::RoleMember) -> Self {
        Self {
            member: member.name,
            account_id: member.account_id,
            roles: member.roles.iter().map(shown).collect(),
            token_ids: member.token_ids,
            created: time(member.created_ms),
            modified: time(member.modified_ms),
        }
    }
}

impl Row {
    fn print(&self, session: &Session) -> Result<(), Failure> {
        let fields = [
            ("member", self.member.clone()),
            ("home", self.home()),
            ("roles", or_dash(&self.roles.join(", "))),
            ("tokens", or_dash(&self.token_ids.join(", "))),
            ("created", self.created.clone()),
            ("modified", self.modified.clone()),
        ];
        session.out.record(self, &fields)
    }

    fn home(&self) -> String {
        if self.account_id.is_empty() { "cluster".into() } else { self.account_id.clone() }
    }
}

/// `ROLE[@ACCOUNT[/STORE]]` as the wire has it.
pub(super) fn grant(text: &str) -> v1::TokenGrant {
    let (role, reach) = text.split_once('@').unwrap_or((text, ""));
    let (account, store) = reach.split_once('/').unwrap_or((reach, ""));
    v1::TokenGrant { role: role.to_owned(), account: account.to_owned(), store: store.to_owned() }
}

/// The same the other way.
pub(super) fn shown(grant: &v1::TokenGrant) -> String {
    match (grant.account.as_str(), grant.store.as_str()) {
        ("", _) => grant.role.clone(),
        (account, "") => format!("{}@{account}", grant.role),
        (account, store) => format!("{}@{account}/{store}", grant.role),
    }
}

/// A member at home in the account that was named with the command, else in the cluster: the context's account is where one works, not
/// where one is at home.
pub(super) fn member(session: &Session, name: String) -> v1::MemberRef {
    v1::MemberRef { account: session.global.account.clone().unwrap_or_default(), name }
}

pub(super) async fn run(session: &Session, command: RoleCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        RoleCommand::List { member: Some(name) } => {
            let request = v1::ShowMemberRequest { member: Some(member(session, name)) };
            Row::from(client.show_member(request).await.map_err(failed)?).print(session)
        }
        RoleCommand::List { member: None } => {
            let account = session.global.account.clone().unwrap_or_default();
            let members = all_pages(|page| {
                let request = v1::ListMembersRequest { account: account.clone(), page: Some(page) };
                async { client.list_members(request).await.map(|reply| (reply.members, reply.next_page)) }
            });
            let rows: Vec<Row> = members.await?.into_iter().map(Row::from).collect();
            session.out.rows(&["member", "home", "roles", "tokens", "modified"], &rows, |row| {
                vec![row.member.clone(), row.home(), or_dash(&row.roles.join(",")), row.token_ids.len().to_string(), row.modified.clone()]
            })
        }
        RoleCommand::Grant { member: name, role } => give(session, &client, member(session, name), grant(&role)).await,
        RoleCommand::Revoke { member: name, role: Some(role), .. } => {
            let request = v1::RevokeRoleRequest { member: Some(member(session, name)), role: Some(grant(&role)), ..Default::default() };
            let reply = client.revoke_role(request).await.map_err(failed)?;
            Row::from(reply.member.unwrap_or_default()).print(session)
        }
        RoleCommand::Revoke { member: name, role: None, yes, .. } => {
            session.confirm(&format!("deleting member {name} with its tokens"), yes)?;
            let request = v1::DeleteMemberRequest { member: Some(member(session, name.clone())), ..Default::default() };
            let reply = client.delete_member(request).await.map_err(failed)?;
            session.out.say(&format!("deleted {name}; tokens that are void now: {}", reply.tokens));
            Ok(())
        }
    }
}

/// A role for a member; one that is not there yet begins with it.
async fn give(session: &Session, client: &Client, member: v1::MemberRef, role: v1::TokenGrant) -> Result<(), Failure> {
    let request = v1::GrantRoleRequest { member: Some(member.clone()), role: Some(role.clone()), ..Default::default() };
    let reply = match client.grant_role(request).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // What was not found may be the role's account or store: then this is refused in the same words.
            let request = v1::CreateMemberRequest { member: Some(member), roles: vec![role], ..Default::default() };
            let reply = client.create_member(request).await.map_err(failed)?;
            session.out.say("a new member: `cinnabar token create --member` makes a token for it");
            reply
        }
        reply => reply.map_err(failed)?,
    };
    Row::from(reply.member.unwrap_or_default()).print(session)
}
