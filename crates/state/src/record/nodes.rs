//! The cluster's settings, its nodes and its signers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{ClusterId, FeatureLevel, NodeId, NodeName, UnixMillis};

use crate::{format::stored, limits::Quota};

/// The cluster's settings, one record. Propagated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// Names the cluster for ever.
    pub cluster: ClusterId,
    /// The feature level in force.
    pub feature_level: FeatureLevel,
    /// How long an edge serves without the control plane; none means for ever.
    pub edge_offline_max_ms: Option<u64>,
    /// How old the state may be for what is marked fail-closed.
    pub lease_ms: u64,
    /// Quotas of accounts that have none of their own.
    pub quota: Quota,
    /// After how long a data key should be replaced; sealers act on it.
    pub dek_age_max_ms: u64,
    /// How many values one data key seals before `Reseal`.
    pub dek_uses_max: u64,
    /// The era of data keys, raised by each revocation of a node: see [`DekRecord::era`](super::DekRecord::era).
    pub dek_era: u32,
    /// The version of the signer set in force.
    pub signer_set: u32,
}
stored!(SettingsRecord, "a settings record");

impl SettingsRecord {
    /// The settings of a new cluster: 7 days offline, a lease of 60 s, data keys for 30 days or 2^20 values.
    pub fn defaults(cluster: ClusterId) -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Self {
            cluster,
            feature_level: FeatureLevel::new(1),
            edge_offline_max_ms: Some(7 * DAY_MS),
            lease_ms: 60_000,
            quota: Quota::default(),
            dek_age_max_ms: 30 * DAY_MS,
            dek_uses_max: crate::limits::DEK_USES_MAX,
            dek_era: 0,
            signer_set: 1,
        }
    }
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodeRole {
    /// A voter.
    Control,
    /// Holds KEKs and serves lookups; may relay.
    Edge,
    /// Has no KEK; feeds only.
    Relay,
}

/// A node of the cluster, under its id. Propagated. A revoked one stays, so that its id is never given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// For people.
    pub name: NodeName,
    /// What it is for.
    pub role: NodeRole,
    /// Its identity: the public key of its TLS certificates, as SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The public key for envelopes of KEK epochs; empty for a relay.
    pub envelope_key: Vec<u8>,
    /// Labels that stages choose by.
    pub labels: BTreeMap<String, String>,
    /// Where others reach it, `host:port`; control nodes only.
    pub address: Option<String>,
    /// The highest feature level that it said it supports.
    pub feature_level: FeatureLevel,
    /// When it was registered, in log time.
    pub created: UnixMillis,
    /// When it was revoked, in log time.
    pub revoked: Option<UnixMillis>,
}
stored!(NodeRecord, "a node record");

/// A signer: a node and its Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberKey {
    /// The control node.
    pub node: NodeId,
    /// Its Ed25519 public key.
    pub key: [u8; 32],
}

/// A signature of the set before over a new set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSignature {
    /// Who signed.
    pub signer: NodeId,
    /// An Ed25519 signature of [`SignerSetRecord::signing_bytes`], 64 bytes.
    pub signature: Vec<u8>,
}

/// Who may sign seals and checkpoints, under the set's version. Propagated, so that an edge can follow from the set it pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerSetRecord {
    /// From 1, one more for each set.
    pub version: u32,
    /// How many members must sign.
    pub threshold: u32,
    /// The members, by rising node id.
    pub keys: Vec<MemberKey>,
    /// Signatures by the threshold of the set before; none on the first, which the join token pins.
    pub signatures: Vec<SetSignature>,
}
stored!(SignerSetRecord, "a signer set record");

impl SignerSetRecord {
    /// The key of a member.
    pub fn key_of(&self, node: NodeId) -> Option<&[u8; 32]> {
        self.keys.iter().find(|member| member.node == node).map(|member| &member.key)
    }
}

/// What began a generation, under its number; none for the first. Propagated, so that whoever stands in an older one can follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// An encoded [`SignedGeneration`](crate::SignedGeneration).
    pub signed: Vec<u8>,
}
stored!(GenerationRecord, "a generation record");
