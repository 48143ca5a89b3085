//! What makes the audit log worth something without its cluster: the signature of the record at a cut, and the check of a row of entries.

use bytes::Bytes;
use state::{AuditEntry, FormatError};
use types::{ClusterId, Hash, NodeId};

use super::AuditCut;

/// Signs records of cuts, with the node's own signing key.
pub trait CutSigner: Send + Sync + 'static {
    /// The cluster, which the signature names.
    fn cluster(&self) -> ClusterId;

    /// The node that signs.
    fn node(&self) -> NodeId;

    /// An Ed25519 signature of bytes that are labelled already.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];
}

/// By whom the record of a cut is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutSignature {
    /// The node that cut its log.
    pub node: NodeId,
    /// Its Ed25519 signature over [`AuditCut::signing_bytes`].
    pub signature: [u8; 64],
}

const LABEL: &[u8] = b"cinnabar audit cut v1\0";

impl AuditCut {
    /// What is signed.
    ///
    /// ```text
    /// offset  bytes  content; numbers are big-endian
    /// 0       22     "cinnabar audit cut v1" and a zero byte
    /// 22      16     cluster
    /// 38      8      node
    /// 46      8      sequence
    /// 54      32     hash
    /// 86      8      index in the Raft log
    /// 94      8      log time
    /// ```
    pub fn signing_bytes(&self, cluster: ClusterId, node: NodeId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(102);
        bytes.extend_from_slice(LABEL);
        bytes.extend_from_slice(cluster.as_bytes());
        bytes.extend_from_slice(&node.get().to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(self.hash.as_bytes());
        bytes.extend_from_slice(&self.index.get().to_be_bytes());
        bytes.extend_from_slice(&self.time.get().to_be_bytes());
        bytes
    }

    /// This record with a signature.
    pub(super) fn signed(self, signer: &dyn CutSigner) -> Self {
        let node = signer.node();
        let signature = signer.sign(&self.signing_bytes(signer.cluster(), node));
        Self { signature: Some(CutSignature { node, signature }), ..self }
    }

    /// Whether the record is by a node of the cluster. `verifies` says whether a signature of some bytes is that node's, by a key that
    /// the caller believes: of the signer sets, or as the operator was told it.
    ///
    /// # Errors
    /// [`AuditFault::Unsigned`], [`AuditFault::Signature`].
    pub fn verify(&self, cluster: ClusterId, verifies: impl FnOnce(NodeId, &[u8], &[u8; 64]) -> bool) -> Result<(), AuditFault> {
        let CutSignature { node, signature } = self.signature.ok_or(AuditFault::Unsigned { sequence: self.sequence })?;
        let good = verifies(node, &self.signing_bytes(cluster, node), &signature);
        if good { Ok(()) } else { Err(AuditFault::Signature { sequence: self.sequence, node }) }
    }
}

const HEAD_LABEL: &[u8] = b"cinnabar audit head v1\0";

/// What a node signs of an export of its audit log: with which entry it begins and ends.
///
/// ```text
/// offset  bytes  content; numbers are big-endian
/// 0       23     "cinnabar audit head v1" and a zero byte
/// 23      16     cluster
/// 39      8      node
/// 47      8      sequence of the first entry; 0 for none
/// 55      32     hash of the entry before it, as it says
/// 87      8      sequence of the last
/// 95      32     its hash
/// ```
pub fn audit_head_signing_bytes(cluster: ClusterId, node: NodeId, first: (u64, Hash), last: (u64, Hash)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(127);
    bytes.extend_from_slice(HEAD_LABEL);
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(&node.get().to_be_bytes());
    for (sequence, hash) in [first, last] {
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(hash.as_bytes());
    }
    bytes
}

/// Why a row of entries is not the one that was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// The record at the cut has no signature.
    #[error("the record of the cut at entry {sequence} is not signed")]
    Unsigned {
        /// The last entry that was cut.
        sequence: u64,
    },
    /// The signature is not the node's.
    #[error("the record of the cut at entry {sequence} is not signed by node {node}")]
    Signature {
        /// The last entry that was cut.
        sequence: u64,
        /// The node that it names.
        node: NodeId,
    },
    /// An entry does not read.
    #[error("entry {sequence} cannot be read")]
    Entry {
        /// Where it stands.
        sequence: u64,
        /// The cause.
        #[source]
        source: FormatError,
    },
    /// An entry is missing, or stands where another belongs.
    #[error("entry {expected} is missing: {found} stands in its place")]
    Gap {
        /// The one that follows.
        expected: u64,
        /// The one that is there.
        found: u64,
    },
    /// An entry does not go on from the one before it.
    #[error("entry {sequence} does not follow from the one before it: one of them was changed")]
    Broken {
        /// The later one.
        sequence: u64,
    },
    /// The row does not end where the state says.
    #[error("the entries end at {last}, the state's head is {head}, or another entry of that number")]
    Head {
        /// The last entry; 0 for none.
        last: u64,
        /// The head's.
        head: u64,
    },
}

/// Checks a row of stored entries, as [`AuditLog::read`](super::AuditLog::read) gives them: without a gap, each going on from the one before
/// by hash, the first from `after` (the cut, or zeros at the beginning; none: wherever it begins), the last being `head` where the
/// caller knows that. Returns the last one's sequence and hash.
///
/// # Errors
/// [`AuditFault`], naming the entry.
pub fn verify_entries(
    after: Option<(u64, Hash)>,
    entries: impl IntoIterator<Item = (u64, Bytes)>,
    head: Option<(u64, Hash)>,
) -> Result<Option<(u64, Hash)>, AuditFault> {
    let mut last = after;
    for (at, stored) in entries {
        let entry = AuditEntry::decode(&stored).map_err(|source| AuditFault::Entry { sequence: at, source })?;
        let expected = last.map_or(at, |(sequence, _)| sequence + 1);
        // Where it stands, and what it says of itself: somebody who moves an entry changes one of them.
        if let Some(found) = [at, entry.sequence].into_iter().find(|found| *found != expected) {
            return Err(AuditFault::Gap { expected, found });
        }
        if last.is_some_and(|(_, hash)| hash != entry.previous) {
            return Err(AuditFault::Broken { sequence: at });
        }
        last = Some((at, AuditEntry::hash_of(&stored)));
    }
    match head {
        Some(head) if last != Some(head) => Err(AuditFault::Head { last: last.map_or(0, |(sequence, _)| sequence), head: head.0 }),
        _ => Ok(last),
    }
}
