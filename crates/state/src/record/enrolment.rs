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

/// The cluster's certificate authorities, one record. Propagated: every node believes those that stand here, and no other. There is
/// none before the first replacement, or exposure, of an authority: until then nodes believe the one that they joined by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRecord {
    /// One more with each change, from 1, so that a node that was told on another way knows which of two is newer.
    pub version: u32,
    /// The number of the one that issues, from 1.
    pub issuing: u32,
    /// Its own certificate, DER.
    #[serde(with = "crate::packed::vec")]
    pub certificate: Vec<u8>,
    /// Since when it issues, in log time.
    pub since: UnixMillis,
    /// Those before it that are still believed, by rising number.
    pub former: Vec<FormerAuthority>,
    /// When a node was revoked that could open the issuing one's key, in log time: it has to be replaced.
    pub exposed: Option<UnixMillis>,
}
stored!(TrustRecord, "a trust record");

impl TrustRecord {
    /// As it would stand for the authority that a cluster was founded with.
    pub const fn first(certificate: Vec<u8>) -> Self {
        Self { version: 0, issuing: 1, certificate, since: UnixMillis::new(0), former: Vec::new(), exposed: None }
    }

    /// The certificates of all that are believed, the issuing one's first.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.certificate.as_slice()).chain(self.former.iter().rev().map(|former| former.certificate.as_slice()))
    }

    /// The certificates by which each authority vouches for the next, newest first: they lead from a node's certificate to any former
    /// authority that a client may know.
    pub fn crossed(&self) -> impl Iterator<Item = &[u8]> {
        self.former.iter().rev().map(|former| former.crossed.as_slice())
    }
}

impl fmt::Debug for TrustRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let former: Vec<_> = self.former.iter().map(|former| former.number).collect();
        write!(f, "TrustRecord(version {}, issuing {}, former {former:?}, exposed {:?})", self.version, self.issuing, self.exposed)
    }
}

/// An authority that issues no more, and is still believed. Nobody can open its key any more, except who has kept it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerAuthority {
    /// Its number.
    pub number: u32,
    /// Its own certificate, DER.
    #[serde(with = "crate::packed::vec")]
    pub certificate: Vec<u8>,
    /// A certificate, DER, by which it vouches for the authority that took over from it.
    #[serde(with = "crate::packed::vec")]
    pub crossed: Vec<u8>,
    /// Until then, in log time, it is believed even if every node has another certificate: for people and services.
    pub keep_until: UnixMillis,
    /// From then on it is believed no more, whoever still needs it; none: as long as a node does.
    pub drop_by: Option<UnixMillis>,
}

impl FormerAuthority {
    /// Whether it may be dropped without being asked. `unneeded`: every node has a certificate by the issuing one.
    pub fn is_over(&self, now: UnixMillis, unneeded: bool) -> bool {
        self.drop_by.is_some_and(|by| by <= now) || (unneeded && self.keep_until <= now)
    }
}

impl fmt::Debug for FormerAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FormerAuthority({})", self.number)
    }
}

/// By which authority a node's certificate is, under its number. Control only. None stands for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedRecord {
    /// The authority's number.
    pub authority: u32,
}
stored!(CertifiedRecord, "a certified record");

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
