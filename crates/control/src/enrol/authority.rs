//! The certificate authority, as this control node may use it.

use enrol::{Issuer, Leaf, Validity};
use runtime::tls::PeerIdentity;
use seal::{NodePublicKey, Plaintext, open_authority, seal_authority};
use state::{
    Recipient, State,
    record::{AuthorityRecord, EnvelopeRecord},
};
use types::NodeId;
use wire::{ErrorKind, PublicError};

use crate::{core::Core, error::damaged};

/// The authority's certificate and its opened key.
struct Opened {
    record: AuthorityRecord,
    pkcs8: Plaintext,
}

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

/// The authority's key, sealed for another control node.
pub(super) fn shared(core: &Core, state: &State, node: NodeId, key: &NodePublicKey) -> Result<EnvelopeRecord, PublicError> {
    let Opened { pkcs8, .. } = open(core, state)?;
    let bytes = seal_authority(&*core.entropy, core.cluster, node, key, pkcs8.expose()).map_err(|error| failed(&error))?;
    Ok(EnvelopeRecord { bytes })
}

/// A node's certificate and the authority's, each DER.
pub(super) fn certify(
    core: &Core,
    issuer: &Issuer,
    node: NodeId,
    public_key: &[u8],
    names: &[String],
) -> Result<Vec<bytes::Bytes>, PublicError> {
    let now = core.clock.wall();
    let identity = PeerIdentity::Node { cluster: core.cluster, node };
    let validity = Validity::lease(now, core.enrolment.lifetime);
    let leaf = issuer.issue(&Leaf { identity: &identity, public_key, names, validity }).map_err(|error| failed(&error))?;
    tracing::info!(%node, not_after = validity.not_after.get(), "issued a certificate");
    metrics::counter!("cinnabar_control_certificates_issued_total").increment(1);
    Ok(vec![leaf.into(), issuer.certificate().to_vec().into()])
}

fn failed(error: &(dyn std::error::Error + 'static)) -> PublicError {
    tracing::error!(error, "no certificate could be made");
    PublicError::new(ErrorKind::Internal, "no certificate could be made; the log of this node says why")
}
