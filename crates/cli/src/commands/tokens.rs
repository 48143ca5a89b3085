//! `token`: by which people and pipelines command the cluster.

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, or_dash, time, time_or_none};
use crate::{Failure, TokenCommand};

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
}

/// `ROLE[@ACCOUNT[/STORE]]` as the wire has it.
fn grant(text: &str) -> v1::TokenGrant {
    let (role, reach) = text.split_once('@').unwrap_or((text, ""));
    let (account, store) = reach.split_once('/').unwrap_or((reach, ""));
    v1::TokenGrant { role: role.to_owned(), account: account.to_owned(), store: store.to_owned() }
}

fn shown(grant: &v1::TokenGrant) -> String {
    match (grant.account.as_str(), grant.store.as_str()) {
        ("", _) => grant.role.clone(),
        (account, "") => format!("{}@{account}", grant.role),
        (account, store) => format!("{}@{account}/{store}", grant.role),
    }
}

pub(super) async fn run(session: &Session, command: TokenCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        TokenCommand::Create { name, grants, expires_in } => {
            let request = v1::CreateTokenRequest {
                name,
                grants: grants.iter().map(|text| grant(text)).collect(),
                expires_in_ms: expires_in.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
                request_id: String::new(),
            };
            let reply = client.create_token(request).await.map_err(failed)?;
            let made = Made { token_id: reply.token_id, token: reply.token, expires: time_or_none(reply.expires_ms) };
            let expires = or_dash(made.expires.as_deref().unwrap_or_default());
            session.out.record(&made, &[("token id", made.token_id.clone()), ("token", made.token.clone()), ("expires", expires)])?;
            session.out.say("keep it now: it is not shown again");
            Ok(())
        }
        TokenCommand::List => {
            let tokens = all_pages(|page| async {
                let reply = client.list_tokens(v1::ListTokensRequest { page: Some(page) }).await?;
                Ok((reply.tokens, reply.next_page))
            });
            let row = |token: v1::OperatorToken| Row {
                grants: token.grants.iter().map(shown).collect(),
                token_id: token.token_id,
                name: token.name,
                created: time(token.created_ms),
                expires: time_or_none(token.expires_ms),
            };
            let rows: Vec<Row> = tokens.await?.into_iter().map(row).collect();
            session.out.rows(&["token id", "name", "grants", "created", "expires"], &rows, |row| {
                vec![
                    row.token_id.clone(),
                    row.name.clone(),
                    row.grants.join(","),
                    row.created.clone(),
                    or_dash(row.expires.as_deref().unwrap_or_default()),
                ]
            })
        }
        TokenCommand::Revoke { token } => {
            client.revoke_token(v1::RevokeTokenRequest { token_id: token.clone(), ..Default::default() }).await.map_err(failed)?;
            session.out.say(&format!("revoked {token}; every control node refuses it from now on"));
            Ok(())
        }
    }
}
