//! `cluster level`.

use serde::Serialize;
use wire::v1;

use super::{Session, failed};
use crate::{Failure, LevelArgs, LevelCommand};

/// One node in the output.
#[derive(Serialize)]
struct Row {
    node: String,
    id: u64,
    role: &'static str,
    feature_level: u32,
    counts: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report {
    in_force: u32,
    nodes: Vec<Row>,
    blockers: Vec<String>,
}

pub(super) async fn run(session: &Session, arguments: LevelArgs) -> Result<(), Failure> {
    match arguments.command {
        None => show(session).await,
        Some(LevelCommand::Raise { to, yes }) => raise(session, to, yes).await,
    }
}

async fn show(session: &Session) -> Result<(), Failure> {
    let reply = session.control()?.show_level(v1::ShowLevelRequest {}).await.map_err(failed)?;
    let row = |node: v1::NodeFeatureLevel| Row {
        role: role(node.role()),
        node: node.node_name,
        id: node.node_id,
        feature_level: node.feature_level,
        counts: node.counts,
    };
    let report = Report { in_force: reply.in_force, nodes: reply.nodes.into_iter().map(row).collect(), blockers: reply.blockers };
    if session.out.is_json() {
        return session.out.json(&report);
    }
    session.out.line(&match report.blockers.as_slice() {
        [] => format!("feature level {} is in force; the next can be raised", report.in_force),
        _ if report.nodes.iter().all(|node| node.feature_level <= report.in_force) => {
            format!("feature level {} is in force; no node knows a higher one", report.in_force)
        }
        blockers => format!("feature level {} is in force; the next waits: {}", report.in_force, blockers.join("; ")),
    })?;
    let cells = |row: &Row| {
        let counts = if row.counts { "yes" } else { "no" };
        vec![row.node.clone(), row.id.to_string(), row.role.into(), row.feature_level.to_string(), counts.into()]
    };
    session.out.rows(&["node", "id", "role", "knows", "counts"], &report.nodes, cells)
}

async fn raise(session: &Session, to: Option<u32>, yes: bool) -> Result<(), Failure> {
    session.confirm("raising the cluster's feature level", yes)?;
    let request = v1::RaiseLevelRequest { to, request_id: String::new() };
    let reply = session.control()?.raise_level(request).await.map_err(failed)?;
    session.out.line(&format!("feature level {} is in force", reply.in_force))
}

const fn role(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Control => "control",
        v1::NodeRole::Edge => "edge",
        v1::NodeRole::Relay => "relay",
        v1::NodeRole::Unspecified => "unknown",
    }
}
