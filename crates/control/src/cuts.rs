//! Signs the records of what is cut off the audit log, by the key that this node signs the chain with.

use consensus::CutSigner;
use feed::SigningKey;
use types::{ClusterId, NodeId};

/// This node, as the signer of its audit log.
pub(crate) struct Cuts {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) key: SigningKey,
}

impl CutSigner for Cuts {
    fn cluster(&self) -> ClusterId {
        self.cluster
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign_bytes(bytes)
    }
}
