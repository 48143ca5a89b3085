//! Static certificates for development: one CA and a certificate per node, in one folder.
//!
//! The CA's key lies beside them, so whoever reads the folder can be any node: good for `cinnabar dev` and for tests, and for
//! nothing else.
//!
//! **Invariants**
//! 1. Every file has mode 0600, the folder 0700.
//! 2. [`DevPki::ensure`] returns certificates that are valid for at least another day.
//! 3. A renewal keeps the key, of a node and of the CA: the node registry holds a node to the key it was registered with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use types::{ClusterId, ConsumerRef, NodeId, UnixMillis};

use crate::{
    SecretFileError,
    config::TlsFiles,
    disk::FOLDER_MODE,
    tls::{IssueError, Issuer, Leaf, PeerCertificate, PeerIdentity, Validity, certificates_pem, issued_by},
    write_secret_file,
};

/// How long certificates live: a development cluster that slept for a month still starts.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// Certificates are made anew when they end sooner than this, so that none ends while it is used for a day's work.
const RENEW_BEFORE: Duration = Duration::from_secs(86_400);
/// Certificates count from an hour ago, for machines whose clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Why no certificates could be made.
#[derive(Debug, thiserror::Error)]
pub enum DevPkiError {
    /// The folder is not usable.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is not usable.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// No certificate could be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The library refuses.
    #[error("cannot make the key of {whom}")]
    Make {
        /// Whose it is.
        whom: String,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
}

/// A folder of development certificates of one cluster.
#[derive(Clone, Debug)]
pub struct DevPki {
    folder: PathBuf,
    cluster: ClusterId,
    now: UnixMillis,
}

impl DevPki {
    /// Opens the folder, and makes the CA when there is none, or when it is of another cluster, damaged, or about to expire.
    /// One that is renewed keeps its key, so the certificates of before stay good. One that is new, or of another cluster, makes them
    /// invalid; they are made anew by [`DevPki::node`] and [`DevPki::consumer`].
    ///
    /// # Errors
    /// [`DevPkiError`].
    pub fn ensure(folder: &Path, cluster: ClusterId, now: UnixMillis) -> Result<Self, DevPkiError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|source| DevPkiError::Io { operation: "create", path: folder.to_owned(), source })?;
        let pki = Self { folder: folder.to_owned(), cluster, now };
        if !pki.ca_is_usable() {
            pki.make_ca()?;
        }
        Ok(pki)
    }

    /// The CA's certificate: what clients without a certificate of their own pin.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The CA itself: its certificate, DER, and its private key, PKCS#8 DER, which the caller wipes.
    ///
    /// # Errors
    /// [`DevPkiError`].
    pub fn authority(&self) -> Result<(Vec<u8>, Vec<u8>), DevPkiError> {
        let failed = |source| DevPkiError::Make { whom: self.ca_name(), source };
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&crate::read_secret_file(&self.ca_key())?)).map_err(failed)?;
        Ok((self.read_ca()?.to_vec(), key.serialize_der()))
    }

    fn read_ca(&self) -> Result<CertificateDer<'static>, DevPkiError> {
        let unread = |source| DevPkiError::Io { operation: "read", path: self.ca(), source: io::Error::other(source) };
        CertificateDer::from_pem_file(self.ca()).map_err(unread)
    }

    /// The files of a node, made when absent or about to expire. The certificate serves both sides, and names `localhost`,
    /// `127.0.0.1` and `::1` besides the node.
    ///
    /// # Errors
    /// [`DevPkiError`].
    pub fn node(&self, node: NodeId) -> Result<TlsFiles, DevPkiError> {
        self.issue(&format!("node-{node}"), &PeerIdentity::Node { cluster: self.cluster, node })
    }

    /// The files of a consumer, made when absent or about to expire.
    ///
    /// # Errors
    /// [`DevPkiError`].
    pub fn consumer(&self, consumer: &ConsumerRef) -> Result<TlsFiles, DevPkiError> {
        let stem = format!("consumer-{}-{}-{}", consumer.account, consumer.kind, consumer.name);
        self.issue(&stem, &PeerIdentity::Consumer { cluster: self.cluster, consumer: consumer.clone() })
    }

    fn issue(&self, stem: &str, identity: &PeerIdentity) -> Result<TlsFiles, DevPkiError> {
        let at = |ending: &str| self.folder.join(format!("{stem}.{ending}"));
        let files = TlsFiles { cert: at("pem"), key: at("key"), ca: self.ca() };
        if !self.is_usable(&files, identity) {
            self.make(&files, identity)?;
        }
        Ok(files)
    }

    /// Whether the files hold this identity under this CA for another day.
    fn is_usable(&self, files: &TlsFiles, identity: &PeerIdentity) -> bool {
        let read = || {
            let certificate = CertificateDer::from_pem_file(&files.cert).ok()?;
            let ca = CertificateDer::from_pem_file(self.ca()).ok()?;
            fs::metadata(&files.key).ok()?;
            let signed = issued_by(&certificate, &ca);
            let peer = PeerCertificate::read(&certificate).ok()?;
            Some(signed && peer.identity == *identity && peer.not_after > self.now.plus(RENEW_BEFORE))
        };
        read().unwrap_or(false)
    }

    fn make(&self, files: &TlsFiles, identity: &PeerIdentity) -> Result<(), DevPkiError> {
        let failed = |source| DevPkiError::Make { whom: identity.to_string(), source };
        let (ca, ca_key) = self.authority()?;
        let key = kept_or_new_key(&files.key).map_err(failed)?;
        let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
        let leaf = Leaf { identity, role: None, public_key: &public_key, names: &[], validity: self.validity() };
        let certificate = Issuer::open(&ca, &ca_key)?.issue(&leaf)?;
        write_secret_file(&files.key, key.serialize_pem().as_bytes())?;
        write_secret_file(&files.cert, certificates_pem([certificate.as_slice()]).as_bytes())?;
        Ok(())
    }

    fn ca_key(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// The CA is of this cluster when its subject says so: the certificates it signed name the cluster too.
    fn ca_is_usable(&self) -> bool {
        let read = || {
            let der = CertificateDer::from_pem_file(self.ca()).ok()?;
            let (_, ca) = x509_parser::parse_x509_certificate(&der).ok()?;
            let name = ca.subject().iter_common_name().next()?.as_str().ok()?;
            let not_after = UnixMillis::new(u64::try_from(ca.validity().not_after.timestamp()).ok()?.checked_mul(1000)?);
            let key = KeyPair::from_pem(&String::from_utf8_lossy(&crate::read_secret_file(&self.ca_key()).ok()?)).ok()?;
            let same_key = rcgen::PublicKeyData::subject_public_key_info(&key) == ca.public_key().raw;
            Some(name == self.ca_name() && same_key && not_after > self.now.plus(RENEW_BEFORE))
        };
        read().unwrap_or(false)
    }

    fn ca_name(&self) -> String {
        format!("cinnabar development CA {}", self.cluster)
    }

    fn make_ca(&self) -> Result<(), DevPkiError> {
        let failed = |source| DevPkiError::Make { whom: self.ca_name(), source };
        let key = kept_or_new_key(&self.ca_key()).map_err(failed)?;
        let pem = key.serialize_pem();
        let issuer = Issuer::self_signed(&self.ca_name(), self.validity(), key)?;
        write_secret_file(&self.ca_key(), pem.as_bytes())?;
        write_secret_file(&self.ca(), certificates_pem([issuer.certificate()]).as_bytes())?;
        Ok(())
    }

    fn validity(&self) -> Validity {
        let from = self.now.get().saturating_sub(BACKDATED.as_millis() as u64);
        Validity { not_before: UnixMillis::new(from), not_after: self.now.plus(LIFETIME) }
    }
}

/// The key in the file; a new one when there is none, or it is damaged or open to others.
fn kept_or_new_key(path: &Path) -> Result<KeyPair, rcgen::Error> {
    let kept = crate::read_secret_file(path).ok().and_then(|bytes| KeyPair::from_pem(&String::from_utf8_lossy(&bytes)).ok());
    kept.map_or_else(KeyPair::generate, Ok)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const NOW: UnixMillis = UnixMillis::new(1_800_000_000_000);

    #[test]
    fn dev_pki_keeps_what_is_good_and_renews_what_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("pki");
        let make = |cluster, now| {
            let pki = DevPki::ensure(&folder, cluster, now).unwrap();
            let files = pki.node(NodeId::new(7)).unwrap();
            (fs::read(pki.ca()).unwrap(), fs::read(&files.cert).unwrap())
        };
        let first = make(CLUSTER, NOW);
        assert_eq!(make(CLUSTER, NOW.plus(LIFETIME / 2)), first, "still good");
        let later = make(CLUSTER, NOW.plus(LIFETIME));
        assert!(later.0 != first.0 && later.1 != first.1, "about to expire");
        let other = make(ClusterId::from_bytes([2; 16]), NOW.plus(LIFETIME));
        assert!(other.0 != later.0 && other.1 != later.1, "another cluster");
        fs::write(folder.join("node-7.pem"), b"damaged").unwrap();
        assert_eq!(make(ClusterId::from_bytes([2; 16]), NOW.plus(LIFETIME)).0, other.0, "a damaged certificate leaves the CA alone");
    }

    #[test]
    fn dev_pki_renewal_keeps_the_keys_and_the_old_certificate_good() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("pki");
        let make = |now| {
            let pki = DevPki::ensure(&folder, CLUSTER, now).unwrap();
            let files = pki.node(NodeId::new(7)).unwrap();
            (CertificateDer::from_pem_file(&files.cert).unwrap(), CertificateDer::from_pem_file(&files.ca).unwrap())
        };
        let (first, _) = make(NOW);
        let (second, ca) = make(NOW.plus(LIFETIME));
        assert_ne!(first, second, "about to expire, so renewed");
        let key = |certificate: &CertificateDer<'_>| PeerCertificate::read(certificate).unwrap().public_key;
        assert_eq!(key(&first), key(&second), "the registry holds the node to its key");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), crate::tls::provider()).build().unwrap();
        let at = |now: UnixMillis| rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(now.get()));
        verifier.verify_client_cert(&first, &[], at(NOW.plus(LIFETIME / 2))).unwrap();
        verifier.verify_client_cert(&second, &[], at(NOW.plus(LIFETIME))).unwrap();
    }

    #[test]
    fn dev_pki_files_belong_to_the_owner_alone_and_name_the_node() {
        let temporary = tempfile::tempdir().unwrap();
        let pki = DevPki::ensure(&temporary.path().join("pki"), CLUSTER, NOW).unwrap();
        let files = pki.node(NodeId::new(7)).unwrap();
        for path in [&files.cert, &files.key, &files.ca, &pki.ca_key()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        let peer = PeerCertificate::read(&CertificateDer::from_pem_file(&files.cert).unwrap()).unwrap();
        assert_eq!(peer.identity.to_string(), format!("spiffe://{CLUSTER}/node/7"));
        assert_eq!(peer.not_after, NOW.plus(LIFETIME));
    }
}
