//! Which certificate authorities a node believes: a file of certificates, which follows the replicated state.
//!
//! ```text
//! cinnabar-check: 64 hex digits    SHA-256 of what follows (`runtime::write_checked_file`)
//! cinnabar-trust-version: 3        a line before the first certificate, where one was replaced before
//! -----BEGIN CERTIFICATE-----      the authority that issues
//! -----BEGIN CERTIFICATE-----      former ones that are still believed, newest first
//! ```
//!
//! **Invariants**
//! 1. An older version never takes the place of a newer one: what a control node told at a renewal may be ahead of the node's own state.
//! 2. The file is written whole, beside and renamed, and never empty.

use std::{fs, path::Path};

use runtime::{
    tls::{authority_fingerprint, first_certificate, issued_by, trust_pem, trust_version},
    write_checked_file,
};
use state::record::TrustRecord;

use crate::EnrolError;

/// The authorities that are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// One more with each change; 0 before the first.
    pub version: u32,
    /// Their certificates, DER, that of the one that issues first.
    pub certificates: Vec<Vec<u8>>,
}

impl Trust {
    /// What the state says.
    pub fn of(record: &TrustRecord) -> Self {
        Self { version: record.version, certificates: record.certificates().map(<[u8]>::to_vec).collect() }
    }

    /// What came from a control node; none when it holds no authority.
    pub fn told(version: u32, certificates: impl IntoIterator<Item = Vec<u8>>) -> Option<Self> {
        let certificates: Vec<_> = certificates.into_iter().filter(|der| authority_fingerprint(der).is_some()).collect();
        (version > 0 && !certificates.is_empty()).then_some(Self { version, certificates })
    }

    /// As it stands in a file.
    pub fn pem(&self) -> String {
        trust_pem(self.version, self.certificates.iter().map(Vec::as_slice))
    }

    /// The version that a file's text names; 0 for one from before the first replacement.
    pub fn version_of(pem: &str) -> u32 {
        trust_version(pem)
    }

    /// The version in a file; 0 when it cannot be read.
    pub fn version_in(path: &Path) -> u32 {
        fs::read_to_string(path).map_or(0, |pem| Self::version_of(&pem))
    }

    /// Writes the file, durably, unless what it holds is as new. Whether it was written.
    ///
    /// # Errors
    /// [`EnrolError::File`].
    pub fn keep(&self, path: &Path) -> Result<bool, EnrolError> {
        if self.certificates.is_empty() || self.version <= Self::version_in(path) {
            return Ok(false);
        }
        write_checked_file(path, self.pem().as_bytes())?;
        Ok(true)
    }

    /// Whether the first certificate of a file is by the authority that issues.
    ///
    /// # Errors
    /// [`EnrolError::Io`].
    pub fn issued(&self, certificate: &Path) -> Result<bool, EnrolError> {
        let failed = |source| EnrolError::Io { operation: "read the certificate", path: certificate.to_owned(), source };
        let der = first_certificate(certificate).map_err(failed)?;
        Ok(self.certificates.first().is_some_and(|authority| issued_by(&der, authority)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::{
        read_checked_file,
        tls::{Issuer, Validity, certificates_pem},
        write_secret_file,
    };
    use types::UnixMillis;

    use super::*;

    #[test]
    fn trust_in_a_file_goes_forward_only_and_a_file_without_a_version_is_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let validity = Validity::lease(UnixMillis::new(1_800_000_000_000), Duration::from_secs(3600));
        let authority = |name: &str| Issuer::create(name, validity).unwrap().0.certificate().to_vec();
        let (old, new) = (authority("1"), authority("2"));
        write_secret_file(&path, certificates_pem([old.as_slice()]).as_bytes()).unwrap();
        assert_eq!(Trust::version_in(&path), 0);
        let second = Trust::told(2, [new.clone(), b"no certificate".to_vec()]).unwrap();
        assert_eq!(second.certificates, [new]);
        assert!(second.keep(&path).unwrap());
        let first = Trust { version: 1, certificates: vec![old] };
        for stale in [&first, &second] {
            assert!(!stale.keep(&path).unwrap());
            assert_eq!(read_checked_file(&path).unwrap(), second.pem().as_bytes());
        }
        assert!(Trust::told(3, Vec::new()).is_none() && !Trust { version: 3, certificates: Vec::new() }.keep(&path).unwrap());
        assert_eq!(first_certificate(&path).unwrap(), second.certificates[0], "the line before it is no part of a certificate");
    }
}
