//! The certificate authority, as this control node may use it.

use enrol::{AUTHORITY_LIFETIME, CertifiedRole, Issuer, Leaf, Validity};
use runtime::tls::PeerIdentity;
use seal::{NodePublicKey, Plaintext, open_authority, seal_authority};
use state::{
    AuthorityShare, Recipient, RotateAuthority, State,
    record::{AuthorityRecord, EnvelopeRecord, NodeRole, TrustRecord},
};
use types::NodeId;
use wire::{ErrorKind, PublicError};

use crate::{
    core::Core,
    error::{damaged, unexpected},
    keys,
};

/// The authority's certificate and its opened key.
struct Opened {
    record: AuthorityRecord,
    pkcs8: Plaintext,
}

/// What the authorities of `cinnabar dev` are called. Their keys and certificates lie in files, which the log knows nothing of.
const DEVELOPMENT: &str = "cinnabar development CA ";

fn open(core: &Core, state: &State) -> Result<Opened, PublicError> {
    let unavailable = |message: &str| PublicError::new(ErrorKind::Unavailable, message);
    let record = state.authority().map_err(damaged)?.ok_or_else(|| unavailable("the cluster has no certificate authority yet"))?;
    let envelope = record.envelope(Recipient::Node(core.node));
    let envelope = envelope.ok_or_else(|| unavailable("this control node may not issue certificates: ask another"))?;
    let pkcs8 = open_authority(core.cluster, core.node, &core.enrolment.envelope_key, &envelope.bytes).map_err(|error| {
        tracing::error!(%error, "the certificate authority's key cannot be opened with this node's key");
        unavailable("this control node cannot open the certificate authority's key: ask another, and look at its log")
    })?;
    Ok(Opened { record, pkcs8 })
}

/// What signs one certificate. Dropped after it: the key is in memory no longer than that.
pub(super) fn issuer(core: &Core, state: &State) -> Result<Issuer, PublicError> {
    let Opened { record, pkcs8 } = open(core, state)?;
    Issuer::open(&record.certificate, pkcs8.expose()).map_err(|error| failed(&error))
}

/// The number of the authority that issues.
pub(super) fn number(state: &State) -> Result<u32, PublicError> {
    Ok(state.trust().map_err(damaged)?.map_or(1, |trust| trust.issuing))
}

/// The authority's key, sealed for another control node.
pub(super) fn shared(core: &Core, state: &State, node: NodeId, key: &NodePublicKey) -> Result<AuthorityShare, PublicError> {
    let Opened { pkcs8, .. } = open(core, state)?;
    let bytes = seal_authority(&*core.entropy, core.cluster, node, key, pkcs8.expose()).map_err(|error| failed(&error))?;
    Ok(AuthorityShare { number: number(state)?, envelope: EnvelopeRecord { bytes } })
}

/// A new authority that takes over from the one that issues, made for this state.
pub(super) fn successor(core: &Core, state: &State, terms: Terms) -> Result<RotateAuthority, PublicError> {
    let Opened { record, pkcs8 } = open(core, state)?;
    let before = Issuer::open(&record.certificate, pkcs8.expose()).map_err(|error| failed(&error))?;
    if before.name().starts_with(DEVELOPMENT) {
        let message = "this is a development cluster: its certificate authority lies in files beside it, and cannot be replaced";
        return Err(PublicError::new(ErrorKind::Precondition, message));
    }
    let number = number(state)?.checked_add(1).ok_or_else(unexpected)?;
    let validity = Validity::lease(core.now(), AUTHORITY_LIFETIME);
    let made = Issuer::create(&format!("cinnabar CA {} {number}", core.cluster), validity).map_err(|error| failed(&error))?;
    let (next, pkcs8) = (made.0, Plaintext::from_vec(made.1));
    let crossed = before.cross(&next, validity).map_err(|error| failed(&error))?;
    let mut envelopes = Vec::new();
    for (recipient, key) in keys::recipients(state)? {
        let meant = match recipient {
            seal::Recipient::Node(node) => state.node(node).map_err(damaged)?.is_some_and(|record| record.role == NodeRole::Control),
            seal::Recipient::Recovery => record.envelope(Recipient::Recovery).is_some(),
        };
        if meant {
            let bytes = seal_authority(&*core.entropy, core.cluster, recipient, &key, pkcs8.expose()).map_err(|error| failed(&error))?;
            envelopes.push((keys::in_keys(recipient), EnvelopeRecord { bytes }));
        }
    }
    let authority = AuthorityRecord { certificate: next.certificate().to_vec(), envelopes };
    Ok(RotateAuthority { number, authority, crossed, keep_ms: terms.keep_ms, drop_after_ms: terms.drop_after_ms })
}

/// How long the authority before is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// At least, in log time.
    pub(crate) keep_ms: u64,
    /// At most; none: as long as a node needs it.
    pub(crate) drop_after_ms: Option<u64>,
}

/// A node's certificate, what leads from it to former authorities, and the certificate of the one that issues, each DER.
pub(super) fn certify(
    core: &Core,
    state: &State,
    issuer: &Issuer,
    (node, role): (NodeId, NodeRole),
    public_key: &[u8],
    names: &[String],
) -> Result<Vec<bytes::Bytes>, PublicError> {
    let identity = PeerIdentity::Node { cluster: core.cluster, node };
    let validity = Validity::lease(core.now(), core.enrolment.lifetime);
    let leaf = issuer
        .issue(&Leaf { identity: &identity, role: Some(certified(role)), public_key, names, validity })
        .map_err(|error| failed(&error))?;
    tracing::info!(%node, not_after = validity.not_after.get(), "issued a certificate");
    metrics::counter!("cinnabar_control_certificates_issued_total").increment(1);
    let trust = state.trust().map_err(damaged)?;
    let crossed = trust.iter().flat_map(TrustRecord::crossed).map(bytes::Bytes::copy_from_slice);
    let own = bytes::Bytes::copy_from_slice(issuer.certificate());
    Ok(std::iter::once(leaf.into()).chain(crossed).chain([own]).collect())
}

/// What the registry says of a node, as its certificate says it.
const fn certified(role: NodeRole) -> CertifiedRole {
    match role {
        NodeRole::Control => CertifiedRole::Control,
        NodeRole::Edge => CertifiedRole::Edge,
        NodeRole::Relay => CertifiedRole::Relay,
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> PublicError {
    tracing::error!(error, "no certificate could be made");
    PublicError::new(ErrorKind::Internal, "no certificate could be made; the log of this node says why")
}
