//! `cluster status|members|add|promote|remove|transfer`: which control nodes vote, and who leads.

use std::time::{Duration, Instant};

use client::{Client, ClientError};
use serde::Serialize;
use wire::{ErrorKind, v1};

use super::{Session, failed, or_dash};
use crate::{ClusterCommand, Failure};

/// Between two questions whether a learner has caught up.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// One member in the output.
#[derive(Serialize)]
struct Row {
    node: String,
    node_id: u64,
    role: &'static str,
    leader: bool,
    address: String,
}

impl From<v1::Member> for Row {
    fn from(member: v1::Member) -> Self {
        let role = match member.role() {
            v1::MemberRole::Voter => "voter",
            v1::MemberRole::Learner => "learner",
            v1::MemberRole::Unspecified => "none",
        };
        Self { role, leader: member.leader, node: member.name, node_id: member.node_id, address: member.address }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let role = if self.leader { format!("{} (leader)", self.role) } else { self.role.to_owned() };
        vec![or_dash(&self.node), self.node_id.to_string(), role, or_dash(&self.address)]
    }
}

/// What `members` prints as JSON.
#[derive(Serialize)]
struct Members {
    members: Vec<Row>,
    change_unfinished: bool,
}

/// One member and how far it is.
#[derive(Serialize)]
struct StatusRow {
    #[serde(flatten)]
    member: Row,
    matched_index: Option<u64>,
    behind_entries: Option<u64>,
    heard_ms_ago: Option<u64>,
    clock_ahead_ms: Option<i64>,
}

/// What `status` prints as JSON.
#[derive(Serialize)]
struct Status {
    leader: Option<String>,
    no_leader_ms: Option<u64>,
    term: u64,
    last_index: u64,
    members: Vec<StatusRow>,
    change_unfinished: bool,
}

const UNFINISHED: &str = "a change of voters is under way, or was interrupted; the next change finishes it";

pub(super) async fn run(session: &Session, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status => return status(session).await,
        ClusterCommand::Members => return members(session).await,
        ClusterCommand::Transfer { node } => return transfer(session, node).await,
        ClusterCommand::Add { node, address } => add(session, node, address).await?,
        ClusterCommand::Promote { node } => promote(session, node).await?,
        ClusterCommand::Remove { node, force, yes } => remove(session, node, force, yes).await?,
        ClusterCommand::Init(_) | ClusterCommand::Level(_) | ClusterCommand::Ca(_) => {
            return Err(Failure::failed("this command is not one of the membership's"));
        }
    }
    // The members have changed. That they cannot be listed right now is no failure of the change.
    if let Ok(reply) = session.control()?.cluster_members(v1::ClusterMembersRequest {}).await {
        remember(session, &reply.members);
    }
    Ok(())
}

fn remember(session: &Session, members: &[v1::Member]) {
    session.remember(members.iter().map(|member| member.address.clone()));
}

async fn members(session: &Session) -> Result<(), Failure> {
    let reply = session.control()?.cluster_members(v1::ClusterMembersRequest {}).await.map_err(failed)?;
    remember(session, &reply.members);
    let members: Vec<Row> = reply.members.into_iter().map(Row::from).collect();
    if session.out.is_json() {
        return session.out.json(&Members { members, change_unfinished: reply.joint });
    }
    if reply.joint {
        session.out.say(UNFINISHED);
    }
    session.out.rows(&["node", "id", "role", "address"], &members, Row::cells)
}

async fn status(session: &Session) -> Result<(), Failure> {
    let reply = session.control()?.cluster_status(v1::ClusterStatusRequest {}).await.map_err(failed)?;
    session.remember(reply.members.iter().filter_map(|row| row.member.as_ref()).map(|member| member.address.clone()));
    let row = |status: v1::MemberStatus| {
        let progress = status.progress.unwrap_or_default();
        StatusRow {
            member: status.member.unwrap_or_default().into(),
            matched_index: progress.matched_index,
            behind_entries: progress.matched_index.map(|matched| reply.last_index.saturating_sub(matched)),
            heard_ms_ago: progress.contact_ms,
            clock_ahead_ms: status.clock_ahead_ms,
        }
    };
    let members: Vec<StatusRow> = reply.members.into_iter().map(row).collect();
    let report = Status {
        leader: members.iter().find(|row| row.member.leader).map(|row| row.member.node.clone()),
        no_leader_ms: reply.leaderless_ms,
        term: reply.term,
        last_index: reply.last_index,
        members,
        change_unfinished: reply.joint,
    };
    if session.out.is_json() {
        return session.out.json(&report);
    }
    if let Some(ms) = report.no_leader_ms {
        session.out.line(&format!("no leader for {} s: a majority of the voters is needed for one, and for every write", ms / 1000))?;
    }
    session.out.line(&format!("term {}, last entry {}", report.term, report.last_index))?;
    if report.change_unfinished {
        session.out.line(UNFINISHED)?;
    }
    session.out.rows(&["node", "id", "role", "address", "behind", "heard", "clock"], &report.members, |row| {
        let mut cells = row.member.cells();
        cells.push(match row.behind_entries {
            _ if report.no_leader_ms.is_some() => "-".to_owned(),
            Some(entries) => entries.to_string(),
            None => "unknown".to_owned(),
        });
        cells.push(match row.heard_ms_ago {
            _ if row.member.leader || report.no_leader_ms.is_some() => "-".to_owned(),
            Some(ms) => format!("{ms} ms ago"),
            None => "never".to_owned(),
        });
        cells.push(row.clock_ahead_ms.map_or_else(|| "-".to_owned(), clock));
        cells
    })
}

/// How far a clock is off, to a tenth of a second.
fn clock(ahead_ms: i64) -> String {
    let tenths = (ahead_ms as f64 / 100.0).round() as i64;
    format!("{:+.1} s", tenths as f64 / 10.0)
}

/// Prints the member that a change was about.
fn show(session: &Session, reply: v1::ClusterChangeReply) -> Result<(), Failure> {
    let row = Row::from(reply.member.unwrap_or_default());
    let fields =
        [("node", or_dash(&row.node)), ("id", row.node_id.to_string()), ("role", row.role.to_owned()), ("address", or_dash(&row.address))];
    session.out.record(&row, &fields)
}

async fn add(session: &Session, node: String, address: Option<String>) -> Result<(), Failure> {
    let request = v1::ClusterAddRequest { node: node.clone(), address: address.unwrap_or_default() };
    let reply = session.control()?.cluster_add(request).await.map_err(failed)?;
    session.out.say(&format!("{node} gets the log now; make it a voter with `cinnabar cluster promote {node}`"));
    show(session, reply)
}

/// Asks until the learner has caught up, within the command's time.
#[expect(clippy::disallowed_methods, reason = "an operator's command waits in the real world")]
async fn promote(session: &Session, node: String) -> Result<(), Failure> {
    let client = session.control()?;
    let end = Instant::now() + session.global.timeout;
    loop {
        match client.cluster_promote(v1::ClusterPromoteRequest { node: node.clone() }).await {
            Ok(reply) => return show(session, reply),
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() + ASK_EVERY < end => {
                say_progress(session, &client, &node, &error).await;
                tokio::time::sleep(ASK_EVERY).await;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

async fn say_progress(session: &Session, client: &Client, node: &str, error: &ClientError) {
    let found = client.cluster_status(v1::ClusterStatusRequest {}).await.ok().and_then(|reply| {
        let last = reply.last_index;
        let fits = |member: &v1::Member| member.name == node || member.node_id.to_string() == node;
        let row = reply.members.into_iter().find(|row| row.member.as_ref().is_some_and(fits))?;
        Some((row.progress?.matched_index?, last))
    });
    match found {
        Some((matched, last)) => session.out.say(&format!("{node} has entry {matched} of {last}; waiting")),
        None => session.out.say(&format!("waiting: {}", error.error.message)),
    }
}

async fn remove(session: &Session, node: String, force: bool, yes: bool) -> Result<(), Failure> {
    session.confirm(&format!("taking {node} out of the cluster's members"), yes)?;
    let reply = session.control()?.cluster_remove(v1::ClusterRemoveRequest { node, force }).await.map_err(failed)?;
    session.out.say("it is no member any more; stop it, and revoke it with `cinnabar node revoke` if it must not come back");
    show(session, reply)
}

async fn transfer(session: &Session, node: Option<String>) -> Result<(), Failure> {
    let request = v1::ClusterTransferRequest { node: node.unwrap_or_default() };
    show(session, session.control()?.cluster_transfer(request).await.map_err(failed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_shown_with_its_sign() {
        let shown = [0, 49, -49, 50, -1_449, 3_600_000].map(clock);
        assert_eq!(shown, ["+0.0 s", "+0.0 s", "+0.0 s", "+0.1 s", "-1.4 s", "+3600.0 s"]);
    }
}
