//! `cluster ca show|rotate|finish`: the certificate authority, and the context's copy of what to believe.

use std::sync::atomic::Ordering;

use runtime::tls::{trust_pem as pem, trust_version as version_of};
use serde::Serialize;
use wire::v1;

use super::{Session, failed, time_or_none};
use crate::{CaCommand, Contexts, Failure};

/// Nodes that are named.
const NAMED_MAX: usize = 16;

#[derive(Serialize)]
struct Row {
    number: u32,
    issuing: bool,
    fingerprint: String,
    since: Option<String>,
    keep_until: Option<String>,
    drop_by: Option<String>,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Shown {
    version: u32,
    exposed: bool,
    nodes: u32,
    behind: Vec<String>,
    authorities: Vec<Row>,
}

impl From<v1::Authority> for Row {
    fn from(one: v1::Authority) -> Self {
        Self {
            number: one.number,
            issuing: one.issuing,
            fingerprint: one.fingerprint,
            since: time_or_none(one.since_ms),
            keep_until: time_or_none(one.keep_until_ms),
            drop_by: time_or_none(one.drop_by_ms),
        }
    }
}

pub(super) async fn run(session: &Session, command: CaCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        CaCommand::Show => show(session, client.show_authority(v1::ShowAuthorityRequest {}).await.map_err(failed)?),
        CaCommand::Rotate { keep, yes } => {
            session.confirm("replacing the certificate authority voids open join tokens and", yes)?;
            let keep_ms = keep.map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
            let request = v1::RotateAuthorityRequest { keep_ms, ..Default::default() };
            let reply = client.rotate_authority(request).await.map_err(failed)?;
            take_over(session, &reply)?;
            session.out.say("a new certificate authority issues; every node trades its certificate within seconds");
            reissue(session);
            session.out.say("open join tokens are void: make new ones. `cinnabar cluster ca show` says who is behind, and until when the one before is believed");
            show(session, reply)
        }
        CaCommand::Finish { force, yes } => {
            session.confirm("ending the belief in former certificate authorities", yes)?;
            let reply = client.finish_authority(v1::FinishAuthorityRequest { force, ..Default::default() }).await.map_err(failed)?;
            session.out.say("former certificate authorities are believed no more, by no node");
            reissue(session);
            show(session, reply)
        }
    }
}

/// What nobody can do for the operator: the cluster does not know who holds such certificates.
fn reissue(session: &Session) {
    session.out.say(
        "certificates of consumers by a former authority are refused once it is dropped: issue them anew, and give consumers the new CA file (identity/ca.pem of any node). The cluster does not know how many there are",
    );
}

fn show(session: &Session, reply: v1::ShowAuthorityReply) -> Result<(), Failure> {
    take_over(session, &reply)?;
    let shown = Shown {
        version: reply.version,
        exposed: reply.exposed,
        nodes: reply.nodes,
        behind: reply.behind,
        authorities: reply.authorities.into_iter().map(Row::from).collect(),
    };
    if session.out.is_json() {
        return session.out.json(&shown);
    }
    if shown.exposed {
        session.out.line("a node was revoked that could open this authority's key: it is being replaced")?;
    }
    session.out.rows(&["ca", "state", "since", "believed until", "fingerprint"], &shown.authorities, |row| {
        let state = if row.issuing { "issues" } else { "former" };
        let until = match (&row.keep_until, &row.drop_by) {
            (_, Some(by)) => format!("at most {by}"),
            (Some(until), None) => format!("{until}, or while a node needs it"),
            (None, None) => "-".to_owned(),
        };
        vec![row.number.to_string(), state.to_owned(), row.since.clone().unwrap_or("-".to_owned()), until, row.fingerprint.clone()]
    })?;
    let former = shown.authorities.len() > 1;
    if former && shown.behind.is_empty() {
        session.out.say(&format!("all {} nodes have certificates by the one that issues", shown.nodes));
    } else if !shown.behind.is_empty() {
        let named: Vec<_> = shown.behind.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = shown.behind.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        session.out.say(&format!("{} of {} nodes have none yet: {}{more}", shown.behind.len(), shown.nodes, named.join(", ")));
    }
    Ok(())
}

/// Puts what is to be believed into the context: what the cluster says now, whatever the context holds. It was read from the newest state,
/// over a connection that the context's list verified. A list that claims to be newer gives way too: only somebody with a stolen authority
/// can have told it, and the context would believe it for ever.
fn take_over(session: &Session, reply: &v1::ShowAuthorityReply) -> Result<(), Failure> {
    let mut contexts = session.contexts()?;
    let name = contexts.choose(session.global.context.as_deref())?.0.to_owned();
    let Some(context) = contexts.contexts.get_mut(&name) else { return Ok(()) };
    let held = version_of(&context.ca);
    // Version 0 is a list from before the first replacement; the context has that authority from its beginning.
    if reply.authorities.is_empty() || (reply.version == 0 && held == 0) {
        return Ok(());
    }
    let told = pem(reply.version, reply.authorities.iter().map(|one| &one.certificate[..]));
    if told == context.ca {
        return Ok(());
    }
    if reply.version < held {
        session.out.say(&format!("the context believed certificate authorities of version {held}, which the cluster does not know: it has version {}, and the context takes that over. If you have not restored a snapshot, somebody had a certificate authority of this cluster: replace the context's token, and look at `cinnabar cluster ca show`", reply.version));
    }
    context.ca = told;
    Ok(contexts.save(&Contexts::path()?)?)
}

/// After a command: a server that named another list than the context's is asked for it. The command itself has done its work, so a failure
/// is only told.
pub(super) async fn refresh(session: &Session) {
    let seen = session.trust.load(Ordering::Relaxed);
    let held = session.context().map_or(seen, |context| version_of(&context.ca));
    // Nothing was named by a cluster that has never replaced its authority, nor by a command that made no call.
    if seen == 0 || seen == held {
        return;
    }
    let refreshed = async {
        let reply = session.control()?.show_authority(v1::ShowAuthorityRequest {}).await.map_err(failed)?;
        take_over(session, &reply)
    };
    if let Err(error) = refreshed.await {
        session.out.say(&format!("the context does not know the cluster's new certificate authority yet: {error}"));
    }
}
