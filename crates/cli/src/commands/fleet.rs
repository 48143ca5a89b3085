//! `fleet`.

use serde::Serialize;
use wire::v1;

use super::{
    Session, all_pages, or_dash,
    status::{NEVER, known, position},
    time_or_none,
};
use crate::Failure;

#[derive(Serialize)]
struct Row {
    node: String,
    node_id: u64,
    role: &'static str,
    connected_to: Option<String>,
    leader: bool,
    durable: String,
    lag_revisions: Option<u64>,
    seen: Option<String>,
    feature_level: Option<u32>,
    certificate_ends: Option<String>,
}

impl From<v1::FleetNode> for Row {
    fn from(node: v1::FleetNode) -> Self {
        let role = match node.role() {
            v1::NodeRole::Control => "control",
            v1::NodeRole::Edge => "edge",
            v1::NodeRole::Relay => "relay",
            v1::NodeRole::Unspecified => "unknown",
        };
        let control = node.role() == v1::NodeRole::Control;
        Self {
            role,
            leader: control && !node.connected_to.is_empty(),
            connected_to: (!control && !node.connected_to.is_empty()).then_some(node.connected_to),
            node: node.node_name,
            node_id: node.node_id,
            durable: position(node.durable),
            lag_revisions: node.lag_revisions,
            seen: time_or_none(node.seen_ms),
            feature_level: (node.feature_level != 0).then_some(node.feature_level),
            certificate_ends: time_or_none(node.certificate_ends_ms),
        }
    }
}

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let client = session.control()?;
    let nodes = all_pages(|page| {
        let request = v1::ListFleetRequest { page: Some(page) };
        async { client.list_fleet(request).await.map(|reply| (reply.nodes, reply.next_page)) }
    });
    let rows: Vec<Row> = nodes.await?.into_iter().map(Row::from).collect();
    let headers = ["node", "id", "role", "connected to", "holds", "behind", "seen", "level", "certificate ends"];
    session.out.rows(&headers, &rows, |row| {
        vec![
            row.node.clone(),
            row.node_id.to_string(),
            if row.leader { format!("{} (leader)", row.role) } else { row.role.to_owned() },
            or_dash(row.connected_to.as_deref().unwrap_or_default()),
            row.durable.clone(),
            known(row.lag_revisions),
            row.seen.clone().unwrap_or_else(|| NEVER.to_owned()),
            known(row.feature_level),
            or_dash(row.certificate_ends.as_deref().unwrap_or_default()),
        ]
    })
}
