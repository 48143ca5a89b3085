//! Certificates, keys and CAs from PEM files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::{IdentityError, PeerCertificate};
use crate::{SecretFileError, config::TlsFiles, read_checked_file, read_secret_file};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates cannot be read.
    #[error("cannot read the certificates in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The private key's file is not usable.
    #[error(transparent)]
    KeyFile(#[from] SecretFileError),
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM form: put it back as it was, or let the node join anew under a new name")]
    NoPem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// The certificate names no identity.
    #[error("the certificate in {path} names no node or consumer: put it back as it was, or let the node join anew under a new name")]
    Identity {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: IdentityError,
    },
    /// Key, certificate and CA do not fit together, or the library refuses them.
    #[error("the certificate, key or CA at {path} is not usable: put it back as it was, or let the node join anew under a new name")]
    Unusable {
        /// The file that was looked at last.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A certificate with its key, and whom it names.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) certificate: PeerCertificate,
}

/// Reads certificate and key, and checks that they belong together.
pub(super) fn own(files: &TlsFiles, provider: &CryptoProvider) -> Result<Own, TlsError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        |source: rustls::Error| TlsError::Unusable { path, source: Box::new(source) }
    };
    let chain = certificates(&files.cert)?;
    let certificate = PeerCertificate::read(&chain[0]).map_err(|source| TlsError::Identity { path: files.cert.clone(), source })?;
    let pem = read_secret_file(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoPem { path: files.key.clone(), what: "private key" })?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(unusable(&files.key))?;
    Ok(Own { key: Arc::new(key), certificate })
}

/// As [`own`], the chain reaching up to the CA: a node that joins knows the CA by its fingerprint alone, and has to be shown it.
pub(super) fn own_with_authority(files: &TlsFiles, provider: &CryptoProvider) -> Result<Own, TlsError> {
    let mut own = own(files, provider)?;
    let last = own.key.cert.last().cloned();
    let authorities = certificates(&files.ca)?;
    let above = last.and_then(|last| authorities.into_iter().find(|authority| authority != &last && signed_by(&last, authority)));
    if let Some(authority) = above {
        let mut key = CertifiedKey::clone(&own.key);
        key.cert.push(authority);
        own.key = Arc::new(key);
    }
    Ok(own)
}

/// Whether a certificate names the authority as its issuer. What is shown besides the leaf proves nothing and harms nobody.
fn signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let (certificate, authority) = (X509Certificate::from_der(certificate), X509Certificate::from_der(authority));
    matches!((certificate, authority), (Ok((_, one)), Ok((_, other))) if one.issuer() == other.subject() && one.subject() != one.issuer())
}

/// Reads the CA certificates.
pub(super) fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|source| TlsError::Unusable { path: path.to_owned(), source: Box::new(source) })?;
    }
    Ok(Arc::new(store))
}

/// Reads the CA certificates, each as the only root of a store.
pub(super) fn each_root(path: &Path) -> Result<Vec<(CertificateDer<'static>, Arc<RootCertStore>)>, TlsError> {
    let each = |certificate: CertificateDer<'static>| {
        let mut store = RootCertStore::empty();
        let added = store.add(certificate.clone());
        added.map_err(|source| TlsError::Unusable { path: path.to_owned(), source: Box::new(source) })?;
        Ok((certificate, Arc::new(store)))
    };
    certificates(path)?.into_iter().map(each).collect()
}

/// Reads at least one certificate.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_checked_file(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NoPem { path: path.to_owned(), what: "certificate" }),
    }
}
