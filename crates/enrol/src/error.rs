//! Why a node has no identity, or keeps an old one.

use std::{io, path::PathBuf};

use runtime::{
    SecretFileError,
    tls::{IdentityError, IssueError, TlsError},
};
use types::{ClusterId, NodeId};

/// Why enrolling, renewing or reading an identity failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A file or folder.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of keys.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A file holds something else than it should.
    #[error("{} is damaged: {detail}. Put it back as it was; if it is lost, let the node join anew under a new name", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The library made no key or request.
    #[error("cannot make a key or a certificate request")]
    Key(#[source] rcgen::Error),
    /// A certificate request that is none, or whose signature does not prove its key.
    #[error("not a certificate request signed by the key it names")]
    Request(#[source] rcgen::Error),
    /// No certificate could be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// A certificate names no one.
    #[error("the certificate that came names no node")]
    Identity(#[from] IdentityError),
    /// Sealing, unsealing, tokens.
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    /// What the control plane sent is not what was asked for.
    #[error("what {endpoint} sent cannot be used: {detail}")]
    Reply {
        /// Who sent it.
        endpoint: String,
        /// What is wrong.
        detail: String,
    },
    /// The certificate names another node or cluster than the configuration.
    #[error(
        "the certificate names node {node} of cluster {cluster}, the configuration {configured}: correct node.id or node.cluster, or give the node the certificate made for it"
    )]
    OtherNode {
        /// The certificate's node.
        node: NodeId,
        /// The certificate's cluster.
        cluster: ClusterId,
        /// What the configuration names.
        configured: String,
    },
    /// Nobody took the node in, or gave it a new certificate.
    #[error("{what} failed at every endpoint: {attempts}")]
    Nowhere {
        /// What was asked for.
        what: &'static str,
        /// One line per endpoint.
        attempts: String,
    },
    /// The control plane refused, for a reason that trying again does not change.
    #[error("the control plane at {endpoint} refused: {message}")]
    Refused {
        /// Who refused.
        endpoint: String,
        /// Its reason, and what to do next.
        message: String,
    },
    /// There is no certificate, and no way to get one.
    #[error("{}", .0)]
    NotEnrolled(String),
}
