//! `node`: who is in the cluster, how others get in, and how one is shut out.

use std::collections::HashMap;

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, or_dash, time, time_or_none};
use crate::{Failure, JoinTokenCommand, NodeCommand, NodeKind};

#[derive(Serialize)]
struct Row {
    node: String,
    node_id: u64,
    role: &'static str,
    address: String,
    feature_level: u32,
    labels: Vec<String>,
    joined: String,
    revoked: Option<String>,
}

impl From<v1::Node> for Row {
    fn from(node: v1::Node) -> Self {
        Self {
            role: role_name(node.role()),
            labels: labels(node.labels),
            node: node.name,
            node_id: node.node_id,
            address: node.address,
            feature_level: node.feature_level,
            joined: time(node.created_ms),
            revoked: time_or_none(node.revoked_ms),
        }
    }
}

#[derive(Serialize)]
struct TokenRow {
    token_id: String,
    role: &'static str,
    name: String,
    labels: Vec<String>,
    state: &'static str,
    uses_left: u32,
    node_ids: Vec<u64>,
    created_by: String,
    expires: String,
}

#[derive(Serialize)]
struct Made {
    token_id: String,
    token: Option<String>,
    expires: String,
}

#[derive(Serialize)]
struct Exposed {
    account: String,
    store: String,
    secret: String,
    secret_id: String,
    versions: Vec<u64>,
    current: bool,
    deleted: Option<String>,
}

fn role_name(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Control => "control",
        v1::NodeRole::Edge => "edge",
        v1::NodeRole::Relay => "relay",
        v1::NodeRole::Unspecified => "none",
    }
}

fn labels(labels: HashMap<String, String>) -> Vec<String> {
    let mut labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    labels
}

pub(super) async fn run(session: &Session, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::List => list(session).await,
        NodeCommand::Token(command) => token(session, command).await,
        NodeCommand::Revoke { node, keep_authority, yes } => revoke(session, node, keep_authority, yes).await,
        NodeCommand::Exposure { node } => exposure(session, node).await,
    }
}

async fn list(session: &Session) -> Result<(), Failure> {
    let client = session.control()?;
    let nodes = all_pages(|page| async {
        let reply = client.list_nodes(v1::ListNodesRequest { page: Some(page) }).await?;
        Ok((reply.nodes, reply.next_page))
    });
    let rows: Vec<Row> = nodes.await?.into_iter().map(Row::from).collect();
    session.out.rows(&["node", "id", "role", "address", "level", "labels", "joined", "revoked"], &rows, |row| {
        vec![
            row.node.clone(),
            row.node_id.to_string(),
            row.role.to_owned(),
            or_dash(&row.address),
            row.feature_level.to_string(),
            or_dash(&row.labels.join(",")),
            row.joined.clone(),
            or_dash(row.revoked.as_deref().unwrap_or_default()),
        ]
    })
}

async fn token(session: &Session, command: JoinTokenCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        JoinTokenCommand::Create { role, name, label, uses, expires_in, out } => {
            let labels = label.iter().map(|label| match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(Failure::usage(format!("not a label: expected KEY=VALUE, got {label:?}"))),
            });
            let request = v1::CreateJoinTokenRequest {
                role: match role {
                    NodeKind::Control => v1::NodeRole::Control,
                    NodeKind::Edge => v1::NodeRole::Edge,
                    NodeKind::Relay => v1::NodeRole::Relay,
                }
                .into(),
                name: name.unwrap_or_default(),
                labels: labels.collect::<Result<_, Failure>>()?,
                uses,
                expires_in_ms: u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX),
                request_id: String::new(),
            };
            if let Some(file) = out.as_ref().filter(|file| file.exists()) {
                return Err(Failure::usage(format!("{} exists: name a new file", file.display())));
            }
            let reply = client.create_join_token(request).await.map_err(failed)?;
            let mut made = Made { token_id: reply.token_id, token: Some(reply.token), expires: time(reply.expires_ms) };
            let mut fields = vec![("token id", made.token_id.clone()), ("expires", made.expires.clone())];
            if let Some(file) = out {
                let token = zeroize::Zeroizing::new(format!("{}\n", made.token.take().unwrap_or_default()));
                runtime::write_secret_file(&file, token.as_bytes()).map_err(|error| Failure::failed(error.to_string()))?;
                session.out.record(&made, &fields)?;
                session.out.say(&format!("wrote the token to {}: name it in the new node's `[join] token_file`", file.display()));
            } else {
                fields.insert(1, ("token", made.token.clone().unwrap_or_default()));
                session.out.record(&made, &fields)?;
                session.out.say("keep it now: it is not shown again. Put it into a file of mode 0600, and name that in the new node's `[join] token_file`");
            }
            Ok(())
        }
        JoinTokenCommand::List => {
            let tokens = all_pages(|page| async {
                let reply = client.list_join_tokens(v1::ListJoinTokensRequest { page: Some(page) }).await?;
                Ok((reply.tokens, reply.next_page))
            });
            let rows: Vec<TokenRow> = tokens.await?.into_iter().map(token_row).collect();
            session.out.rows(&["token id", "role", "name", "state", "uses left", "nodes", "made by", "expires"], &rows, |row| {
                let nodes: Vec<String> = row.node_ids.iter().map(u64::to_string).collect();
                vec![
                    row.token_id.clone(),
                    row.role.to_owned(),
                    or_dash(&row.name),
                    row.state.to_owned(),
                    row.uses_left.to_string(),
                    or_dash(&nodes.join(",")),
                    row.created_by.clone(),
                    row.expires.clone(),
                ]
            })
        }
        JoinTokenCommand::Revoke { token } => {
            client.revoke_join_token(v1::RevokeJoinTokenRequest { token_id: token.clone(), ..Default::default() }).await.map_err(failed)?;
            session.out.say(&format!("revoked {token}; nodes that joined by it stay"));
            Ok(())
        }
    }
}

fn token_row(token: v1::JoinToken) -> TokenRow {
    let state = match token.state() {
        v1::JoinTokenState::Usable => "usable",
        v1::JoinTokenState::UsedUp => "used up",
        v1::JoinTokenState::Expired => "expired",
        v1::JoinTokenState::Revoked => "revoked",
        v1::JoinTokenState::Unspecified => "unknown",
    };
    TokenRow {
        role: role_name(token.role()),
        state,
        token_id: token.token_id,
        name: token.name,
        labels: labels(token.labels),
        uses_left: token.uses_left,
        node_ids: token.node_ids,
        created_by: token.created_by,
        expires: time(token.expires_ms),
    }
}

async fn revoke(session: &Session, node: String, keep_authority: bool, yes: bool) -> Result<(), Failure> {
    if keep_authority {
        session.out.say(&format!(
            "{node} could open the key of the certificate authority. Who has its disk, and the envelope key on it, can pass for any node and any consumer for as long as this authority is believed, which with --keep-authority is from now on for ever. Keep it only where the disk is destroyed, wiped, or in your hands"
        ));
    }
    session
        .confirm(&if keep_authority { format!("revoking {node} and keeping the authority") } else { format!("revoking {node}") }, yes)?;
    let client = session.control()?;
    let request = v1::RevokeNodeRequest { node: node.clone(), keep_authority, ..Default::default() };
    let reply = client.revoke_node(request).await.map_err(failed)?;
    let node = reply.node.unwrap_or_default();
    let issued = node.role() == v1::NodeRole::Control && !keep_authority;
    let row = Row::from(node);
    session.out.say(&format!("revoked {} (number {}): it is shut out, and all data keys are replaced", row.node, row.node_id));
    session.out.say(&format!("what it could open: `cinnabar node exposure {}`; give those secrets new values", row.node_id));
    if keep_authority {
        session.out.say("the certificate authority stays, and the audit log keeps that you decided so. `cinnabar cluster ca rotate` replaces it if it turns out otherwise");
    }
    if issued {
        session.out.say(
            "it could open the certificate authority's key, so a new authority takes over, and the one before is believed for 10 minutes at most, less when all nodes have traded their certificates: `cinnabar cluster ca show`. Open join tokens are void. Certificates of consumers by the one before have to be issued anew; contexts on other machines may need `cinnabar context ca`",
        );
    }
    Ok(())
}

async fn exposure(session: &Session, node: String) -> Result<(), Failure> {
    let client = session.control()?;
    let secrets = all_pages(|page| async {
        let reply = client.node_exposure(v1::ExposureRequest { node: node.clone(), page: Some(page) }).await?;
        Ok((reply.secrets, reply.next_page))
    });
    let row = |secret: v1::ExposedSecret| Exposed {
        account: secret.account_id,
        store: secret.store_name,
        secret: secret.secret_name,
        secret_id: secret.secret_id,
        versions: secret.versions,
        current: secret.current,
        deleted: time_or_none(secret.deleted_ms),
    };
    let rows: Vec<Exposed> = secrets.await?.into_iter().map(row).collect();
    session.out.rows(&["account", "secret", "versions", "current", "deleted"], &rows, |row| {
        let versions: Vec<String> = row.versions.iter().map(u64::to_string).collect();
        let current = if row.current { "yes" } else { "no" };
        let deleted = row.deleted.clone().unwrap_or_else(|| "-".to_owned());
        vec![row.account.clone(), format!("{}/{}", row.store, row.secret), versions.join(","), current.to_owned(), deleted]
    })
}
