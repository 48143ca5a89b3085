//! `token`: by which people and pipelines command the cluster.

use std::time::Duration;

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, or_dash, roles, time, time_or_none};
use crate::{Failure, Permission, TokenCommand};

#[derive(Serialize)]
struct Made {
    token_id: String,
    token: String,
    expires: Option<String>,
}

#[derive(Serialize)]
struct Row {
    token_id: String,
    name: String,
    grants: Vec<String>,
    created: String,
    expires: Option<String>,
    member: Option<String>,
    permission: String,
    reach: Vec<String>,
}

impl From<v1::OperatorToken> for Row {
    fn from(token: v1::OperatorToken) -> Self {
        let member = token.member.map(|member| member.name);
        Self {
            name: if token.name.is_empty() { member.clone().unwrap_or_default() } else { token.name },
            grants: token.grants.iter().map(roles::shown).collect(),
            token_id: token.token_id,
            created: time(token.created_ms),
            expires: time_or_none(token.expires_ms),
            member,
            permission: token.permission,
            reach: token.reach.iter().map(shown_reach).collect(),
        }
    }
}

/// `ACCOUNT[/STORE]` as the wire has it.
fn reach(text: &str) -> v1::TokenReach {
    let (account, store) = text.split_once('/').unwrap_or((text, ""));
    v1::TokenReach { account: account.to_owned(), store: store.to_owned() }
}

fn shown_reach(reach: &v1::TokenReach) -> String {
    if reach.store.is_empty() { reach.account.clone() } else { format!("{}/{}", reach.account, reach.store) }
}

/// A duration as the wire has it; none is 0.
fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(super) async fn run(session: &Session, command: TokenCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        TokenCommand::Create { name, grants, member, permission, reach: within, expires_in } => {
            let permission = match permission {
                Permission::Read => "read",
                Permission::Edit => "edit",
            };
            let request = v1::CreateTokenRequest {
                name: name.unwrap_or_default(),
                grants: grants.iter().map(|text| roles::grant(text)).collect(),
                expires_in_ms: millis(expires_in),
                member: member.map(|name| roles::member(session, name)),
                permission: permission.to_owned(),
                reach: within.iter().map(|text| reach(text)).collect(),
                ..Default::default()
            };
            shown_once(session, client.create_token(request).await.map_err(failed)?)
        }
        TokenCommand::List => {
            let tokens = all_pages(|page| async {
                let reply = client.list_tokens(v1::ListTokensRequest { page: Some(page) }).await?;
                Ok((reply.tokens, reply.next_page))
            });
            let rows: Vec<Row> = tokens.await?.into_iter().map(Row::from).collect();
            session.out.rows(&["token id", "name", "grants", "permits", "within", "created", "expires"], &rows, |row| {
                vec![
                    row.token_id.clone(),
                    row.name.clone(),
                    row.grants.join(","),
                    row.permission.clone(),
                    or_dash(&row.reach.join(",")),
                    row.created.clone(),
                    or_dash(row.expires.as_deref().unwrap_or_default()),
                ]
            })
        }
        TokenCommand::Roll { token, keep_id, grace, expires_in } => {
            let request = v1::RollTokenRequest {
                token_id: token,
                keep_id,
                grace_ms: millis(grace),
                expires_in_ms: millis(expires_in),
                ..Default::default()
            };
            shown_once(session, client.roll_token(request).await.map_err(failed)?)
        }
        TokenCommand::Revoke { token } => {
            client.revoke_token(v1::RevokeTokenRequest { token_id: token.clone(), ..Default::default() }).await.map_err(failed)?;
            session.out.say(&format!("revoked {token}; every control node refuses it from now on"));
            Ok(())
        }
    }
}

fn shown_once(session: &Session, reply: v1::TokenReply) -> Result<(), Failure> {
    let made = Made { token_id: reply.token_id, token: reply.token, expires: time_or_none(reply.expires_ms) };
    let expires = or_dash(made.expires.as_deref().unwrap_or_default());
    session.out.record(&made, &[("token id", made.token_id.clone()), ("token", made.token.clone()), ("expires", expires)])?;
    session.out.say("keep it now: it is not shown again");
    Ok(())
}
