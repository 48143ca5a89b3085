//! The certificate authority's replacement: a new one issues, former ones are trusted for a while, then nobody believes them.

use std::time::Duration;

use types::{NodeId, UnixMillis};

use super::{Halt, Identity, Judged, Stop, View, enrolment, refuse};
use crate::{
    Keyspace, Prefix, Recipient, Refusal, RefusalKind, ReplyBody, RotateAuthority, TypedKey,
    limits::{FORMER_AUTHORITIES_MAX, WRAP_BYTES_MAX},
    record::{AuthorityRecord, CertifiedRecord, FormerAuthority, JoinTokenRecord, NodeRecord, TrustRecord},
};

/// Nodes that a refusal names.
const NAMED_MAX: usize = 8;

/// The authorities as they stand, also before any of them was replaced.
fn standing(view: &View<'_>) -> Judged<(TrustRecord, AuthorityRecord)> {
    let Some(authority) = view.read::<AuthorityRecord>(TypedKey::Authority)? else {
        return Err(Halt::Broken { what: "the certificate authority is not there" }.into());
    };
    let trust = view.read(TypedKey::Trust)?.unwrap_or_else(|| TrustRecord::first(authority.certificate.clone()));
    Ok((trust, authority))
}

/// A new authority takes over. The proposer made and checked the certificates; what is judged here is whom the key was sealed for.
pub(super) fn rotate(view: &mut View<'_>, identity: &Identity, new: &RotateAuthority) -> Judged<ReplyBody> {
    view.settings()?;
    let (mut trust, before) = standing(view)?;
    if matches!(identity, Identity::Node(_)) && trust.exposed.is_none() {
        return refuse(RefusalKind::Denied, "a node replaces the certificate authority only after one that had its key was revoked");
    }
    if trust.issuing.checked_add(1) != Some(new.number) {
        let message = format!("certificate authority {} does not follow authority {}, which issues now", new.number, trust.issuing);
        return refuse(RefusalKind::Precondition, message);
    }
    if new.crossed.is_empty() || new.crossed.len() > WRAP_BYTES_MAX {
        return refuse(RefusalKind::InvalidArgument, "the new certificate authority comes without a certificate by the one before");
    }
    check_recipients(view, &before, &new.authority)?;
    let (keep_until, drop_by) =
        (view.time.plus(Duration::from_millis(new.keep_ms)), new.drop_after_ms.map(|after| view.time.plus(Duration::from_millis(after))));
    trust.former.push(FormerAuthority {
        number: trust.issuing,
        certificate: std::mem::take(&mut trust.certificate),
        crossed: new.crossed.clone(),
        keep_until,
        drop_by,
    });
    if trust.exposed.take().is_some() {
        // Whoever had the last key, had those before it too.
        for former in &mut trust.former {
            former.keep_until = former.keep_until.min(keep_until);
            former.drop_by = earlier(former.drop_by, drop_by);
        }
    }
    let surplus = trust.former.len().saturating_sub(FORMER_AUTHORITIES_MAX);
    trust.former.drain(..surplus);
    trust.issuing = new.number;
    trust.certificate = new.authority.certificate.clone();
    trust.since = view.time;
    trust.version = trust.version.saturating_add(1);
    enrolment::put_authority(view, new.authority.clone())?;
    view.put(TypedKey::Trust, &trust);
    void_join_tokens(view)?;
    Ok(ReplyBody::AuthorityRotated { authority: new.number })
}

fn earlier(one: Option<UnixMillis>, other: Option<UnixMillis>) -> Option<UnixMillis> {
    one.into_iter().chain(other).min()
}

/// The key is for control nodes in good standing, for all that had the one before, and for the recovery key if that had it.
fn check_recipients(view: &View<'_>, before: &AuthorityRecord, new: &AuthorityRecord) -> Judged<()> {
    for (recipient, _) in &new.envelopes {
        match recipient {
            Recipient::Recovery => {}
            Recipient::Node(node) if is_control(view, *node)? => {}
            Recipient::Node(_) | Recipient::Root(_) => {
                let message = format!("the new certificate authority's key is sealed for {recipient:?}, which must not have it");
                return refuse(RefusalKind::Precondition, message);
            }
        }
    }
    let lacks = |(recipient, _): &&(Recipient, _)| new.envelope(*recipient).is_none();
    match before.envelopes.iter().find(lacks) {
        Some((recipient, _)) => refuse(
            RefusalKind::Precondition,
            format!("the new certificate authority's key is not sealed for {recipient:?}, which had the one before"),
        ),
        None => Ok(()),
    }
}

fn is_control(view: &View<'_>, node: NodeId) -> Judged<bool> {
    let record = view.read::<NodeRecord>(TypedKey::Node { node })?;
    Ok(record.is_some_and(|record| record.role == crate::record::NodeRole::Control && record.revoked.is_none()))
}

/// They pin the authority of before: whoever has stolen its key could take them from a node that joins.
fn void_join_tokens(view: &mut View<'_>) -> Judged<()> {
    let all = Prefix::keyspace(Keyspace::JoinToken);
    let keys: Vec<_> = view.state.scan_control(&all).filter_map(|(key, _)| key.decode().ok()).collect();
    for key in keys {
        if let Some(token) = view.read::<JoinTokenRecord>(key.clone())?
            && token.is_usable(view.time)
        {
            view.put(key, &JoinTokenRecord { revoked: Some(view.time), ..token });
        }
    }
    Ok(())
}

/// Former authorities are believed no more: all of them when a person says so, else those whose time has come.
pub(super) fn finish(view: &mut View<'_>, identity: &Identity, number: u32, force: bool) -> Judged<ReplyBody> {
    let (mut trust, _) = standing(view)?;
    if trust.issuing != number {
        let message =
            format!("certificate authority {} issues now, not {number}: look again with `cinnabar cluster ca show`", trust.issuing);
        return refuse(RefusalKind::Precondition, message);
    }
    if trust.former.is_empty() {
        return refuse(RefusalKind::Precondition, "no former certificate authority is trusted any more; there is nothing to finish");
    }
    let behind = behind(view, trust.issuing)?;
    match identity {
        Identity::Operator(_) if !behind.is_empty() && !force => {
            let named: Vec<_> = behind.iter().take(NAMED_MAX).map(|node| node.as_str()).collect();
            let more = behind.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!(
                "{} nodes have no certificate by the new authority yet: {}{more}. Wait for them, or go on with --force: they are then let in only to renew",
                behind.len(),
                named.join(", ")
            );
            return refuse(RefusalKind::Precondition, message);
        }
        Identity::Operator(_) | Identity::System => trust.former.clear(),
        Identity::Node(_) => {
            let (time, before) = (view.time, trust.former.len());
            trust.former.retain(|former| !former.is_over(time, behind.is_empty()));
            if trust.former.len() == before {
                return refuse(RefusalKind::Precondition, "no former certificate authority's time is over yet");
            }
        }
    }
    trust.version = trust.version.saturating_add(1);
    view.put(TypedKey::Trust, &trust);
    Ok(ReplyBody::AuthoritiesDropped)
}

/// The names of the nodes in good standing that have no certificate by this authority.
fn behind(view: &View<'_>, issuing: u32) -> Judged<Vec<types::NodeName>> {
    let all = Prefix::keyspace(Keyspace::Node);
    let mut found = Vec::new();
    for (key, _) in view.state.scan(&all) {
        let Ok(TypedKey::Node { node }) = key.decode() else { continue };
        let Some(record) = view.read::<NodeRecord>(TypedKey::Node { node })?.filter(|record| record.revoked.is_none()) else { continue };
        if view.read::<CertifiedRecord>(TypedKey::Certified { node })?.map_or(1, |certified| certified.authority) < issuing {
            found.push(record.name);
        }
    }
    Ok(found)
}

/// A node has a certificate by this authority.
pub(super) fn note(view: &mut View<'_>, node: NodeId, authority: u32) -> Judged<ReplyBody> {
    let (trust, _) = standing(view)?;
    match view.read::<NodeRecord>(TypedKey::Node { node })? {
        None => return refuse(RefusalKind::NotFound, format!("no node {node}")),
        Some(record) if record.revoked.is_some() => return refuse(RefusalKind::Precondition, format!("node {node} is revoked")),
        Some(_) => {}
    }
    if authority == 0 || authority > trust.issuing {
        return refuse(RefusalKind::InvalidArgument, format!("there is no certificate authority {authority}"));
    }
    view.put(TypedKey::Certified { node }, &CertifiedRecord { authority });
    Ok(ReplyBody::CertificateNoted)
}

/// A node that joins after a replacement has its certificate by the new authority.
pub(super) fn joined(view: &mut View<'_>, node: NodeId) -> Judged<()> {
    if let Some(trust) = view.read::<TrustRecord>(TypedKey::Trust)? {
        view.put(TypedKey::Certified { node }, &CertifiedRecord { authority: trust.issuing });
    }
    Ok(())
}

/// A node that could open the authority's key is shut out: the key has to be replaced.
pub(super) fn expose(view: &mut View<'_>) -> Judged<()> {
    let (mut trust, _) = standing(view)?;
    trust.exposed = Some(view.time);
    trust.version = trust.version.saturating_add(1);
    view.put(TypedKey::Trust, &trust);
    Ok(())
}

/// The authority's number, which an envelope of its key must be made for.
pub(super) fn check_number(view: &View<'_>, number: u32) -> Judged<()> {
    let (trust, _) = standing(view)?;
    if trust.issuing == number {
        return Ok(());
    }
    Err(Stop::Refused(Refusal::new(
        RefusalKind::Precondition,
        format!("the key handed over is of certificate authority {number}; authority {} issues now", trust.issuing),
    )))
}
