//! A node's identity key, and requests for certificates of it.

use std::{io, path::Path};

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKeyData, SanType, string::Ia5String};
use runtime::{SecretFileError, read_secret_file, tls::CERTIFICATE_NAMES_MAX, write_secret_file};
use zeroize::Zeroizing;

use crate::EnrolError;

/// The key that a node is registered under: ECDSA on P-256, PKCS#8 in PEM, mode 0600. It has no Debug.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`EnrolError::Key`].
    pub fn generate() -> Result<Self, EnrolError> {
        KeyPair::generate().map(Self).map_err(EnrolError::Key)
    }

    /// The key in the file, made when there is none. A damaged or unreadable one is not replaced: the registry may know it.
    ///
    /// # Errors
    /// [`EnrolError::File`], [`EnrolError::Damaged`], [`EnrolError::Key`].
    pub fn kept_or_new(path: &Path) -> Result<Self, EnrolError> {
        match read_secret_file(path) {
            Ok(bytes) => Self::parse(path, bytes),
            Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                key.write(path)?;
                Ok(key)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the key into its file, durably.
    ///
    /// # Errors
    /// [`EnrolError::File`].
    pub fn write(&self, path: &Path) -> Result<(), EnrolError> {
        Ok(write_secret_file(path, Zeroizing::new(self.0.serialize_pem()).as_bytes())?)
    }

    /// The key in the file.
    ///
    /// # Errors
    /// [`EnrolError::File`], [`EnrolError::Damaged`].
    pub fn read(path: &Path) -> Result<Self, EnrolError> {
        Self::parse(path, read_secret_file(path)?)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, EnrolError> {
        let bytes = Zeroizing::new(bytes);
        let damaged = |detail: &str| EnrolError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let pem = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no PEM text"))?;
        KeyPair::from_pem(pem).map(Self).map_err(|_| damaged("it holds no private key in PEM form"))
    }

    /// The public key, a DER `SubjectPublicKeyInfo`: the node's identity in the registry.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A PKCS#10 request, DER, for a certificate with these names, signed by the key.
    ///
    /// # Errors
    /// [`EnrolError::Key`] when a name is none.
    pub fn request(&self, names: &[String]) -> Result<Vec<u8>, EnrolError> {
        let mut params = CertificateParams::default();
        for name in names.iter().take(CERTIFICATE_NAMES_MAX) {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(EnrolError::Key)?),
            });
        }
        Ok(params.serialize_request(&self.0).map_err(EnrolError::Key)?.der().to_vec())
    }
}

/// What a request for a certificate says, its signature verified: who made it holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The public key, a DER `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// DNS names and addresses that the certificate shall carry; the issuer decides.
    pub names: Vec<String>,
}

impl CertificateRequest {
    /// Reads a PKCS#10 request, DER, and verifies its signature.
    ///
    /// # Errors
    /// [`EnrolError::Request`].
    pub fn read(der: &[u8]) -> Result<Self, EnrolError> {
        let request = CertificateSigningRequestParams::from_der(&der.into()).map_err(EnrolError::Request)?;
        let name = |name: &SanType| match name {
            SanType::DnsName(name) => Some(name.to_string()),
            SanType::IpAddress(address) => Some(address.to_string()),
            _ => None,
        };
        let names = request.params.subject_alt_names.iter().filter_map(name).take(CERTIFICATE_NAMES_MAX).collect();
        Ok(Self { public_key: request.public_key.subject_public_key_info(), names })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn request_carries_key_and_names_and_a_changed_byte_is_refused() {
        let key = NodeKey::generate().unwrap();
        let names = ["edge-1.example".to_owned(), "10.0.0.7".to_owned(), "fd00::7".to_owned()];
        let request = key.request(&names).unwrap();
        assert_eq!(CertificateRequest::read(&request).unwrap(), CertificateRequest { public_key: key.public_key(), names: names.into() });
        for at in 0..request.len() {
            let mut changed = request.clone();
            changed[at] ^= 1;
            // Some bytes are spare; what is read must then be what was signed.
            if let Ok(read) = CertificateRequest::read(&changed) {
                assert_eq!(read.public_key, key.public_key(), "byte {at}");
            }
        }
        assert!(CertificateRequest::read(b"").is_err());
    }

    #[test]
    fn node_key_is_kept_and_a_damaged_one_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let first = NodeKey::kept_or_new(&path).unwrap().public_key();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(NodeKey::kept_or_new(&path).unwrap().public_key(), first);
        assert_eq!(NodeKey::read(&path).unwrap().public_key(), first);
        write_secret_file(&path, b"nonsense").unwrap();
        assert!(matches!(NodeKey::kept_or_new(&path), Err(EnrolError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"nonsense");
    }
}
