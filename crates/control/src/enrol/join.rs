//! `Join`, top to bottom: read what the node says of itself, find its token, make all that is to be its, propose, certify.

use runtime::config::HostPort;
use seal::{JoinToken, NodePublicKey};
use state::{
    CommandBody, EnrolNode, NewNode, NodeEnvelope, Principal, ReplyBody, State,
    record::{EnvelopeRecord, JoinTokenRecord, KekState, MemberKey, NodeRole},
};
use types::{FeatureLevel, NodeId, NodeName};
use wire::{
    ErrorKind, PublicError,
    internal::{EnrolledRole, JoinReply, JoinRequest},
    parse::{self, FieldError},
};
use zeroize::Zeroize;

use super::{authority, certificate_request, control_nodes, names, next_id, signers};
use crate::{
    call::Call,
    core::Core,
    error::{damaged, not_sealed, unexpected},
    keys,
};

/// How often what was made for a node is made anew because another node came first.
const ATTEMPTS_MAX: u32 = 8;
/// Bytes of the text by which a node names its binary.
const SOFTWARE_BYTES_MAX: usize = 64;

/// What a node says of itself.
struct Visitor {
    /// The hash of the token that it showed.
    token: [u8; 32],
    public_key: Vec<u8>,
    /// Names for its certificate.
    names: Vec<String>,
    name: Option<NodeName>,
    envelope_key: Option<NodePublicKey>,
    signing_key: Option<[u8; 32]>,
    address: Option<HostPort>,
    feature_level: FeatureLevel,
    software: String,
    /// What the server is, where it says so.
    role: Option<NodeRole>,
}

/// Takes a node in that shows a good join token, or answers again one that was taken in.
pub(super) async fn join(core: &Core, call: &Call, message: JoinRequest) -> Result<JoinReply, PublicError> {
    let visitor = Visitor::read(message)?;
    for _ in 0..ATTEMPTS_MAX {
        let state = core.newest().await?;
        let token = token(core, &state, &visitor)?;
        if let Some(node) = enrolled_before(&state, &token, &visitor)? {
            return reply(core, &state, node, &visitor);
        }
        fits(&token, &visitor)?;
        let enrol = enrolment(core, &state, &token, &visitor)?;
        let (node, role) = (enrol.node.id, enrol.node.role);
        let name = enrol.node.name.clone();
        match core.propose(call, Principal::Node { node: core.node }, CommandBody::EnrolNode(Box::new(enrol))).await {
            // Another node got the number, or the signer set or a key epoch moved on.
            Err(error) if error.kind == ErrorKind::Precondition => continue,
            Err(error) => return Err(error),
            Ok(done) => {
                let ReplyBody::NodeEnrolled { node: enrolled } = done.body else { return Err(unexpected()) };
                if enrolled == node {
                    tracing::info!(%node, %name, ?role, software = visitor.software, peer = call.origin.peer, "a node joined");
                }
                return reply(core, &core.newest().await?, enrolled, &visitor);
            }
        }
    }
    Err(PublicError::new(ErrorKind::Busy, "too many nodes joined at the same moment: ask again"))
}

impl Visitor {
    fn read(mut message: JoinRequest) -> Result<Self, PublicError> {
        let token = JoinToken::hash_of_secret(&message.token).ok_or_else(no_token);
        message.token.zeroize();
        let role = match message.role() {
            EnrolledRole::Control => Some(NodeRole::Control),
            EnrolledRole::Edge => Some(NodeRole::Edge),
            EnrolledRole::Relay => Some(NodeRole::Relay),
            EnrolledRole::Unspecified => None,
        };
        let request = certificate_request(&message.certificate_request)?;
        let signing_key =
            Some(&message.signing_key).filter(|key| !key.is_empty()).map(|key| parse::fixed("signing_key", key)).transpose()?;
        let envelope_key = Some(&message.envelope_key)
            .filter(|key| !key.is_empty())
            .map(|key| NodePublicKey::decode(key).map_err(|error| FieldError::new("envelope_key", error)));
        let address = Some(message.address).filter(|address| !address.is_empty());
        let address = address.map(|address| address.parse::<HostPort>().map_err(|error| FieldError::new("address", error)));
        let name = Some(message.name).filter(|name| !name.is_empty()).map(|name| parse::name("name", name)).transpose()?;
        let mut software = message.software;
        software.truncate(software.floor_char_boundary(SOFTWARE_BYTES_MAX));
        Ok(Self {
            token: token?,
            public_key: request.public_key,
            names: request.names,
            name,
            envelope_key: envelope_key.transpose()?,
            signing_key,
            address: address.transpose()?,
            feature_level: FeatureLevel::new(message.feature_level),
            software,
            role,
        })
    }
}

/// The one answer for a token that never was, is used up, has expired or was revoked: a stranger learns nothing from it.
fn no_token() -> PublicError {
    PublicError::new(
        ErrorKind::Unauthenticated,
        "the join token is not valid: it may be used up, expired or revoked; `cinnabar node token list` shows what became of it, `cinnabar node token create` makes another",
    )
}

/// The token that the node showed, if it is good for this node.
fn token(core: &Core, state: &State, visitor: &Visitor) -> Result<JoinTokenRecord, PublicError> {
    let token = state.join_token(visitor.token).map_err(damaged)?.ok_or_else(no_token)?;
    let before = enrolled_before(state, &token, visitor)?.is_some();
    if before || token.is_usable(keys::now(core, state)) { Ok(token) } else { Err(no_token()) }
}

/// Refuses a server that the token would make something else of: before a use of it is spent, and a node is registered that cannot start.
fn fits(token: &JoinTokenRecord, visitor: &Visitor) -> Result<(), PublicError> {
    match visitor.role {
        Some(role) if role != token.role => Err(PublicError::new(
            ErrorKind::InvalidArgument,
            format!(
                "the token is for a node of the role `{}`, and this server is of the role `{wanted}`: take one that `cinnabar node token create {wanted}` makes; this one was not used up",
                role_name(token.role),
                wanted = role_name(role)
            ),
        )),
        _ => Ok(()),
    }
}

/// The member that this node is already: it joined by this token with this key, and did not hear the answer.
fn enrolled_before(state: &State, token: &JoinTokenRecord, visitor: &Visitor) -> Result<Option<NodeId>, PublicError> {
    for node in &token.enrolled {
        let record = state.node(*node).map_err(damaged)?;
        if record.is_some_and(|record| record.public_key == visitor.public_key && record.revoked.is_none()) {
            return Ok(Some(*node));
        }
    }
    Ok(None)
}

/// All that makes the node a member: its row, its envelopes and, for a control node, the authority's key and its place among the signers.
fn enrolment(core: &Core, state: &State, token: &JoinTokenRecord, visitor: &Visitor) -> Result<EnrolNode, PublicError> {
    let in_force = state.settings().map_err(damaged)?.map_or(FeatureLevel::new(1), |settings| settings.feature_level);
    if visitor.feature_level < in_force {
        let message =
            format!("the cluster is at feature level {in_force}, this node knows {}: update it, then let it join", visitor.feature_level);
        return Err(PublicError::new(ErrorKind::Level, message));
    }
    let id = next_id(state)?;
    let missing = |field: &str, what: &str| PublicError::from(FieldError::new(field, format!("is missing: {what}")));
    let envelope_key = match token.role {
        NodeRole::Relay => None,
        _ => Some(visitor.envelope_key.as_ref().ok_or_else(|| missing("envelope_key", "a node that holds keys needs one"))?),
    };
    let envelopes = envelope_key.map(|key| envelopes(core, state, id, key)).transpose()?.unwrap_or_default();
    let (authority, signer_set, address) = match (token.role, envelope_key) {
        (NodeRole::Control, Some(key)) => {
            let signing = visitor.signing_key.ok_or_else(|| missing("signing_key", "a control node signs the feed"))?;
            let address = visitor.address.as_ref().ok_or_else(|| missing("address", "others must reach a control node"))?;
            let set = signers::next(core, state, |keys| keys.push(MemberKey { node: id, key: signing }))?;
            (Some(authority::shared(core, state, id, key)?), Some(set), Some(address.to_string()))
        }
        _ => (None, None, None),
    };
    let name = match (&token.name, &visitor.name) {
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => parse::name("name", format!("{}-{id}", role_name(token.role)))?,
    };
    let node = NewNode {
        id,
        name,
        role: token.role,
        public_key: visitor.public_key.clone(),
        envelope_key: envelope_key.map(NodePublicKey::encode).unwrap_or_default(),
        labels: token.labels.clone(),
        address,
        feature_level: visitor.feature_level,
    };
    Ok(EnrolNode { token: visitor.token, node, envelopes, authority, signer_set })
}

fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Control => "control",
        NodeRole::Edge => "edge",
        NodeRole::Relay => "relay",
    }
}

/// Every epoch that this node holds, sealed for the new one. What this node lacks, housekeeping adds from elsewhere; the active one it
/// must have.
fn envelopes(core: &Core, state: &State, node: NodeId, key: &NodePublicKey) -> Result<Vec<NodeEnvelope>, PublicError> {
    keys::refresh(core, state);
    let mut made = Vec::new();
    for epoch in keys::all_epochs(state).map_err(damaged)?.into_iter().filter(|epoch| epoch.state != KekState::Destroyed) {
        if !core.ring.holds(&epoch.domain, epoch.n) {
            if epoch.state == KekState::Active {
                return Err(PublicError::new(
                    ErrorKind::Locked,
                    "this control node is locked and has no keys to hand over: join at another",
                ));
            }
            continue;
        }
        let bytes = core.ring.seal_envelope(&*core.entropy, &epoch.domain, epoch.n, node, key).map_err(|error| not_sealed(&error))?;
        made.push(NodeEnvelope { domain: epoch.domain, epoch: epoch.n, envelope: EnvelopeRecord { bytes } });
    }
    Ok(made)
}

fn reply(core: &Core, state: &State, node: NodeId, visitor: &Visitor) -> Result<JoinReply, PublicError> {
    let record = state.node(node).map_err(damaged)?.ok_or_else(unexpected)?;
    let first = state.first_signer_set().map_err(damaged)?.ok_or_else(unexpected)?;
    let issuer = authority::issuer(core, state)?;
    let own = visitor.address.as_ref().filter(|_| record.role == NodeRole::Control).map(|address| address.host().to_owned());
    let names: Vec<String> = own.into_iter().chain(names::allowed(core, state, record.role, &visitor.names)?).collect();
    let role = match record.role {
        NodeRole::Control => EnrolledRole::Control,
        NodeRole::Edge => EnrolledRole::Edge,
        NodeRole::Relay => EnrolledRole::Relay,
    };
    Ok(JoinReply {
        node: node.get(),
        cluster: core.cluster.as_bytes().to_vec().into(),
        certificates: authority::certify(core, state, &issuer, (node, record.role), &record.public_key, &names)?,
        signer_set_encoded: first.encode(),
        control_nodes: control_nodes(state)?,
        name: record.name.to_string(),
        role: role.into(),
    })
}
