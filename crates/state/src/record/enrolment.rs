//! How nodes become members: the certificate authority, join tokens, and the recovery key's public halves.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use types::{NodeId, NodeName, PrincipalName, TokenId, UnixMillis};

use super::{EnvelopeRecord, NodeRole};
use crate::{Recipient, format::stored};

/// The cluster's certificate authority, one record. Control only. Its private key lies here sealed, once for each control node, so that
/// each of them issues certificates, locked or not; and once for the recovery key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Its own certificate, DER.
    #[serde(with = "crate::packed::vec")]
    pub certificate: Vec<u8>,
    /// Its private key, in one envelope per recipient, by rising recipient.
    pub envelopes: Vec<(Recipient, EnvelopeRecord)>,
}
stored!(AuthorityRecord, "an authority record");

impl AuthorityRecord {
    /// The envelope made for a recipient.
    pub fn envelope(&self, recipient: Recipient) -> Option<&EnvelopeRecord> {
        self.envelopes.iter().find(|(one, _)| *one == recipient).map(|(_, envelope)| envelope)
    }
}

impl fmt::Debug for AuthorityRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityRecord(certificate of {} bytes, {} envelopes)", self.certificate.len(), self.envelopes.len())
    }
}

/// The public halves of the offline recovery key, one record. Propagated: by it an edge knows a new generation of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// Its Ed25519 public key.
    pub signing_key: [u8; 32],
    /// Its public key for envelopes.
    #[serde(with = "crate::packed::vec")]
    pub envelope_key: Vec<u8>,
    /// Its Ed25519 signature over the cluster's first signer set ([`SignerSetRecord::signing_bytes`](super::SignerSetRecord::signing_bytes)),
    /// made when the cluster was founded: by it an archive shows whoever has the key that it is of the key's own cluster. Empty: it has
    /// signed none.
    #[serde(with = "crate::packed::vec")]
    pub first_set: Vec<u8>,
}
stored!(RecoveryRecord, "a recovery record");

/// A join token, under the hash of its secret. Control only. It stays for a day after it has expired, so that people see what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// Its public id.
    pub token_id: TokenId,
    /// What nodes that join by it become.
    pub role: NodeRole,
    /// The name that the node gets; none: the one that it asks for.
    pub name: Option<NodeName>,
    /// The labels that nodes get.
    pub labels: BTreeMap<String, String>,
    /// Who made it.
    pub created_by: PrincipalName,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// The first moment of log time at which it is refused.
    pub expires: UnixMillis,
    /// How many more nodes may join by it.
    pub uses_left: u32,
    /// When it was revoked, in log time.
    pub revoked: Option<UnixMillis>,
    /// The nodes that joined by it, in order: one that asks again gets the same answer.
    pub enrolled: Vec<NodeId>,
}
stored!(JoinTokenRecord, "a join token record");

impl JoinTokenRecord {
    /// Whether one more node may join by it at this log time.
    pub fn is_usable(&self, now: UnixMillis) -> bool {
        self.uses_left > 0 && self.revoked.is_none() && now < self.expires
    }
}
