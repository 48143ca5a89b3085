//! The node's side of its identity: making its keys, joining a cluster, and keeping its certificate fresh.
//!
//! A node is known by the public key in the replicated registry; its certificate is a lease on that, some hours long. [`Layout`]
//! says where its files lie. [`join`] trades a token for a place in the registry and the first certificate; [`Renewal`] trades each
//! certificate for the next one at two thirds of its life, and tells those who use it. [`Issuer`] makes certificates, for whoever
//! holds the CA's key: control nodes, and `cluster init`, which leaves a [`Founding`] for the first start.
//!
//! **Invariants**
//! 1. Private keys are made here, stay on this machine in files of mode 0600, and are never replaced: an attempt that was cut short
//!    is finished with the same keys.
//! 2. The certificate's file is written last, whole, so a node that has one has all the rest.
//! 3. What joins believes only who shows the CA whose fingerprint its token carries, and pins the first signer set by its hash.
//!
//! **Left out**: who may join and what is registered; that is decided by `apply`, and served by crate `control`.

mod attempt;
mod error;
mod founding;
mod join;
mod keys;
mod layout;
mod peers;
mod renewal;
mod trust;

pub use error::EnrolError;
pub use founding::{Founding, RecoveryKeys};
pub use join::{JoinOptions, Joined, envelope_key, join, read_token};
pub use keys::{CertificateRequest, NodeKey};
pub use layout::Layout;
pub use peers::{Peer, Peers};
pub use renewal::{Believed, Reload, Remote, Renewal, Renewed, Source};
pub use runtime::tls::{AUTHORITY_LIFETIME, CertifiedRole, IssueError, Issuer, Leaf, Validity, authority_fingerprint, certificates_pem};
pub use trust::Trust;

/// The highest feature level that this process goes along with. A level that the environment names and that is none is told where the
/// server starts.
fn feature_level() -> types::FeatureLevel {
    runtime::feature_level_max(state::FEATURE_LEVEL_MAX).unwrap_or(state::FEATURE_LEVEL_MAX)
}
