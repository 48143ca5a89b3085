//! Certificates that have ended: whom they name is still proved, what that is good for is decided above.

use std::time::Duration;

use rustls::{CertificateError, Error, pki_types::UnixTime};
use types::UnixMillis;

use super::PeerCertificate;

/// Whether a certificate was refused for nothing but its age.
pub(super) fn has_expired(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
}

/// The last moment at which the certificate counted: chain and key are verified as of then.
pub(super) fn last_moment(certificate: &PeerCertificate) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(certificate.not_after.get()))
}

/// A handshake's clock as ours.
pub(super) fn millis(now: UnixTime) -> UnixMillis {
    UnixMillis::new(now.as_secs().saturating_mul(1000))
}
