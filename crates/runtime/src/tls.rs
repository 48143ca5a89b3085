//! TLS 1.3 between nodes, operators and services, and what a certificate says about its holder.
//!
//! Both sides prove who they are by certificates that one CA signed; the identity is a SPIFFE id in the certificate's one URI
//! name ([`PeerIdentity`]). [`ServerTls`] and [`ClientTls`] hold certificate, key and CA behind an atomic pointer, so that
//! renewed files are taken over between two handshakes. A client without a certificate is let in where tokens are accepted
//! ([`ClientCertificates::Optional`]): it then has no identity, and every call has to bring a token.
//!
//! **Invariants**
//! 1. TLS 1.3 alone, by one provider (aws-lc-rs), which [`provider`] names; no session is ever resumed, so each connection
//!    has proved its key by itself.
//! 2. Our clients offer the hybrid key exchange X25519MLKEM768 alone: what is recorded today stays closed to a later quantum
//!    computer. Servers accept X25519 too, for services that know no better.
//! 3. A certificate that names no identity, or more than one, ends the handshake.
//! 4. A client that expects control nodes asks its [`Judge`] about each server, whatever host name it carries: that the same CA
//!    signed its certificate is not enough.
//! 5. A node's certificate that has expired still opens a connection; [`PeerCertificate::is_expired`] is asked at each call, and
//!    all but the calls that serve to get a new one, or to keep the voters going, refuse it.
//! 6. A node whose key the registry knows opens a connection with a certificate of any CA, for the same calls as with one that has
//!    expired. When a CA is believed no more, connections for which it alone vouched are cut.
//!
//! **Left out**: revocation lists. Who is revoked is decided by the replicated node registry, above this layer.

mod client;
mod expiry;
mod identity;
mod issue;
mod material;
mod server;

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub(crate) use client::unix_channel;
pub use client::{ClientTls, ClientTlsStream, ConnectError, Expect, Judge};
pub use identity::{CertifiedRole, IdentityError, PeerCertificate, PeerIdentity};
pub use issue::{
    AUTHORITY_LIFETIME, CERTIFICATE_NAMES_MAX, IssueError, Issuer, Leaf, Validity, authority_fingerprint, certificates_pem,
    first_certificate, issued_by, trust_pem, trust_version,
};
pub use material::TlsError;
pub use server::{ClientCertificates, Registered, ServerTls};

/// The protocol of gRPC in the TLS handshake.
const ALPN_H2: &[u8] = b"h2";

/// The provider of servers: hybrid key exchange first, X25519 for those that lack it.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
        Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
    };
    PROVIDER.get_or_init(make).clone()
}

/// The provider of our clients: hybrid key exchange or nothing.
fn client_provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || Arc::new(CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() });
    PROVIDER.get_or_init(make).clone()
}

/// Makes [`provider`] the default of the process, for libraries that ask for one. Calling it again changes nothing.
pub fn install_provider() {
    // The error says that one is installed already; ours are passed explicitly in any case.
    let _ = CryptoProvider::install_default(CryptoProvider::clone(&provider()));
}

#[cfg(test)]
mod tests;
