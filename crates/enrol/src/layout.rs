//! Where a node's identity lies.
//!
//! ```text
//! DATA/identity/          mode 0700, unless [tls] and [keys] name other places
//!   node.key              the identity key (PKCS#8, PEM)
//!   node.pem              its certificate, then the CA's (PEM); written last
//!   ca.pem                the CA's certificate (PEM)
//!   envelope.key          opens envelopes of key epochs
//!   signing.key           signs the feed; control nodes only
//!   signers               the first signer set, by record or hash
//!   peers                 the control nodes as they were when this node joined
//! ```

use std::path::{Path, PathBuf};

use runtime::{
    config::{ControlConfig, EdgeConfig, IDENTITY_FOLDER, TlsFiles},
    tls::PeerCertificate,
};

use crate::EnrolError;

/// The files of a node's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Certificate, identity key and CA.
    pub tls: TlsFiles,
    /// The key that opens envelopes.
    pub envelope_key: PathBuf,
    /// The key that signs the feed; none for an edge.
    pub signing_key: Option<PathBuf>,
    /// The first signer set.
    pub signers: PathBuf,
    /// The control nodes known when it joined.
    pub peers: PathBuf,
}

impl Layout {
    /// Of a control node.
    pub fn control(config: &ControlConfig) -> Self {
        let folder = config.node.data_dir.join(IDENTITY_FOLDER);
        Self {
            tls: config.tls.clone(),
            envelope_key: config.keys.node.clone(),
            signing_key: Some(config.keys.signing.clone()),
            signers: folder.join("signers"),
            peers: folder.join("peers"),
        }
    }

    /// Of an edge.
    pub fn edge(config: &EdgeConfig) -> Self {
        Self {
            tls: config.tls.clone(),
            envelope_key: config.keys.node.clone(),
            signing_key: None,
            signers: config.keys.signers.clone(),
            peers: config.node.data_dir.join(IDENTITY_FOLDER).join("peers"),
        }
    }

    /// Whether the node has a certificate, and with it all the rest.
    pub fn is_enrolled(&self) -> bool {
        self.tls.cert.exists()
    }

    /// What the certificate says.
    ///
    /// # Errors
    /// [`EnrolError::Io`].
    pub fn certificate(&self) -> Result<PeerCertificate, EnrolError> {
        let path = &self.tls.cert;
        PeerCertificate::read_pem(path).map_err(|source| EnrolError::Io { operation: "read the certificate", path: path.clone(), source })
    }

    /// The folders that hold these files, each once.
    pub fn folders(&self) -> Vec<&Path> {
        let files = [&self.tls.cert, &self.tls.key, &self.tls.ca, &self.envelope_key, &self.signers, &self.peers];
        let mut folders: Vec<&Path> = files.into_iter().chain(&self.signing_key).filter_map(|file| file.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// Makes the folders that are missing, for the owner alone.
    ///
    /// # Errors
    /// [`EnrolError::Io`].
    pub fn make_folders(&self, disk: &dyn seams::Disk) -> Result<(), EnrolError> {
        for folder in self.folders() {
            disk.create_dir_all(folder).map_err(|source| EnrolError::Io { operation: "create", path: folder.to_owned(), source })?;
        }
        Ok(())
    }
}
