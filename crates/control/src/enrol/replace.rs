//! Replacement of the certificate authority: by command, and by itself after a control node was revoked, which has had the key.
//!
//! One command makes the new authority issue ([`rotate`]); each node sees that in its state and trades its certificate. Former
//! authorities are dropped by a second command, when their time is over ([`keep_up`]) or a person says so ([`finish`]). What has been done
//! is seen in the state alone, so whatever is cut short is gone on with by the next leader.

use std::sync::atomic::Ordering;

use state::{CommandBody, GrantScope, Operation, Principal, State, record::TrustRecord};
use types::{NodeId, UnixMillis};
use wire::{ErrorKind, PublicError, v1};

use super::authority::{self, Terms};
use crate::{
    bootstrap::own_call,
    call::Call,
    caller::Caller,
    core::Core,
    error::{damaged, unexpected},
    keys,
};

/// How often an authority is made anew because the registry moved on.
const ATTEMPTS_MAX: u32 = 4;
/// How long people and services have for a former authority, if nothing else is said.
const KEPT_USUALLY_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How long the authority of a revoked node is believed at most. Whoever has stolen its key can pass for any node or consumer so long.
const EXPOSED_FOR_MS: u64 = 10 * 60 * 1000;
/// Names of nodes in an answer.
const NAMED_MAX: usize = 1000;

/// Replaces the authority in the caller's name.
pub(crate) async fn rotate(core: &Core, call: &Call, keep_ms: Option<u64>) -> Result<(), PublicError> {
    if core.first_answer(call).await?.is_some() {
        return Ok(());
    }
    let terms = Terms { keep_ms: keep_ms.unwrap_or(KEPT_USUALLY_MS), drop_after_ms: None };
    for _ in 0..ATTEMPTS_MAX {
        let plan = |state: &State, caller: &Caller| {
            caller.require(Operation::ManageAuthority, GrantScope::Cluster)?;
            Ok((caller.principal(), state.clone()))
        };
        let (principal, state) = core.read(call, plan).await?;
        if replaced(core, call, principal, &state, terms).await? {
            return Ok(());
        }
    }
    Err(PublicError::new(ErrorKind::Busy, "control nodes came and went meanwhile: try again"))
}

/// Replaces an authority whose key a revoked node has had.
pub(crate) async fn exposed(core: &Core) -> Result<(), PublicError> {
    let terms = Terms { keep_ms: 0, drop_after_ms: Some(EXPOSED_FOR_MS) };
    for _ in 0..ATTEMPTS_MAX {
        let state = core.newest().await?;
        let is_exposed = state.trust().map_err(damaged)?.is_some_and(|trust| trust.exposed.is_some());
        if !is_exposed || replaced(core, &own_call(core), Principal::Node { node: core.node }, &state, terms).await? {
            return Ok(());
        }
    }
    Err(PublicError::new(ErrorKind::Busy, "control nodes came and went meanwhile"))
}

/// One attempt; false when the state has moved on, so that another may do.
async fn replaced(core: &Core, call: &Call, principal: Principal, state: &State, terms: Terms) -> Result<bool, PublicError> {
    let new = authority::successor(core, state, terms)?;
    let number = new.number;
    match core.propose(call, principal, CommandBody::RotateAuthority(Box::new(new))).await {
        Ok(_) => {
            tracing::warn!(authority = number, "the certificate authority was replaced: every node trades its certificate");
            Ok(true)
        }
        Err(error) if error.kind == ErrorKind::Precondition => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends the belief in former authorities in the caller's name.
pub(crate) async fn finish(core: &Core, call: &Call, force: bool) -> Result<(), PublicError> {
    let plan = |state: &State, caller: &Caller| {
        caller.require(Operation::ManageAuthority, GrantScope::Cluster)?;
        Ok(CommandBody::FinishAuthority { number: authority::number(state)?, force })
    };
    crate::write::plain(core, call, plan).await?;
    Ok(())
}

/// What the leader does by itself: it replaces an authority that is exposed, and drops former ones whose time is over.
pub(crate) async fn keep_up(core: &Core) {
    let state = core.consensus.local();
    let Ok(Some(trust)) = state.trust() else { return };
    if trust.exposed.is_some()
        && let Err(error) = exposed(core).await
    {
        tracing::warn!(reason = error.message, "the certificate authority was not replaced; it is tried again");
        return;
    }
    let now = keys::now(core, &state);
    if !trust.former.iter().any(|former| former.is_over(now, true)) {
        return;
    }
    let Ok(behind) = behind(&state, trust.issuing) else { return };
    if trust.former.iter().any(|former| former.is_over(now, behind.names.is_empty())) {
        let finish = CommandBody::FinishAuthority { number: trust.issuing, force: false };
        match core.propose(&own_call(core), Principal::Node { node: core.node }, finish).await {
            Ok(_) => tracing::warn!(issuing = trust.issuing, "former certificate authorities are believed no more"),
            Err(error) => tracing::info!(reason = error.message, "former certificate authorities were not dropped; it is tried again"),
        }
    }
}

/// Says once that this node's own certificate is by the authority that issues.
pub(crate) async fn report(core: &Core) {
    let authority = core.enrolment.certified_by.load(Ordering::Relaxed);
    let noted = core.consensus.local().certified_by(core.node).unwrap_or(authority);
    if authority <= noted {
        return;
    }
    let note = CommandBody::NoteCertificate { node: core.node, authority };
    if let Err(error) = core.propose(&own_call(core), Principal::Node { node: core.node }, note).await {
        tracing::debug!(reason = error.message, "this node's certificate was not noted; it is tried again");
    }
}

/// Notes that a node gets a certificate by the authority that issues.
pub(super) async fn note(core: &Core, call: &Call, state: &State, node: NodeId) -> Result<(), PublicError> {
    let authority = authority::number(state)?;
    if state.certified_by(node).map_err(damaged)? >= authority {
        return Ok(());
    }
    core.propose(call, Principal::Node { node: core.node }, CommandBody::NoteCertificate { node, authority }).await.map(drop)
}

/// Nodes in good standing.
struct Behind {
    all: u32,
    /// Of those without a certificate by the authority that issues.
    names: Vec<String>,
}

fn behind(state: &State, issuing: u32) -> Result<Behind, PublicError> {
    let (mut found, mut after) = (Behind { all: 0, names: Vec::new() }, None);
    loop {
        let page = state.nodes(after.as_ref(), state::limits::PAGE_MAX).map_err(damaged)?;
        for (node, record) in page.items.into_iter().filter(|(_, record)| record.revoked.is_none()) {
            found.all += 1;
            if state.certified_by(node).map_err(damaged)? < issuing {
                found.names.push(record.name.to_string());
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// The authorities as callers see them; `administers`: with the nodes that are behind.
pub(crate) fn shown(state: &State, administers: bool) -> Result<v1::ShowAuthorityReply, PublicError> {
    let unavailable = || PublicError::new(ErrorKind::Unavailable, "the cluster is not set up yet");
    let first = state.authority().map_err(damaged)?.ok_or_else(unavailable)?.certificate;
    let trust = state.trust().map_err(damaged)?.unwrap_or_else(|| TrustRecord::first(first));
    let authority = |number: u32, certificate: &[u8]| {
        let fingerprint = runtime::tls::authority_fingerprint(certificate).ok_or_else(unexpected)?.to_string();
        Ok::<_, PublicError>(v1::Authority { number, certificate: certificate.to_vec().into(), fingerprint, ..Default::default() })
    };
    let mut authorities =
        vec![v1::Authority { issuing: true, since_ms: trust.since.get(), ..authority(trust.issuing, &trust.certificate)? }];
    for former in trust.former.iter().rev() {
        let drop_by_ms = former.drop_by.map_or(0, UnixMillis::get);
        authorities.push(v1::Authority {
            keep_until_ms: former.keep_until.get(),
            drop_by_ms,
            ..authority(former.number, &former.certificate)?
        });
    }
    let mut behind = if administers { behind(state, trust.issuing)? } else { Behind { all: 0, names: Vec::new() } };
    behind.names.truncate(NAMED_MAX);
    Ok(v1::ShowAuthorityReply {
        version: trust.version,
        authorities,
        exposed: trust.exposed.is_some(),
        behind: behind.names,
        nodes: behind.all,
    })
}
