//! `status` and `whoami`.

use serde::Serialize;
use wire::v1;

use super::{Session, failed, or_dash, time_or_none};
use crate::Failure;

#[derive(Serialize)]
struct Report {
    cluster: String,
    node: String,
    leader: String,
    position: String,
    applied_index: u64,
    unlocked: bool,
    feature_level: u32,
    software: String,
    edges: Vec<EdgeRow>,
}

#[derive(Serialize)]
struct EdgeRow {
    node: String,
    node_id: u64,
    connected: bool,
    watermark: String,
    lag_revisions: Option<u64>,
    seen: Option<String>,
}

pub(super) async fn status(session: &Session) -> Result<(), Failure> {
    let status = session.control()?.status(v1::ShowStatusRequest {}).await.map_err(failed)?;
    let edge = |edge: v1::EdgeStatus| EdgeRow {
        watermark: position(edge.watermark),
        node: edge.node_name,
        node_id: edge.node_id,
        connected: edge.connected,
        lag_revisions: edge.lag_revisions,
        seen: time_or_none(edge.seen_ms),
    };
    let report = Report {
        position: position(status.position),
        cluster: status.cluster_id,
        node: status.node_name,
        leader: status.leader,
        applied_index: status.applied_index,
        unlocked: status.unlocked,
        feature_level: status.feature_level,
        software: status.software,
        edges: status.edges.into_iter().map(edge).collect(),
    };
    if session.out.is_json() {
        return session.out.json(&report);
    }
    let fields = [
        ("cluster", report.cluster.clone()),
        ("control node", format!("{} ({})", report.node, if report.unlocked { "unlocked" } else { "locked" })),
        ("leader", or_dash(&report.leader)),
        ("position", format!("{} at log index {}", report.position, report.applied_index)),
        ("feature level", report.feature_level.to_string()),
    ];
    session.out.record(&report, &fields)?;
    if report.edges.is_empty() {
        session.out.say("no edge has joined: `cinnabar node token create edge` makes a token for one");
        return Ok(());
    }
    session.out.line("")?;
    session.out.rows(&["edge", "connected", "holds", "behind", "seen"], &report.edges, |edge| {
        let connected = if edge.connected { "yes" } else { "no" };
        vec![
            edge.node.clone(),
            connected.into(),
            edge.watermark.clone(),
            known(edge.lag_revisions),
            edge.seen.clone().unwrap_or_else(|| NEVER.to_owned()),
        ]
    })
}

/// What a table shows of a number that may not be known.
pub(super) fn known(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// No control node has heard of it since they were started.
pub(super) const NEVER: &str = "never";

pub(super) fn position(position: Option<v1::Position>) -> String {
    position.map_or_else(|| "-".into(), |position| types::Position::from(position).to_string())
}

#[derive(Serialize)]
struct Me {
    name: String,
    all_accounts: bool,
    accounts: Vec<String>,
    roles: Vec<String>,
    permission: String,
    expires: Option<String>,
}

pub(super) async fn whoami(session: &Session) -> Result<(), Failure> {
    print_me(session, session.control()?.who_am_i(v1::WhoAmIRequest {}).await.map_err(failed)?)
}

/// Whom the server takes a token for.
pub(super) fn print_me(session: &Session, reply: v1::WhoAmIReply) -> Result<(), Failure> {
    let me = Me {
        name: reply.name,
        all_accounts: reply.all_accounts,
        accounts: reply.account_ids,
        roles: reply.roles,
        permission: reply.permission,
        expires: time_or_none(reply.expires_ms),
    };
    let accounts = if me.all_accounts { "all".to_owned() } else { or_dash(&me.accounts.join(", ")) };
    let expires = or_dash(me.expires.as_deref().unwrap_or_default());
    let fields = [
        ("name", me.name.clone()),
        ("roles", or_dash(&me.roles.join(", "))),
        ("permits", or_dash(&me.permission)),
        ("accounts", accounts),
        ("expires", expires),
    ];
    session.out.record(&me, &fields)
}
