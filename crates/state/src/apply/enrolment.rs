//! How nodes become members: join tokens, and the one command that uses one.

use types::{NodeId, TokenId};

use super::{Halt, Identity, Judged, View, authorities, keks, nodes, refuse};
use crate::{
    EnrolNode, Keyspace, NewJoinToken, NewNode, Prefix, Recipient, RefusalKind, ReplyBody, TypedKey,
    limits::{JOIN_TOKEN_AGE_MAX, JOIN_TOKEN_KEPT, JOIN_TOKEN_USES_MAX, JOIN_TOKENS_MAX, WRAP_BYTES_MAX},
    record::{AuthorityRecord, EnvelopeRecord, JoinTokenRecord, KekEpochRecord, KekState, NodeRecord, NodeRole},
};

pub(super) fn create_token(view: &mut View<'_>, identity: &Identity, new: &NewJoinToken, hash: [u8; 32]) -> Judged<ReplyBody> {
    view.settings()?;
    let Identity::Operator(creator) = identity else {
        return refuse(RefusalKind::Denied, "join tokens are made by people");
    };
    check_token(view, new)?;
    let kept = sweep(view)?;
    if kept >= JOIN_TOKENS_MAX {
        let message =
            format!("there are {JOIN_TOKENS_MAX} join tokens, the most that there can be; those that have expired go after a day");
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    let (key, by_id) = (TypedKey::JoinToken { hash }, TypedKey::JoinTokenId { token: new.id });
    if view.has(key.clone()) || view.has(by_id.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the join token {} exists already", new.id));
    }
    let record = JoinTokenRecord {
        token_id: new.id,
        role: new.role,
        name: new.name.clone(),
        labels: new.labels.clone(),
        created_by: creator.token.name.clone(),
        created: view.time,
        expires: new.expires,
        uses_left: new.uses,
        revoked: None,
        enrolled: Vec::new(),
    };
    view.put(key, &record);
    view.put(by_id, &hash);
    Ok(ReplyBody::JoinTokenCreated { token: new.id })
}

fn check_token(view: &View<'_>, new: &NewJoinToken) -> Judged<()> {
    let hours = JOIN_TOKEN_AGE_MAX.as_secs() / 3600;
    let wrong = if new.expires <= view.time || new.expires > view.time.plus(JOIN_TOKEN_AGE_MAX) {
        format!("a join token is good for a while, at most {hours} hours")
    } else if new.uses == 0 || new.uses > JOIN_TOKEN_USES_MAX {
        format!("a join token is good for 1 to {JOIN_TOKEN_USES_MAX} nodes, not for {}", new.uses)
    } else if new.name.is_some() && new.uses != 1 {
        "a join token that names its node is good for one node".to_owned()
    } else {
        return nodes::check_labels(&new.labels);
    };
    refuse(RefusalKind::InvalidArgument, wrong)
}

/// Clears away tokens that nobody needs to look at any more; says how many are left.
fn sweep(view: &mut View<'_>) -> Result<usize, Halt> {
    let all = Prefix::keyspace(Keyspace::JoinToken);
    let keys: Vec<_> = view.state.scan_control(&all).filter_map(|(key, _)| key.decode().ok()).collect();
    let mut kept = 0;
    for key in keys {
        match view.read::<JoinTokenRecord>(key.clone())? {
            Some(token) if token.expires.plus(JOIN_TOKEN_KEPT) <= view.time => {
                view.delete(key);
                view.delete(TypedKey::JoinTokenId { token: token.token_id });
            }
            _ => kept += 1,
        }
    }
    Ok(kept)
}

pub(super) fn revoke_token(view: &mut View<'_>, token: TokenId) -> Judged<ReplyBody> {
    let hash: Option<[u8; 32]> = view.read(TypedKey::JoinTokenId { token })?;
    let Some(hash) = hash else { return refuse(RefusalKind::NotFound, format!("no join token {token}")) };
    let Some(record) = view.read::<JoinTokenRecord>(TypedKey::JoinToken { hash })? else {
        return Err(Halt::Broken { what: "a join token's id names a token that is not there" }.into());
    };
    if record.revoked.is_none() {
        view.put(TypedKey::JoinToken { hash }, &JoinTokenRecord { revoked: Some(view.time), ..record });
    }
    Ok(ReplyBody::JoinTokenRevoked)
}

/// Makes a node a member in one command: a use of the token, the registry, its envelopes and the signer set. One that has joined by
/// this token before, and did not hear so, gets the same answer and uses nothing up.
pub(super) fn enrol(view: &mut View<'_>, enrol: &EnrolNode) -> Judged<ReplyBody> {
    let key = TypedKey::JoinToken { hash: enrol.token };
    let Some(mut token) = view.read::<JoinTokenRecord>(key.clone())? else { return no_token() };
    if let Some(node) = enrolled_before(view, &token, &enrol.node.public_key)? {
        return Ok(ReplyBody::NodeEnrolled { node });
    }
    if !token.is_usable(view.time) {
        return no_token();
    }
    check_against(&token, &enrol.node)?;
    if view.has(TypedKey::Node { node: enrol.node.id }) {
        return refuse(RefusalKind::Precondition, format!("node {} is registered already; the next free id is another", enrol.node.id));
    }
    nodes::register(view, &enrol.node)?;
    token.uses_left -= 1;
    token.enrolled.push(enrol.node.id);
    view.put(key, &token);
    hand_over(view, enrol)?;
    authorities::joined(view, enrol.node.id)?;
    Ok(ReplyBody::NodeEnrolled { node: enrol.node.id })
}

/// The one answer for a token that never was, is used up, has expired or was revoked: a stranger learns nothing from it.
fn no_token<T>() -> Judged<T> {
    refuse(RefusalKind::Unauthenticated, "the join token is not valid; `cinnabar node token list` shows what became of it")
}

/// The member with this key that joined by this token, if it is still one.
fn enrolled_before(view: &View<'_>, token: &JoinTokenRecord, public_key: &[u8]) -> Result<Option<NodeId>, Halt> {
    for node in &token.enrolled {
        let record = view.read::<NodeRecord>(TypedKey::Node { node: *node })?;
        if record.is_some_and(|record| record.public_key == public_key && record.revoked.is_none()) {
            return Ok(Some(*node));
        }
    }
    Ok(None)
}

fn check_against(token: &JoinTokenRecord, node: &NewNode) -> Judged<()> {
    if node.role != token.role || token.name.as_ref().is_some_and(|name| *name != node.name) || node.labels != token.labels {
        return refuse(RefusalKind::InvalidArgument, "the node has not the role, name and labels that its join token gives it");
    }
    Ok(())
}

/// What only members of a role get.
fn hand_over(view: &mut View<'_>, enrol: &EnrolNode) -> Judged<()> {
    let (node, role) = (enrol.node.id, enrol.node.role);
    if role == NodeRole::Relay && !enrol.envelopes.is_empty() {
        return refuse(RefusalKind::InvalidArgument, "a relay holds no key epoch and gets no envelope");
    }
    for one in &enrol.envelopes {
        let epoch = view.read::<KekEpochRecord>(TypedKey::KekEpoch { domain: one.domain.clone(), epoch: one.epoch })?;
        // One that was destroyed meanwhile is needed no more.
        if epoch.is_some_and(|epoch| epoch.state != KekState::Destroyed) {
            keks::put_envelopes(view, &one.domain, one.epoch, &[(Recipient::Node(node), one.envelope.clone())])?;
        }
    }
    match (role, &enrol.authority, &enrol.signer_set) {
        (NodeRole::Control, Some(share), Some(set)) => {
            authorities::check_number(view, share.number)?;
            if set.keys.iter().all(|member| member.node != node) {
                return refuse(RefusalKind::InvalidArgument, "a control node signs; the next signer set must have it as a member");
            }
            nodes::set_signers(view, set)?;
            share_authority(view, node, &share.envelope)
        }
        (NodeRole::Edge | NodeRole::Relay, None, None) => Ok(()),
        _ => refuse(RefusalKind::InvalidArgument, "a control node, and no other, gets the authority's key and a place in the signer set"),
    }
}

fn share_authority(view: &mut View<'_>, node: NodeId, envelope: &EnvelopeRecord) -> Judged<()> {
    let Some(mut authority) = view.read::<AuthorityRecord>(TypedKey::Authority)? else {
        return Err(Halt::Broken { what: "the certificate authority is not there" }.into());
    };
    authority.envelopes.push((Recipient::Node(node), envelope.clone()));
    put_authority(view, authority)
}

/// Takes a node's envelope of the authority's key away. Whether it had one.
pub(super) fn unshare_authority(view: &mut View<'_>, node: NodeId) -> Judged<bool> {
    let Some(mut authority) = view.read::<AuthorityRecord>(TypedKey::Authority)? else { return Ok(false) };
    if authority.envelope(Recipient::Node(node)).is_none() {
        return Ok(false);
    }
    authority.envelopes.retain(|(recipient, _)| *recipient != Recipient::Node(node));
    put_authority(view, authority)?;
    Ok(true)
}

/// Stores the authority, its envelopes in order.
pub(super) fn put_authority(view: &mut View<'_>, mut authority: AuthorityRecord) -> Judged<()> {
    authority.envelopes.sort_by_key(|(recipient, _)| *recipient);
    let fits = |bytes: &[u8]| !bytes.is_empty() && bytes.len() <= WRAP_BYTES_MAX;
    let distinct = authority.envelopes.is_sorted_by(|(one, _), (next, _)| one < next);
    if !fits(&authority.certificate) || !authority.envelopes.iter().all(|(_, envelope)| fits(&envelope.bytes)) || !distinct {
        let message =
            format!("the certificate authority needs a certificate, and one envelope for each recipient, of up to {WRAP_BYTES_MAX} bytes");
        return refuse(RefusalKind::InvalidArgument, message);
    }
    view.put(TypedKey::Authority, &authority);
    Ok(())
}
