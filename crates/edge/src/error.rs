//! Why an edge did not start.

use std::{io, path::PathBuf};

use feed::FeedError;
use runtime::{SecretFileError, tls::TlsError};
use seal::SealError;
use types::{ClusterId, NodeId};

/// What stops the start of an edge, and the error of ending it. After a start, failures are states (see [`crate::EdgeStatus`]), not errors.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The certificate, its key or the CA.
    #[error("edge: TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The identity, or what it was joined with.
    #[error("edge: this node's identity cannot be used")]
    Identity(#[from] enrol::EnrolError),
    /// The environment holds the node at a feature level that there is not.
    #[error("edge: the feature level cannot be held there")]
    Level(#[from] runtime::LevelMaxError),
    /// The certificate is not this node's.
    #[error("edge: the certificate at {path} does not name node {node} (node.id); issue one for it, or correct node.id")]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// The node that the configuration names.
        node: NodeId,
    },
    /// The configuration and the certificate name different clusters.
    #[error("edge: node.cluster is {configured}, the certificate is of {certified}; correct one of them")]
    OtherCluster {
        /// By the configuration.
        configured: ClusterId,
        /// By the certificate.
        certified: ClusterId,
    },
    /// The file of the node's key.
    #[error("edge: the node key file (keys.node) cannot be used")]
    NodeKeyFile(#[from] SecretFileError),
    /// What the node's key file holds.
    #[error("edge: the node key in {path} (keys.node) cannot be used: put it back as it was, or let the edge join anew under a new name")]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: SealError,
    },
    /// The first signer set.
    #[error(
        "edge: the first signer set in {path} (keys.signers) cannot be used: {detail}; put it back as it was, or export it anew on a control node"
    )]
    Signers {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file or folder of the edge's own.
    #[error("edge: cannot {operation} {path}")]
    Disk {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("edge: cannot listen on {address} ({key}); is another server running there?")]
    Listen {
        /// The key in the configuration.
        key: &'static str,
        /// The address or path.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The local copy cannot even be begun.
    #[error("edge: the local copy cannot be opened")]
    Feed(#[from] FeedError),
    /// The data folder is another process's.
    #[error(transparent)]
    Lock(#[from] runtime::DataLockError),
}

impl From<doors::BindError> for EdgeError {
    fn from(error: doors::BindError) -> Self {
        let doors::BindError { key, address, source } = error;
        Self::Listen { key, address, source }
    }
}
